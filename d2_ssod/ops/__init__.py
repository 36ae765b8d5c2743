"""Fused operators on boxes and embeddings, for any PyTorch project: needs torch, never Detectron2.

Boxes are XYXY. The RoIs of all images of a batch lie one after another, and ``rois_per_image`` says
where one ends. Importing this loads the compiled module, or says how to build it.
"""

from __future__ import annotations

from . import _library, _registrations
from .boxes import pairwise_iof, pairwise_iou
from .cosine import pairwise_cosine_similarity
from .similarity import similarity_loss
from .weights import (
    UncertaintyTerms,
    gompertz,
    overlap_weights,
    uncertainty_terms,
    uncertainty_weights,
)

__all__ = [
    "UncertaintyTerms",
    "build_info",
    "gompertz",
    "overlap_weights",
    "pairwise_cosine_similarity",
    "pairwise_iof",
    "pairwise_iou",
    "similarity_loss",
    "uncertainty_terms",
    "uncertainty_weights",
]

_C = _library.load()
_registrations.register(with_cuda=_C.build_info()["cuda"] is not None)


def build_info() -> dict[str, object]:
    """How the compiled module was built.

    Returns:
        ``compiler`` (str), ``openmp`` (version date, or None), ``torch`` (version built for),
        ``cuda`` (toolkit version and architectures, or "cpu only"), ``source_hash``.
    """
    info = dict(_C.build_info())
    info["cuda"] = info["cuda"] or "cpu only"
    return info
