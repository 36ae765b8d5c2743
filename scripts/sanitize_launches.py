"""Some hundred launches that reach every kernel, instantiation and tail, for compute-sanitizer.

    compute-sanitizer --tool memcheck python scripts/sanitize_launches.py

Few and small, since the checkers are slow, and bare calls: what the results are worth, the tests
say. ``--smoke`` calls every operator on a few sizes and compares its results with the reference.
"""

from __future__ import annotations

import argparse
from types import ModuleType

import torch
from torch import Tensor

from d2_ssod import ops
from d2_ssod.ops import reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Sizes of images and embeddings: a row, less than a tile, exactly tiles, a tail, many images, none
# in an image. Depths that a lane takes one by one, or four at once, and that are padded.
BATCHES = (
    ([1], 1),
    ([33, 0, 70], 20),
    ([130], 37),
    ([64, 128], 32),
    ([index % 4 for index in range(70)], 8),
)
# For which the weights take their large tiles, and their medium ones; the same of the loss.
LARGER = (([2944], 16), ([1100, 1100], 16))
LARGER_LOSS = (([1100, 1100], 2048), ([512, 512], 512))


def batch(counts: list[int], depth: int, dtype: torch.dtype) -> tuple:
    generator = torch.Generator(DEVICE).manual_seed(0)
    rows = sum(counts)
    boxes_dtype = torch.float64 if dtype == torch.float64 else torch.float32

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, device=DEVICE, generator=generator, dtype=boxes_dtype)

    corner = uniform(rows, 2) * 100
    return (
        torch.cat([corner, corner + uniform(rows, 2) * 50], dim=1),
        (uniform(rows, depth) - 0.3).to(dtype),
        uniform(rows) < 0.3,
        counts,
    )


def weights(rois: tuple) -> None:
    boxes, _, _, counts = rois
    ops.uncertainty_weights(*rois)
    truth = {"gt_boxes": boxes[: len(counts)], "gts_per_image": [1] * len(counts)}
    ops.uncertainty_weights(*rois, variant="released", **truth)


def loss(rois: tuple, **keywords: torch.Tensor) -> torch.Tensor:
    leaf = rois[1].detach().requires_grad_()
    value = ops.similarity_loss(rois[0], leaf, rois[3], **keywords)
    value.backward()
    return value


def launch_everything() -> None:
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for counts, depth in BATCHES if dtype == torch.float32 else BATCHES[1:3]:
            rois = batch(counts, depth, dtype)
            weights(rois)
            loss(rois, classes=torch.arange(sum(counts), device=DEVICE) % 5 - 1)
    loss(batch([64, 270], 140, torch.float32))  # several column tiles, several pieces of gradient
    torch.backends.cuda.matmul.allow_tf32 = True
    weights(batch(*BATCHES[1], torch.float32))
    loss(batch(*BATCHES[1], torch.float32))
    torch.backends.cuda.matmul.allow_tf32 = False
    for counts, depth in LARGER:
        for dtype in (torch.float32, torch.float16):
            ops.uncertainty_weights(*batch(counts, depth, dtype))
    for counts, depth in LARGER_LOSS:
        loss(batch(counts, depth, torch.float32))
    for dtype in (torch.float32, torch.float64):
        boxes, _, foreground, counts = batch([600, 33], 1, dtype)
        ops.overlap_weights(boxes, foreground, counts)
        for truth in (boxes[:5], boxes.new_empty(0, 4)):
            gts = {"gt_boxes": truth, "gts_per_image": [0, len(truth)]}
            ops.overlap_weights(boxes, foreground, counts, **gts)
            ops.uncertainty_weights(boxes, boxes, foreground, counts, variant="released", **gts)
        for cols in (1, 20, 517):
            ops.pairwise_iou(boxes[:40], boxes[:cols])
            ops.pairwise_iof(boxes[:40], boxes[:cols])
        for rows in (3101, 6149):  # of 8 and of 16 rows in a block
            many = boxes.repeat(10, 1)[:rows]
            ops.pairwise_iou(many, boxes[:3])
            ops.pairwise_iof(many, boxes[:3])
    with torch.no_grad():
        ops.similarity_loss(boxes, boxes, counts)


def results(
    library: ModuleType, boxes: Tensor, embeddings: Tensor, foreground: Tensor, counts: list[int]
) -> dict[str, Tensor]:
    leaf = embeddings.detach().requires_grad_()
    value = library.similarity_loss(boxes, leaf, counts)
    value.backward()
    return {
        "pairwise_iou": library.pairwise_iou(boxes, boxes),
        "pairwise_iof": library.pairwise_iof(boxes, boxes),
        "overlap_weights": library.overlap_weights(boxes, foreground, counts),
        "uncertainty_weights": library.uncertainty_weights(boxes, embeddings, foreground, counts),
        "similarity_loss": value.detach(),
        "similarity_loss's gradient": leaf.grad / leaf.grad.abs().max(),
    }


def smoke() -> None:
    """Call every operator, and compare: one bad access would spoil all later calls."""
    for counts, depth in (([130, 40], 64), *LARGER, *LARGER_LOSS):
        boxes, embeddings, *others = batch(counts, depth, torch.float32)
        ours = results(ops, boxes, embeddings, *others)
        expected = results(reference, boxes.double(), embeddings.double(), *others)
        for name, result in ours.items():
            print(f"RoIs {counts}, D {depth}: {name}", flush=True)
            torch.testing.assert_close(result.double(), expected[name], rtol=1e-4, atol=1e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    if parser.parse_args().smoke:
        smoke()
    else:
        launch_everything()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
