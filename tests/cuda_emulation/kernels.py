"""What the tests of ``ops`` do not ask of the CUDA kernels: each tile, tails, schedules, TF32.

Run with the plugin ``emulated_device``, by ``test_emulated_device.py``; every call meets another
schedule. Against the float64 reference.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor

from d2_ssod.ops import (
    build_info,
    overlap_weights,
    pairwise_iof,
    pairwise_iou,
    reference,
    similarity_loss,
)

assert build_info()["cuda"] == "emulated", "to be run with -p emulated_device"

CURVE = {"a": 0.25, "b": 50.0, "c_iou": 15.0, "c_sim": 10.0}
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
TILES = {"small": 1, "medium": 2, "large": 3}
# Of weights, which change up to 3.7 times as much as a cosine; TF32 rounds to 11 bits.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "tf32": 2e-3, "float16": 1e-5, "bfloat16": 1e-5}


@contextlib.contextmanager
def tf32_allowed(allowed: bool):
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def make_boxes(count: int, generator: torch.Generator, size: float = 100.0) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * size
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * size], dim=1)


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
    batch: dict,
    counts: list[int],
    dtype: str = "float32",
    tile: str | None = None,
    gt_counts: list[int] | None = None,
    blocks: int = 1024,
) -> tuple[Tensor, ...]:
    float_type = torch.float64 if dtype == "float64" else torch.float32
    boxes, embeddings = batch["boxes"].to(float_type), stored(batch["embeddings"], dtype)
    gt_boxes = batch["gt_boxes"].to(float_type) if gt_counts is not None else None
    library = torch.ops.d2_ssod
    if tile and dtype != "float64":
        library = torch.ops.d2_ssod_emulation
        library.choose_tiling(TILES[tile], blocks)
    rois = (boxes, embeddings, batch["is_foreground"], counts)
    with tf32_allowed(dtype == "tf32"):
        result = library.uncertainty_weights(*rois, *CURVE.values(), gt_boxes, gt_counts)
    expected = reference.uncertainty_terms(
        boxes.double(),
        embeddings.double(),
        batch["is_foreground"],
        counts,
        gt_boxes=None if gt_boxes is None else gt_boxes.double(),
        gts_per_image=gt_counts,
        **CURVE,
    )
    for ours, plain in zip(result, expected, strict=True):
        torch.testing.assert_close(
            ours.double(), plain, rtol=0, atol=TOLERANCE[dtype], equal_nan=True
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
def test_uncertainty_weights_match_reference(counts, dimensions, share, tile):
    check_weights(make_batch(counts, dimensions, share), counts, tile=tile)


@pytest.mark.parametrize("blocks", [1, 12])
@pytest.mark.parametrize("tile", ["small", "medium", "large"])
def test_uncertainty_weights_match_reference_with_many_columns_per_block(tile, blocks):
    batch = make_batch([300, 40], 36, 0.6)
    check_weights(batch, [300, 40], tile=tile, blocks=blocks)


@pytest.mark.parametrize("dtype", ["float64", "tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("tile", ["small", "medium", "large"])
def test_uncertainty_weights_match_reference_for_dtype(dtype, tile):
    check_weights(make_batch([70, 50], 40, 0.3), [70, 50], dtype, tile)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("gt_counts", [[3, 0, 40], [0, 0, 0]])
def test_uncertainty_weights_match_reference_with_ground_truth(dtype, gt_counts):
    counts = [33, 20, 70]
    batch = add_ground_truth(make_batch(counts, 24, 0.3), gt_counts)
    check_weights(batch, counts, dtype, gt_counts=gt_counts)


def test_uncertainty_weights_of_many_images_match_reference():
    counts = [index % 4 for index in range(150)]  # three launches
    check_weights(make_batch(counts, 8, 0.5), counts)


def test_uncertainty_weights_of_far_apart_foreground_match_reference():
    counts = [5000]  # several rounds of the ordering
    batch = make_batch(counts, 4, 0.0)
    batch["is_foreground"][[0, 2047, 2048, 4999]] = True
    check_weights(batch, counts, tile="large")


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
def test_uncertainty_weights_of_unusual_rows_match_reference(foreground, dtype, gt_counts):
    counts = [50, 30]
    batch = add_ground_truth(spoil(make_batch(counts, 24, 0.0)), [7, 9])
    batch["gt_boxes"][2] = float("nan")
    batch["is_foreground"][list(foreground)] = True
    check_weights(batch, counts, dtype, gt_counts=gt_counts)


def test_uncertainty_weights_do_not_depend_on_the_schedule():
    counts = [100, 70]
    batch = make_batch(counts, 24, 0.6)
    first = check_weights(batch, counts, tile="small", blocks=12)
    for _ in range(5):
        again = check_weights(batch, counts, tile="small", blocks=12)
        assert all(map(torch.equal, first, again))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gt_counts", [None, [3, 0, 300, 1], [0, 0, 0, 0]])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_overlap_weights_match_reference(share, gt_counts, dtype):
    counts = [70, 0, 600, 1]
    float_type = torch.float64 if dtype == "float64" else torch.float32
    batch = add_ground_truth(spoil(make_batch(counts, 24, share)), gt_counts or [0])
    boxes, gt_boxes = batch["boxes"].to(float_type), batch["gt_boxes"].to(float_type)
    curve = {"a": CURVE["a"], "b": CURVE["b"], "c": CURVE["c_iou"]}
    truth = {"gt_boxes": gt_boxes, "gts_per_image": gt_counts} if gt_counts else {}
    result = overlap_weights(boxes, batch["is_foreground"], counts, **curve, **truth)
    if gt_counts:
        truth["gt_boxes"] = gt_boxes.double()
    expected = reference.overlap_weights(
        boxes.double(), batch["is_foreground"], counts, **curve, **truth
    )
    torch.testing.assert_close(
        result.double(), expected, rtol=0, atol=TOLERANCE[dtype], equal_nan=True
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("operator", [pairwise_iou, pairwise_iof])
@pytest.mark.parametrize(
    ("rows", "cols"),
    # The last two: enough for blocks of 8 and of 16 rows.
    [(0, 4), (20, 0), (1, 1), (17, 20), (50, 517), (20, 1300), (3101, 3), (6149, 3)],
)
def test_pairwise_overlaps_match_reference(rows, cols, operator, dtype):
    float_type = torch.float64 if dtype == "float64" else torch.float32
    generator = torch.Generator().manual_seed(0)
    boxes1 = make_boxes(rows, generator).to(float_type)
    boxes2 = make_boxes(cols, generator).to(float_type)
    if rows > 16 and cols > 16:
        for boxes in (boxes1, boxes2):
            spoil({"boxes": boxes, "embeddings": torch.ones(20, 4)})
    result = operator(boxes1, boxes2)
    expected = getattr(reference, operator.__name__)(boxes1.double(), boxes2.double())
    torch.testing.assert_close(
        result.double(), expected, rtol=TOLERANCE[dtype], atol=1e-7, equal_nan=True
    )


LOSS_SHAPES = [([0, 0], 8), ([1], 1), ([2, 0, 65], 20), ([130], 37)]


def check_loss(
    batch: dict,
    counts: list[int],
    dtype: str = "float32",
    classes: Tensor | None = None,
    with_grad: bool = True,
    tiles: tuple[str, str] | None = None,
    chunk_rows: int = 1024,
) -> tuple[Tensor, ...]:
    """Loss and gradient; the latter times the row's norm and the image's size, to be near 1.

    ``tiles``: of the pairs and of the gradient.
    """
    float_type = torch.float64 if dtype == "float64" else torch.float32
    boxes, embeddings = batch["boxes"].to(float_type), stored(batch["embeddings"], dtype)
    library = torch.ops.d2_ssod
    if tiles:
        library = torch.ops.d2_ssod_emulation
        library.choose_loss_tiling(*(TILES[tile] for tile in tiles), chunk_rows)
    with tf32_allowed(dtype == "tf32"):
        loss, gradient = library.similarity_loss(boxes, embeddings, counts, 0.7, classes, with_grad)
    exact = embeddings.double().requires_grad_()
    expected = reference.similarity_loss(
        boxes.double(), exact, counts, iof_threshold=0.7, classes=classes
    )
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(
        loss.double(), expected.detach(), rtol=tolerance, atol=1e-12, equal_nan=True
    )
    if with_grad:
        expected.backward()
        sizes = torch.tensor(counts).repeat_interleave(torch.tensor(counts)) * len(counts)
        scale = embeddings.double().norm(dim=1).clamp(min=1e-8) * sizes
        torch.testing.assert_close(
            gradient.double() * scale[:, None],
            exact.grad * scale[:, None],
            rtol=0,
            atol=tolerance,
            equal_nan=True,
        )
    return loss, gradient


@pytest.mark.parametrize(("counts", "dimensions"), LOSS_SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_similarity_loss_matches_reference(counts, dimensions, dtype):
    check_loss(make_batch(counts, dimensions, 0.0), counts, dtype)


def test_similarity_loss_matches_reference_with_many_columns_and_dimensions():
    batch = make_batch([64, 270], 140, 0.0)
    check_loss(batch, [64, 270])
    check_loss(batch, [64, 270], with_grad=False)


@pytest.mark.parametrize("dtype", ["tf32", "float16", "bfloat16"])
def test_similarity_loss_matches_reference_for_dtype(dtype):
    check_loss(make_batch([140, 20], 40, 0.0), [140, 20], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("gradient", ["small", "medium", "large"])
@pytest.mark.parametrize("pairs", ["small", "medium", "large"])
def test_similarity_loss_matches_reference_with_any_tiles(pairs, gradient, dtype):
    check_loss(make_batch([140, 0, 30], 72, 0.0), [140, 0, 30], dtype, tiles=(pairs, gradient))


@pytest.mark.parametrize("tile", ["small", "medium", "large"])
def test_similarity_loss_of_some_rows_at_a_time_matches_reference(tile):
    batch = make_batch([300, 40], 20, 0.0)
    check_loss(batch, [300, 40], tiles=(tile, tile), chunk_rows=128)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_similarity_loss_with_classes_matches_reference(dtype):
    batch = make_batch([90, 50], 24, 0.0)
    classes = torch.randint(-2, 3, (140,), generator=torch.Generator().manual_seed(3))
    check_loss(batch, [90, 50], dtype, classes)
    check_loss(batch, [90, 50], dtype, classes, with_grad=False)


def test_similarity_loss_of_many_images_matches_reference():
    counts = [index % 3 for index in range(70)]  # two launches
    check_loss(make_batch(counts, 8, 0.0), counts)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", [*range(5, 13), 14, None])
def test_similarity_loss_of_unusual_rows_matches_reference(row, dtype):
    batch = make_batch([40, 20], 24, 0.0)
    usual = {key: value.clone() for key, value in batch.items()}
    spoil(batch)
    if row is not None:  # this one alone; otherwise all, with NaN
        for key in ("boxes", "embeddings"):
            usual[key][row] = batch[key][row]
    check_loss(batch if row is None else usual, [40, 20], dtype)


def test_similarity_loss_does_not_depend_on_the_schedule():
    batch = make_batch([100, 70], 24, 0.0)
    first = check_loss(batch, [100, 70])
    for _ in range(3):
        again = check_loss(batch, [100, 70])
        assert all(map(torch.equal, first, again))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_inputs_may_begin_anywhere(dtype):
    """A view of the middle of a tensor: contiguous, but no address to load four numbers from."""
    counts, depth = [30, 12], 8
    batch = make_batch(counts, depth, 0.4)
    flat = {key: torch.cat([x.flatten()[:1], x.flatten()]) for key, x in batch.items()}
    boxes, embeddings, foreground = (
        flat["boxes"][1:].view(-1, 4),
        flat["embeddings"].to(dtype)[1:].view(-1, depth),
        flat["is_foreground"][1:],
    )
    assert embeddings.is_contiguous()
    assert embeddings.data_ptr() % 16
    weights = torch.ops.d2_ssod.uncertainty_weights(
        boxes, embeddings, foreground, counts, *CURVE.values(), None, None
    )[0]
    exact = (boxes.double(), embeddings.double())
    expected = reference.uncertainty_weights(*exact, foreground, counts, **CURVE)
    torch.testing.assert_close(weights.double(), expected, rtol=0, atol=1e-5)
    loss = similarity_loss(boxes, embeddings, counts)
    torch.testing.assert_close(
        loss.double(), reference.similarity_loss(*exact, counts), rtol=1e-5, atol=0
    )


def test_tf32_is_used_if_either_api_allows_it():
    batch = make_batch([150], 64, 0.4)
    arguments = (batch["boxes"], batch["embeddings"], batch["is_foreground"], [150])
    exact = reference.uncertainty_weights(*(x.double() for x in arguments[:2]), *arguments[2:])

    def is_coarse():
        weights = torch.ops.d2_ssod.uncertainty_weights(*arguments, *CURVE.values(), None, None)[0]
        return (weights - exact).abs().max().item() > 2e-5

    matmul = torch.backends.cuda.matmul
    for allowed in (True, False):
        with tf32_allowed(allowed):
            assert is_coarse() == allowed
    if not hasattr(matmul, "fp32_precision"):
        return
    before = matmul.fp32_precision
    try:
        for precision in ("tf32", "ieee"):
            matmul.fp32_precision = precision  # from here on allowTF32CuBLAS() may raise
            assert is_coarse() == (precision == "tf32")
    finally:
        matmul.fp32_precision = before
