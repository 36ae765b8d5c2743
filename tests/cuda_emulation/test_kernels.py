"""The logic of the CUDA kernels, run on the CPU by an emulation, against the float64 reference.

This says nothing of the hardware: memory model, rounding of matrix products, speed (emulation.h).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from d2_ssod.ops import reference

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SOURCE = HERE / "emulate.cpp"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = "-std=c++20 -O2 -Wall -Wextra -Wno-unknown-pragmas -U_FORTIFY_SOURCE"
FLAGS += " -fsanitize=bounds -fsanitize-undefined-trap-on-error -DD2_SSOD_EMULATE_CUDA"
CURVE = {"a": 0.25, "b": 50.0, "c_iou": 15.0, "c_sim": 10.0}
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
# Of weights, which change up to 3.7 times as much as a cosine; TF32 rounds to 11 bits.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "tf32": 2e-3, "float16": 1e-5, "bfloat16": 1e-5}


@pytest.fixture(scope="session")
def emulator(tmp_path_factory) -> Path:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no {COMPILER}")
    program = tmp_path_factory.mktemp("emulation") / "emulate"
    built = subprocess.run(
        [COMPILER, *FLAGS.split(), f"-I{ROOT / 'csrc'}", f"-I{HERE}", SOURCE, "-o", program],
        capture_output=True,
        text=True,
    )
    if "_Float16" in built.stderr:
        pytest.skip(f"{COMPILER} has no _Float16")
    assert built.returncode == 0, built.stderr
    return program


class Emulator:
    """Runs operators; every call with another schedule."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.program, self.directory, self.calls = program, directory, 0

    def run(self, operator: str, tensors: dict[str, Tensor | None], **keys) -> dict[str, Tensor]:
        self.calls += 1
        directory = self.directory / str(self.calls)
        directory.mkdir()
        for name, tensor in tensors.items():
            if tensor is not None:
                raw = tensor.contiguous().view(torch.uint8) if tensor.numel() else tensor
                raw.numpy().tofile(directory / name)
        words = [f"{key}={value}" for key, value in {"seed": self.calls, **keys}.items()]
        subprocess.run(
            [self.program, directory, f"operator={operator}", *words], check=True, timeout=60
        )
        dtype = np.float64 if keys["dtype"] == "float64" else np.float32
        return {
            path.name: torch.from_numpy(np.fromfile(path, dtype))
            for path in directory.iterdir()
            if path.name not in tensors
        }


@pytest.fixture
def emulate(emulator, tmp_path) -> Emulator:
    return Emulator(emulator, tmp_path)


def make_boxes(count: int, generator: torch.Generator, size: float = 100.0) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * size
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * size], dim=1)


def offsets(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0)


def make_batch(counts: list[int], dimensions: int, share: float, seed: int = 0) -> dict:
    """Boxes, embeddings (of three directions and noise, so that cosines spread) and foreground."""
    generator = torch.Generator().manual_seed(seed)
    rows = sum(counts)
    centers = torch.randn(3, dimensions, generator=generator)
    embeddings = centers[torch.randint(3, (rows,), generator=generator)]
    embeddings = embeddings + torch.randn(rows, dimensions, generator=generator)
    scales = 10 ** (4 * torch.rand(rows, 1, generator=generator) - 2)
    return {
        "boxes": make_boxes(rows, generator),
        "embeddings": embeddings * scales,
        "is_foreground": torch.rand(rows, generator=generator) < share,
    }


def stored(embeddings: Tensor, dtype: str) -> Tensor:
    return embeddings.to(DTYPES.get(dtype, torch.float32))


def add_ground_truth(batch: dict, gt_counts: list[int], seed: int = 1) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {**batch, "gt_boxes": make_boxes(sum(gt_counts), generator)}


def check_weights(
    emulate: Emulator,
    batch: dict,
    counts: list[int],
    dtype: str = "float32",
    tile: str = "auto",
    gt_counts: list[int] | None = None,
    blocks: int = 1024,
) -> dict[str, Tensor]:
    float_type = torch.float64 if dtype == "float64" else torch.float32
    boxes, embeddings = batch["boxes"].to(float_type), stored(batch["embeddings"], dtype)
    gt_boxes = batch["gt_boxes"].to(float_type) if gt_counts is not None else None
    result = emulate.run(
        "uncertainty_weights",
        {
            "boxes": boxes,
            "embeddings": embeddings,
            "is_foreground": batch["is_foreground"],
            "offsets": offsets(counts),
            "gt_boxes": gt_boxes,
            "gt_offsets": offsets(gt_counts) if gt_counts is not None else None,
        },
        dtype=dtype,
        tile=tile,
        blocks=blocks,
        images=len(counts),
        rows=len(boxes),
        dimensions=embeddings.shape[1],
        **CURVE,
    )
    expected = reference.uncertainty_terms(
        boxes.double(),
        embeddings.double(),
        batch["is_foreground"],
        counts,
        gt_boxes=None if gt_boxes is None else gt_boxes.double(),
        gts_per_image=gt_counts,
        **CURVE,
    )
    for name, value in zip(["weights", "max_iou", "dissimilarity"], expected, strict=True):
        torch.testing.assert_close(
            result[name].double(), value, rtol=0, atol=TOLERANCE[dtype], equal_nan=True, msg=name
        )
    return result


SHAPES = [
    ([0], 8, 0.5),
    ([1], 1, 0.0),
    ([1], 5, 1.0),
    ([33, 0, 70], 20, 0.3),
    ([129], 37, 0.0),
    ([40, 3], 64, 1.0),
    ([150, 1, 64], 96, 0.25),
]


@pytest.mark.parametrize("tile", ["small", "medium", "large"])
@pytest.mark.parametrize(("counts", "dimensions", "share"), SHAPES)
def test_uncertainty_weights_match_reference(emulate, counts, dimensions, share, tile):
    check_weights(emulate, make_batch(counts, dimensions, share), counts, tile=tile)


@pytest.mark.parametrize("blocks", [1, 12])
@pytest.mark.parametrize("tile", ["small", "medium", "large"])
def test_uncertainty_weights_match_reference_with_many_columns_per_block(emulate, tile, blocks):
    batch = make_batch([300, 40], 36, 0.6)
    check_weights(emulate, batch, [300, 40], tile=tile, blocks=blocks)


@pytest.mark.parametrize("dtype", ["float64", "tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("tile", ["small", "medium", "large"])
def test_uncertainty_weights_match_reference_for_dtype(emulate, dtype, tile):
    check_weights(emulate, make_batch([70, 50], 40, 0.3), [70, 50], dtype, tile)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("gt_counts", [[3, 0, 40], [0, 0, 0]])
def test_uncertainty_weights_match_reference_with_ground_truth(emulate, dtype, gt_counts):
    counts = [33, 20, 70]
    batch = add_ground_truth(make_batch(counts, 24, 0.3), gt_counts)
    check_weights(emulate, batch, counts, dtype, gt_counts=gt_counts)


def test_uncertainty_weights_of_many_images_match_reference(emulate):
    counts = [index % 4 for index in range(150)]  # three launches
    check_weights(emulate, make_batch(counts, 8, 0.5), counts)


def test_uncertainty_weights_of_far_apart_foreground_match_reference(emulate):
    counts = [5000]  # several rounds of the ordering
    batch = make_batch(counts, 4, 0.0)
    batch["is_foreground"][[0, 2047, 2048, 4999]] = True
    check_weights(emulate, batch, counts, tile="large")


def spoil(batch: dict) -> dict:
    """NaN and infinite rows, zero and tiny vectors, degenerate, inverted, tiny and huge boxes."""
    boxes, embeddings = batch["boxes"], batch["embeddings"]
    boxes[3, 1] = float("nan")
    boxes[4, 2] = float("inf")
    boxes[5] = torch.tensor([10.0, 10.0, 10.0, 60.0])
    boxes[6] = torch.tensor([60.0, 60.0, 20.0, 20.0])
    boxes[7] = torch.tensor([1e6, 1e6, 1e6 + 50, 1e6 + 50])
    boxes[8] = boxes[7]
    boxes[9] = torch.tensor([0.0, 0.0, 1e-12, 1e-12])
    boxes[10] = torch.tensor([-1e9, -1e9, 1e9, 1e9])
    embeddings[11] = 0
    embeddings[12] = embeddings[12] / embeddings[12].norm() * 1e-10
    embeddings[13, 0] = float("nan")
    embeddings[14] = embeddings[15]
    embeddings[16, -1] = float("inf")
    return batch


@pytest.mark.parametrize("gt_counts", [None, [7, 9]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("foreground", [range(0, 80, 2), range(1, 80, 2), range(0, 80, 7)])
def test_uncertainty_weights_of_unusual_rows_match_reference(emulate, foreground, dtype, gt_counts):
    counts = [50, 30]
    batch = add_ground_truth(spoil(make_batch(counts, 24, 0.0)), [7, 9])
    batch["gt_boxes"][2] = float("nan")
    batch["is_foreground"][list(foreground)] = True
    check_weights(emulate, batch, counts, dtype, gt_counts=gt_counts)


def test_uncertainty_weights_do_not_depend_on_the_schedule(emulate):
    counts = [100, 70]
    batch = make_batch(counts, 24, 0.6)
    first = check_weights(emulate, batch, counts, tile="small", blocks=12)
    for _ in range(5):
        again = check_weights(emulate, batch, counts, tile="small", blocks=12)
        assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gt_counts", [None, [3, 0, 300, 1], [0, 0, 0, 0]])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_overlap_weights_match_reference(emulate, share, gt_counts, dtype):
    counts = [70, 0, 600, 1]
    float_type = torch.float64 if dtype == "float64" else torch.float32
    batch = add_ground_truth(spoil(make_batch(counts, 24, share)), gt_counts or [0])
    boxes, gt_boxes = batch["boxes"].to(float_type), batch["gt_boxes"].to(float_type)
    result = emulate.run(
        "overlap_weights",
        {
            "boxes": boxes,
            "is_foreground": batch["is_foreground"],
            "offsets": offsets(counts),
            "gt_boxes": gt_boxes if gt_counts else None,
            "gt_offsets": offsets(gt_counts) if gt_counts else None,
        },
        dtype=dtype,
        images=len(counts),
        rows=len(boxes),
        **CURVE,
    )
    expected = reference.overlap_weights(
        boxes.double(),
        batch["is_foreground"],
        counts,
        a=CURVE["a"],
        b=CURVE["b"],
        c=CURVE["c_iou"],
        gt_boxes=gt_boxes.double() if gt_counts else None,
        gts_per_image=gt_counts,
    )
    torch.testing.assert_close(
        result["weights"].double(), expected, rtol=0, atol=TOLERANCE[dtype], equal_nan=True
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("operator", ["pairwise_iou", "pairwise_iof"])
@pytest.mark.parametrize(
    ("rows", "cols"), [(0, 4), (20, 0), (1, 1), (17, 20), (50, 517), (20, 1300)]
)
def test_pairwise_overlaps_match_reference(emulate, rows, cols, operator, dtype):
    float_type = torch.float64 if dtype == "float64" else torch.float32
    generator = torch.Generator().manual_seed(0)
    boxes1 = make_boxes(rows, generator).to(float_type)
    boxes2 = make_boxes(cols, generator).to(float_type)
    if rows > 16 and cols > 16:
        for boxes in (boxes1, boxes2):
            spoil({"boxes": boxes, "embeddings": torch.ones(20, 4)})
    result = emulate.run(
        operator, {"boxes1": boxes1, "boxes2": boxes2}, dtype=dtype, rows=rows, cols=cols
    )["result"].view(rows, cols)
    expected = getattr(reference, operator)(boxes1.double(), boxes2.double())
    torch.testing.assert_close(
        result.double(), expected, rtol=TOLERANCE[dtype], atol=1e-7, equal_nan=True
    )


LOSS_SHAPES = [([0, 0], 8), ([1], 1), ([2, 0, 65], 20), ([130], 37)]


def check_loss(
    emulate: Emulator,
    batch: dict,
    counts: list[int],
    dtype: str = "float32",
    classes: Tensor | None = None,
    with_grad: bool = True,
) -> dict[str, Tensor]:
    """Loss and gradient; the latter times the row's norm and the image's size, to be near 1."""
    float_type = torch.float64 if dtype == "float64" else torch.float32
    boxes, embeddings = batch["boxes"].to(float_type), stored(batch["embeddings"], dtype)
    result = emulate.run(
        "similarity_loss",
        {
            "boxes": boxes,
            "embeddings": embeddings,
            "offsets": offsets(counts),
            "classes": classes,
        },
        dtype=dtype,
        images=len(counts),
        rows=len(boxes),
        dimensions=embeddings.shape[1],
        iof_threshold=0.7,
        with_grad=int(with_grad),
    )
    exact = embeddings.double().requires_grad_()
    expected = reference.similarity_loss(
        boxes.double(), exact, counts, iof_threshold=0.7, classes=classes
    )
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(
        result["loss"][0].double(), expected.detach(), rtol=tolerance, atol=1e-12, equal_nan=True
    )
    if with_grad:
        expected.backward()
        sizes = torch.tensor(counts).repeat_interleave(torch.tensor(counts)) * len(counts)
        scale = embeddings.double().norm(dim=1).clamp(min=1e-8) * sizes
        torch.testing.assert_close(
            result["gradient"].view(embeddings.shape).double() * scale[:, None],
            exact.grad * scale[:, None],
            rtol=0,
            atol=tolerance,
            equal_nan=True,
        )
    return result


@pytest.mark.parametrize(("counts", "dimensions"), LOSS_SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_similarity_loss_matches_reference(emulate, counts, dimensions, dtype):
    check_loss(emulate, make_batch(counts, dimensions, 0.0), counts, dtype)


def test_similarity_loss_matches_reference_with_many_columns_and_dimensions(emulate):
    batch = make_batch([64, 270], 140, 0.0)
    check_loss(emulate, batch, [64, 270])
    check_loss(emulate, batch, [64, 270], with_grad=False)


@pytest.mark.parametrize("dtype", ["tf32", "float16", "bfloat16"])
def test_similarity_loss_matches_reference_for_dtype(emulate, dtype):
    check_loss(emulate, make_batch([140, 20], 40, 0.0), [140, 20], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_similarity_loss_with_classes_matches_reference(emulate, dtype):
    batch = make_batch([90, 50], 24, 0.0)
    classes = torch.randint(-2, 3, (140,), generator=torch.Generator().manual_seed(3))
    check_loss(emulate, batch, [90, 50], dtype, classes)
    check_loss(emulate, batch, [90, 50], dtype, classes, with_grad=False)


def test_similarity_loss_of_many_images_matches_reference(emulate):
    counts = [index % 3 for index in range(70)]  # two launches
    check_loss(emulate, make_batch(counts, 8, 0.0), counts)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", [*range(5, 13), 14, None])
def test_similarity_loss_of_unusual_rows_matches_reference(emulate, row, dtype):
    batch = make_batch([40, 20], 24, 0.0)
    usual = {key: value.clone() for key, value in batch.items()}
    spoil(batch)
    if row is not None:  # this one alone; otherwise all, with NaN
        for key in ("boxes", "embeddings"):
            usual[key][row] = batch[key][row]
    check_loss(emulate, batch if row is None else usual, [40, 20], dtype)


def test_similarity_loss_does_not_depend_on_the_schedule(emulate):
    batch = make_batch([100, 70], 24, 0.0)
    first = check_loss(emulate, batch, [100, 70])
    for _ in range(3):
        again = check_loss(emulate, batch, [100, 70])
        assert all(torch.equal(first[name], again[name]) for name in first)
