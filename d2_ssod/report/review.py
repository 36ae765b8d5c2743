"""Which unlabeled images are worth a person's look, and files of them for labeling tools."""

from __future__ import annotations

import csv
import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode

from d2_ssod.artifacts import RunFolder, correction_files, is_of_models, save_pseudo_labels
from d2_ssod.errors import ConfigError
from d2_ssod.file_names import printable, relative_names
from d2_ssod.json_files import atomic_open, read_json
from d2_ssod.pseudo_label import Tiers
from d2_ssod.structures import Detections, ImageId, Predictions, TieredDetections

from .sealed import is_unsealed, write_sealed

logger = logging.getLogger(__name__)

_PROPOSED = 0.3  # least probability of a box that is put before a person


@dataclass(frozen=True)
class Review:
    """An image, and what a correction of it would be worth.

    Attributes:
        image: its dict.
        uncertain: sum of q (1 - q) over the boxes of all models, fused, of which each is an object
            with probability q: the variance of their number.
        disagreement: sum of q (1 - n / M) over those that n of M models see.
        found: these boxes, with q as score, best first.
    """

    image: dict
    uncertain: float
    disagreement: float
    found: TieredDetections

    @property
    def worth(self) -> float:
        """What images are sorted by."""
        return self.uncertain + self.disagreement

    @property
    def proposed(self) -> Detections:
        """The boxes that are more likely objects than not, nearly."""
        return self.found.select(self.found.scores >= _PROPOSED)


def rank_images(
    images: Mapping[ImageId, dict],
    sources: Sequence[Predictions],
    target: np.ndarray,
    tiers: Tiers,
) -> list[Review]:
    """Sort unlabeled images by how much a person's correction is worth, best first.

    Args:
        images: dict of each.
        sources: raw detections of each model on them.
        target: float64 [C], objects of each class per labeled image, which q is calibrated by.
        tiers: how boxes are fused.
    """
    every_box = Tiers(tiers.iou_thresh, tiers.min_score, tiers.certain, all_boxes=1e9)
    fused = every_box.of_predictions(sources, target)
    reviews = []
    for image_id, found in fused.items():
        q = found.scores.astype(np.float64)
        disagreement = q @ (1 - found.votes / len(sources))
        reviews.append(Review(images[image_id], float(q @ (1 - q)), float(disagreement), found))
    return sorted(reviews, key=lambda review: -review.worth)


def write_queue(
    folder: RunFolder,
    queue: Sequence[Review],
    unlabeled: Sequence[dict],
    classes: Sequence[str],
    category_ids: Sequence[int],
    images_to_label: int,
    corrected: str = "",
) -> None:
    """Write ``review/queue.csv``, all images, and ``review/queue.json``, the first ones as COCO.

    The latter stays as it is where a person has corrected it in place.

    Args:
        folder: of the run.
        queue: the images in their order.
        unlabeled: all that there are, corrected ones, too: names are relative to their folder.
        classes: class names.
        category_ids: the data set's id of each class.
        images_to_label: how many are put into the COCO file.
        corrected: the file, or folder, of a person's labels that the run learns from, if any.
    """
    folder.review.mkdir(parents=True, exist_ok=True)
    write_sealed(folder.review / "queue.csv", lambda path: _write_table(path, queue))
    path = folder.review / "queue.json"
    is_learned = os.path.realpath(path) in map(os.path.realpath, correction_files(corrected))
    if is_learned or (is_unsealed(path) and not _is_of_models(path)):
        logger.warning("%s stays as it is, as it seems corrected; move it to have a new one", path)
        return
    # As tools know images, which are given a folder of them.
    names = relative_names(unlabeled)
    images = [{**image, "file_name": name} for image, name in zip(unlabeled, names, strict=True)]
    found = {review.image["image_id"]: review.proposed for review in queue[:images_to_label]}
    write_sealed(path, lambda path: save_pseudo_labels(path, found, images, classes, category_ids))


def _write_table(path: Path, queue: Sequence[Review]) -> None:
    with atomic_open(path, encoding="utf-8-sig") as file:
        rows = csv.writer(file)
        rows.writerow(["rank", "file_name", "worth", "uncertain", "disagreement", "boxes"])
        for number, review in enumerate(queue, start=1):
            numbers = (review.worth, review.uncertain, review.disagreement)
            name = printable(review.image["file_name"])
            rows.writerow([number, name, *(f"{x:.3f}" for x in numbers), len(review.proposed)])


def _is_of_models(path: Path) -> bool:
    """Tell whether all boxes of a file that has no seal are models'."""
    try:
        return is_of_models(read_json(path))
    except ConfigError:  # no JSON, so a file that was damaged
        return True


def go_on_with(cfg: CfgNode, file: str) -> str:
    """Write, for a shell, what makes a run go on with a phase more, on labels that were corrected.

    Settings with one value for each phase get one for the new phase, too: that of the last. Where
    a phase is still to be labeled, none is added.

    Args:
        cfg: the run's config.
        file: the corrected labels.

    Returns:
        flag, keys and values for ``train_net.py``, besides the run's own.
    """
    phases = cfg.SSOD.NUM_PHASES  # of the semi-supervised ones
    overrides: list[tuple[str, object]] = [("PSEUDO_LABEL.CORRECTED", file)]
    if phases > 0 and not RunFolder(cfg.OUTPUT_DIR).phase(phases).pseudo_labels.exists():
        return _as_flags(overrides)
    phases += 1
    overrides.append(("NUM_PHASES", phases))
    of_phases = [(f"SCHEDULE.{key}", own, phases + 1) for key, own in cfg.SSOD.SCHEDULE.items()]
    of_phases += [
        ("EASY_FRACTIONS", cfg.SSOD.EASY_FRACTIONS, phases),
        ("ENSEMBLE.WEIGHTS", cfg.SSOD.ENSEMBLE.WEIGHTS, phases + 1),
    ]
    for key, values, count in of_phases:
        if values:
            overrides.append((key, [*values, values[-1]][:count]))
    return _as_flags(overrides)


def _as_flags(overrides: Sequence[tuple[str, object]]) -> str:
    return shlex.join(
        ["--resume", *(part for key, value in overrides for part in (f"SSOD.{key}", str(value)))]
    )
