"""Fused operators on boxes and embeddings, for any PyTorch project: needs torch, never Detectron2."""

from .cosine import pairwise_cosine_similarity
from .reference import pairwise_iof, pairwise_iou, similarity_loss
from .weights import (
    UncertaintyTerms,
    gompertz,
    overlap_weights,
    uncertainty_terms,
    uncertainty_weights,
)

__all__ = [
    "UncertaintyTerms",
    "gompertz",
    "overlap_weights",
    "pairwise_cosine_similarity",
    "pairwise_iof",
    "pairwise_iou",
    "similarity_loss",
    "uncertainty_terms",
    "uncertainty_weights",
]
