"""Run in a process of its own: the instruction set is chosen once per process."""

import torch
from op_samples import SAMPLES, Sample, assert_matches

from d2_ssod.ops import pairwise_iou, reference, similarity_loss, uncertainty_terms


def compare_with_reference() -> None:
    """All CPU kernels on all samples."""
    for make in SAMPLES.values():
        for dtype in (torch.float32, torch.float64):
            sample = make().to(dtype)
            _compare_weights(sample, dtype)
            _compare_loss(sample, dtype)
            assert_matches(
                pairwise_iou(sample.boxes, sample.gt_boxes),
                reference.pairwise_iou(sample.boxes.double(), sample.gt_boxes.double()),
                dtype,
            )


def _compare_weights(sample: Sample, dtype: torch.dtype) -> None:
    exact = sample.to(torch.float64)
    for variant in ("paper", "released"):
        truth = sample.ground_truth() if variant == "released" else {}
        exact_truth = exact.ground_truth() if variant == "released" else {}
        actual = uncertainty_terms(*sample.rois(), variant=variant, **truth)
        expected = reference.uncertainty_terms(*exact.rois(), **exact_truth)
        for ours, plain in zip(actual, expected, strict=True):
            assert_matches(ours, plain, dtype)


def _compare_loss(sample: Sample, dtype: torch.dtype) -> None:
    losses, gradients = [], []
    for batch, function in (
        (sample, similarity_loss),
        (sample.to(torch.float64), reference.similarity_loss),
    ):
        embeddings = batch.embeddings.clone().requires_grad_()
        losses.append(function(batch.boxes, embeddings, batch.rois_per_image))
        losses[-1].backward()
        gradients.append(embeddings.grad)
    assert_matches(*losses, dtype)
    assert_matches(*gradients, dtype)
