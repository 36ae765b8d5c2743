"""Which labels of the labeled images a model contradicts with confidence: perhaps errors."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from d2_ssod.artifacts import RunFolder
from d2_ssod.data.objects import objects_and_crowds
from d2_ssod.file_names import printable
from d2_ssod.json_files import atomic_open
from d2_ssod.ops import pairwise_iof, pairwise_iou
from d2_ssod.structures import Detections

from .sealed import write_sealed

_CONFIDENT = 0.7  # least score of a box that contradicts the labels
_SAME = 0.5  # least IoU of boxes of the same object
_NEAR = 0.1  # least IoU of boxes that may be meant for the same object


@dataclass(frozen=True)
class Suspect:
    """A place where a model contradicts a label.

    Attributes:
        image: dict of the image.
        kind: "no label", "other class" or "nothing seen".
        box: float [4], XYXY.
        label: class number of the label; None where there is none.
        seen: class number of what the model sees; None where it sees nothing.
        confidence: how sure the model is that the label is wrong, 0 to 1.
    """

    image: dict
    kind: str
    box: tuple[float, float, float, float]
    label: int | None
    seen: int | None
    confidence: float


def suspect_labels(images: Iterable[tuple[dict, Detections]]) -> list[Suspect]:
    """List the contradictions, the most confident ones first.

    - "no label": a box of score 0.7 or more that overlaps no label (IoU below 0.5), nor is of a
      crowd: lies in one of its class by half, or has half of such a one in it, if that is no small
      part of it (IoU of 0.1 or more), or overlaps one of any class by an IoU of 0.5 or more;
    - "other class": one that overlaps none of its own class, but one of another;
    - "nothing seen": a label that no box of any class overlaps; confidence 1 - the best score of a
      box that overlaps it by an IoU of 0.1 or more.

    Args:
        images: dict of each labeled image, with its annotations, and what the model finds there.
    """
    found = [suspect for image, seen in images for suspect in _of_image(image, seen)]
    return sorted(found, key=lambda suspect: -suspect.confidence)


def _of_image(image: dict, seen: Detections) -> list[Suspect]:
    annotations = image.get("annotations", ())
    labels, crowds = objects_and_crowds(annotations)
    overlap = _iou(seen, labels)
    return [
        *_unlabeled(image, seen, labels, overlap, _are_of_crowds(seen, crowds)),
        *_unseen(image, seen, labels, overlap),
    ]


def _unlabeled(
    image: dict, seen: Detections, labels: Detections, overlap: np.ndarray, of_crowds: np.ndarray
) -> Iterable[Suspect]:
    same_class = seen.classes[:, None] == labels.classes[None]
    explained = (overlap * same_class).max(axis=1, initial=0) >= _SAME
    for number in np.flatnonzero((seen.scores >= _CONFIDENT) & ~explained & ~of_crowds):
        other = overlap[number].argmax() if len(labels) else None
        is_other = other is not None and overlap[number, other] >= _SAME
        yield Suspect(
            image,
            "other class" if is_other else "no label",
            tuple(seen.boxes[number].tolist()),
            int(labels.classes[other]) if is_other else None,
            int(seen.classes[number]),
            float(seen.scores[number]),
        )


def _unseen(
    image: dict, seen: Detections, labels: Detections, overlap: np.ndarray
) -> Iterable[Suspect]:
    near = np.where(overlap >= _NEAR, seen.scores[:, None], 0.0).max(axis=0, initial=0)
    for number in np.flatnonzero(overlap.max(axis=0, initial=0) < _SAME):
        confidence = float(1 - near[number])
        if confidence >= _CONFIDENT:
            box = tuple(labels.boxes[number].tolist())
            label = int(labels.classes[number])
            yield Suspect(image, "nothing seen", box, label, None, confidence)


def _are_of_crowds(seen: Detections, crowds: Detections) -> np.ndarray:
    """Tell which boxes are of crowds: a region of many objects (COCO), or a difficult one (VOC).

    Returns:
        bool [n]; see :func:`suspect_labels`.
    """
    same_class = seen.classes[:, None] == crowds.classes[None]
    one, other = torch.from_numpy(seen.boxes), torch.from_numpy(crowds.boxes)
    lies_in = pairwise_iof(one, other).numpy() >= _SAME
    overlap = _iou(seen, crowds)
    has_in_it = (pairwise_iof(other, one).numpy().T >= _SAME) & (overlap >= _NEAR)
    return (((lies_in | has_in_it) & same_class) | (overlap >= _SAME)).any(axis=1)


def _iou(one: Detections, other: Detections) -> np.ndarray:
    return pairwise_iou(torch.from_numpy(one.boxes), torch.from_numpy(other.boxes)).numpy()


def write_suspects(folder: RunFolder, suspects: Sequence[Suspect], classes: Sequence[str]) -> None:
    """Write ``review/label_errors.csv``."""
    folder.review.mkdir(parents=True, exist_ok=True)
    path = folder.review / "label_errors.csv"
    write_sealed(path, lambda path: _write_table(path, suspects, classes))


def _write_table(path: Path, suspects: Sequence[Suspect], classes: Sequence[str]) -> None:
    def name(number: int | None) -> str:
        return "" if number is None else classes[number]

    with atomic_open(path, encoding="utf-8-sig") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "problem", "label", "seen", "confidence", "x", "y", "w", "h"])
        for s in suspects:
            x0, y0, x1, y1 = s.box
            box = (f"{value:.1f}" for value in (x0, y0, x1 - x0, y1 - y0))
            rows.writerow(
                [
                    printable(s.image["file_name"]),
                    s.kind,
                    name(s.label),
                    name(s.seen),
                    f"{s.confidence:.3f}",
                    *box,
                ]
            )
