"""Fig. 5: how much the background of pseudo-labeled images counts, place by place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils as utils
from matplotlib.figure import Figure
from torch import Tensor, nn

from ablation.separation import mapper_without_augmentation, sample_rois
from d2_ssod.artifacts import RunFolder, load_classes, load_phase_model, load_pseudo_labels
from d2_ssod.data.datasets import NamedDataSets
from d2_ssod.data.objects import detections_of
from d2_ssod.drawing import draw_detections
from d2_ssod.errors import ConfigError
from d2_ssod.modeling import collect_rois, detector_of, num_classes
from d2_ssod.structures import Detections

from .finished import open_run
from .plots import save

_ALL = 100_000  # RoIs of an image; none is left out


@torch.no_grad()
def compute(output_dir: Path, phase: int | None = None, count: int = 4, among: int = 200) -> dict:
    """Weigh all RoIs of the images whose background counts least.

    Args:
        output_dir: of a finished run.
        phase: whose pseudo-labels and model; by default the last.
        count: images.
        among: of so many of the phase's pseudo-labeled images, spread over all.

    Raises:
        ConfigError: the run re-weights no RoIs.
    """
    cfg = open_run(output_dir)
    phase = cfg.SSOD.NUM_PHASES if phase is None else phase
    _check(cfg, phase)
    folder = RunFolder(output_dir)
    model = load_phase_model(cfg, phase)
    classes = load_classes(folder)
    images = load_pseudo_labels(
        folder.phase(phase).pseudo_labels,
        NamedDataSets.read(cfg, ["UNLABELED"]).usable().unlabeled,
        thing_classes=classes,
    )
    chosen = images[:: max(1, len(images) // among)]
    mapper = mapper_without_augmentation(cfg)
    weighed = [_weigh(num_classes(cfg), model, image, mapper(image)) for image in chosen]
    weighed = [each for each in weighed if len(each["weights"]) > 0]
    weighed.sort(key=lambda each: float(np.mean(each["weights"])))
    return {"figure": "5", "phase": phase, "classes": classes, "images": weighed[:count]}


def draw(result: dict, path: Path) -> None:
    """Draw each image with its pseudo-labels, and beside it the map of weights, blue where low."""
    images = result["images"]
    figure = Figure(figsize=(7, 3.2 * max(1, len(images))), layout="constrained")
    panels = figure.subplots(max(1, len(images)), 2, squeeze=False)
    for (left, right), image in zip(panels, images, strict=False):
        picture = utils.read_image(image["file_name"], format="RGB")
        found = Detections(
            np.array(image["labels"]["boxes"], dtype=np.float32).reshape(-1, 4),
            np.array(image["labels"]["scores"], dtype=np.float32),
            np.array(image["labels"]["classes"], dtype=np.int64),
        )
        shown = draw_detections(picture, found, result["classes"])
        left.imshow(shown.permute(1, 2, 0).numpy())
        right.imshow(picture.mean(axis=2), cmap="gray")
        heat = weight_map(picture.shape[:2], np.array(image["boxes"]), np.array(image["weights"]))
        drawn = right.imshow(heat, cmap="jet", vmin=0, vmax=1, alpha=0.5)
        figure.colorbar(drawn, ax=right, label="weight")
        for axes in (left, right):
            axes.set_axis_off()
    save(path, figure)


def weight_map(shape: tuple[int, int], boxes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average, at each pixel, the weights of the background RoIs that cover it; 1 where none does.

    Args:
        shape: height and width.
        boxes: [R, 4], XYXY in pixels.
        weights: [R].

    Returns:
        float64 [height, width].
    """
    total, covered = np.zeros(shape), np.zeros(shape)
    for (x0, y0, x1, y1), weight in zip(boxes.round().astype(int), weights, strict=True):
        total[max(y0, 0) : y1, max(x0, 0) : x1] += weight
        covered[max(y0, 0) : y1, max(x0, 0) : x1] += 1
    return np.where(covered > 0, total / np.maximum(covered, 1), 1.0)


def _check(cfg: CfgNode, phase: int) -> None:
    if not 1 <= phase <= cfg.SSOD.NUM_PHASES:
        raise ConfigError(f"--phase is {phase}; the run has phases 1..{cfg.SSOD.NUM_PHASES}")
    if cfg.SSOD.ROI_WEIGHTING.NAME == "none" or not detector_of(cfg).has_roi_heads:
        raise ConfigError(
            f"{cfg.OUTPUT_DIR}: the run re-weights no RoIs (SSOD.ROI_WEIGHTING.NAME "
            f"{cfg.SSOD.ROI_WEIGHTING.NAME!r}, {cfg.MODEL.META_ARCHITECTURE})"
        )


def _weigh(classes: int, model: nn.Module, image: dict, given: dict) -> dict:
    """Weigh the background RoIs of an image; boxes in its own pixels."""
    heads = model.roi_heads
    heads.batch_size_per_image = _ALL
    sampled, embeddings = sample_rois(model, [given])
    rois = collect_rois(sampled, embeddings, classes)
    weights = heads.box_predictor.weighting(rois).weights
    background = ~rois.is_foreground
    scale = image["width"] / given["image"].shape[2]
    return {
        "file_name": image["file_name"],
        "labels": {name: values.tolist() for name, values in _labels(image).items()},
        "boxes": _rounded(rois.boxes[background] * scale, 1),
        "weights": _rounded(weights[background], 4),
    }


def _labels(image: dict) -> dict[str, np.ndarray]:
    found = detections_of(image["annotations"])
    return {"boxes": found.boxes, "scores": found.scores, "classes": found.classes}


def _rounded(values: Tensor, digits: int) -> list:
    return np.round(values.double().cpu().numpy(), digits).tolist()
