"""The inputs and the tolerances that all tests of the operators share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from d2_ssod.ops import build_info

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, torch.float64, *HALVES)

# Against the float64 reference on the same numbers: {device: {dtype: (rtol, atol)}}. Halves are
# exact in float32, in which they are accumulated.
TOLERANCES = {
    "cpu": {
        torch.float64: (1e-10, 1e-12),
        torch.float32: (2e-5, 2e-5),
        torch.float16: (2e-5, 2e-5),
        torch.bfloat16: (2e-5, 2e-5),
    },
    "cuda": {
        torch.float64: (1e-10, 1e-12),
        torch.float32: (1e-4, 1e-4),
        torch.float16: (1e-4, 1e-4),
        torch.bfloat16: (1e-4, 1e-4),
    },
}

_cuda_works = torch.cuda.is_available() and build_info()["cuda"] != "cpu only"
DEVICES = (
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(
            not _cuda_works, reason="no GPU, or built without the CUDA operators"
        ),
    ),
)


def assert_matches(
    actual: Tensor, expected: Tensor, dtype: torch.dtype, scale: float = 1.0
) -> None:
    """Compare with a float64 result within the table's tolerance; ``scale``: what 1 is in there."""
    rtol, atol = TOLERANCES[actual.device.type][dtype]
    torch.testing.assert_close(
        actual.double().cpu(), expected.double().cpu(), rtol=rtol, atol=atol * scale, equal_nan=True
    )


@dataclasses.dataclass(frozen=True)
class Sample:
    """One batch: the arguments of every operator."""

    boxes: Tensor
    embeddings: Tensor
    is_foreground: Tensor
    rois_per_image: list[int]
    gt_boxes: Tensor
    gts_per_image: list[int]
    classes: Tensor

    def to(self, *args: Any) -> Sample:
        """Move all tensors, or change the dtype of the floating ones."""
        moved = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                is_dtype = isinstance(args[0], torch.dtype)
                moved[field.name] = (
                    value if is_dtype and not value.is_floating_point() else value.to(*args)
                )
        return dataclasses.replace(self, **moved)

    def with_embeddings(self, dtype: torch.dtype) -> Sample:
        """Embeddings of ``dtype``, boxes as they belong to it: half ones stay float32."""
        boxes = torch.float64 if dtype == torch.float64 else torch.float32
        return dataclasses.replace(self.to(boxes), embeddings=self.embeddings.to(dtype))

    def rois(self) -> tuple:
        """Arguments of the weights."""
        return self.boxes, self.embeddings, self.is_foreground, self.rois_per_image

    def ground_truth(self) -> dict[str, Any]:
        """Keyword arguments of the released variant."""
        return {"gt_boxes": self.gt_boxes, "gts_per_image": self.gts_per_image}


def random_boxes(count: int, generator: torch.Generator, size: float = 200.0) -> Tensor:
    """Boxes of which many overlap, some are inside others, and some are inverted."""
    corner = torch.rand(count, 2, generator=generator) * size
    extent = torch.rand(count, 2, generator=generator) * size * 0.7 - size * 0.04
    return torch.cat([corner, corner + extent], dim=1)


def make_sample(counts: list[int], depth: int, foreground: float = 0.25, seed: int = 0) -> Sample:
    """Random batch; every third image has no ground truth."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    gts_per_image = [(2 * i) % 3 for i in range(len(counts))]
    # An offset makes the embeddings of a batch alike, as those of a network are.
    embeddings = torch.randn(total, depth, generator=generator) + 0.7
    return Sample(
        boxes=random_boxes(total, generator),
        embeddings=embeddings,
        is_foreground=torch.rand(total, generator=generator) < foreground,
        rois_per_image=counts,
        gt_boxes=random_boxes(sum(gts_per_image), generator),
        gts_per_image=gts_per_image,
        classes=torch.randint(-1, 4, (total,), generator=generator),
    )


def _awkward_boxes() -> Sample:
    """Degenerate, inverted, identical, touching, contained, far-away and huge boxes."""
    boxes = torch.tensor(
        [
            [10, 10, 50, 50],
            [10, 10, 50, 50],
            [20, 20, 30, 30],
            [50, 10, 90, 50],
            [30, 10, 30, 50],
            [30, 30, 30, 30],
            [60, 60, 20, 20],
            [60, 20, 20, 60],
            [1e6, 1e6, 1e6 + 40, 1e6 + 40],
            [1e6 + 20, 1e6, 1e6 + 60, 1e6 + 40],
            [-1e5, -1e5, 1e5, 1e5],
            [0, 0, 1e-3, 1e-3],
        ]
    )
    sample = make_sample([len(boxes)] * 2, 24, seed=3)
    flags = torch.zeros(2, len(boxes), dtype=torch.bool)
    flags[0, ::2] = True
    flags[1, 1::2] = True
    return dataclasses.replace(
        sample,
        boxes=boxes.repeat(2, 1),
        is_foreground=flags.flatten(),
        gt_boxes=boxes[[0, 4, 6, 9]],
        gts_per_image=[1, 3],
    )


def _zero_vectors() -> Sample:
    sample = make_sample([40, 40], 16, seed=4)
    embeddings = sample.embeddings.clone()
    embeddings[::3] = 0
    return dataclasses.replace(sample, embeddings=embeddings)


def _non_contiguous() -> Sample:
    sample = make_sample([50, 30], 20, seed=5)
    return dataclasses.replace(
        sample,
        boxes=sample.boxes.T.contiguous().T,
        embeddings=torch.stack([sample.embeddings, sample.embeddings], dim=2)[..., 0],
        is_foreground=torch.stack([sample.is_foreground] * 2, dim=1)[:, 0],
        classes=torch.stack([sample.classes] * 2, dim=1)[:, 0],
        gt_boxes=torch.cat([sample.gt_boxes, sample.gt_boxes], dim=1)[:, :4],
    )


def _row_slice() -> Sample:
    sample = make_sample([50, 30], 48, seed=6)
    return dataclasses.replace(sample, embeddings=sample.embeddings[:, 5:42])


SAMPLES: dict[str, Callable[[], Sample]] = {
    "two_images": lambda: make_sample([130, 75], 64),
    "no_images": lambda: make_sample([], 8),
    "one_roi": lambda: make_sample([1], 5),
    "images_without_rois": lambda: make_sample([0, 33, 0, 97, 0], 33),
    "no_foreground": lambda: make_sample([20, 100], 12, foreground=0.0),
    "all_foreground": lambda: make_sample([20, 100], 12, foreground=1.0),
    "many_images": lambda: make_sample([(7 * i) % 11 for i in range(64)], 16),
    "several_blocks": lambda: make_sample([600, 1], 40),
    "awkward_boxes": _awkward_boxes,
    "zero_vectors": _zero_vectors,
    "no_depth": lambda: make_sample([9, 4], 0),
    "non_contiguous": _non_contiguous,
    "row_slice": _row_slice,
}


def sample_inputs() -> list:
    """``pytest.param`` of every sample, named."""
    return [pytest.param(make(), id=name) for name, make in SAMPLES.items()]


OPERATORS = torch.ops.d2_ssod


def operator_arguments(sample):
    """Arguments of every operator, as the public functions pass them."""
    curve = (0.25, 50.0, 15.0, 10.0)
    gts = (sample.gt_boxes, sample.gts_per_image)
    rois = (sample.boxes, sample.is_foreground, sample.rois_per_image)
    loss = (sample.boxes, sample.embeddings, sample.rois_per_image, 0.7)
    return {
        "pairwise_iou": [(sample.boxes, sample.gt_boxes)],
        "pairwise_iof": [(sample.boxes, sample.gt_boxes)],
        "overlap_weights": [(*rois, *curve[:3], None, None), (*rois, *curve[:3], *gts)],
        "uncertainty_weights": [
            (*sample.rois(), *curve, None, None),
            (*sample.rois(), *curve, *gts),
        ],
        "similarity_loss": [
            (*loss, None, True),
            (*loss, sample.classes, True),
            (*loss, None, False),
        ],
    }


NAMES = list(operator_arguments(make_sample([3], 2)))
