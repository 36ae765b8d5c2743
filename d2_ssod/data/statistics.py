"""What the boxes of a data set are like: sizes, shapes, numbers; and the anchors that fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.data.transforms import ResizeShortestEdge

from .annotation_boxes import AnnotationBoxes
from .findings import Findings
from .objects import num_objects

_MOST_CLUSTERED = 50_000  # objects, drawn at random of more
_RARE = 10  # objects below which a class can hardly be learned
_IMBALANCE = 100  # times as many objects of the most frequent class
_MANY_CROWDS = 0.05  # of the annotations; COCO has 0.01
_CELL = 4.0  # pixels: a cell of the finest feature map
_FEW = 0.05  # of the objects, up to which nothing is said of them
_TINY = 0.4  # of the smallest anchor, below which an object has no IoU of about 0.16 with any


@dataclass(frozen=True)
class BoxShapes:
    """Sizes of all objects, in pixels of the resized picture that the model sees.

    Attributes:
        width: float64 [n].
        height: float64 [n].
    """

    width: np.ndarray
    height: np.ndarray

    @classmethod
    def of(cls, images: Sequence[dict[str, Any]], short: int, most: int) -> BoxShapes:
        """Measure the objects of images that are resized to a short edge, and a most long one.

        Args:
            images: Detectron2 dicts; those without ``width`` and ``height``, and crowds, are passed
                over.
            short: length of the short edge; 0: pictures are not resized.
            most: most of the long edge.
        """
        boxes = AnnotationBoxes.of(images, crowds=False)
        scales = [resize_scale(r["height"], r["width"], short, most) for r in boxes.records]
        extents = boxes.corners[:, 2:] - boxes.corners[:, :2]
        sizes = extents * np.array(scales, dtype=np.float64).reshape(-1, 1)
        return cls(sizes[:, 0], sizes[:, 1])

    @property
    def side(self) -> np.ndarray:
        """Side of the square of the same area; float64 [n]."""
        return np.sqrt(self.width * self.height)

    @property
    def ratio(self) -> np.ndarray:
        """Compute height / width, as Detectron2 counts aspect ratios; float64 [n]."""
        return self.height / self.width

    def best_iou(self, sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
        """Best IoU of each object with an anchor at its center; float64 [n].

        Args:
            sizes: square roots of the anchors' areas.
            ratios: height / width; each size has an anchor of each ratio.
        """
        size, ratio = (m.ravel() for m in np.meshgrid(np.asarray(sizes, float), ratios))
        width, height = size / np.sqrt(ratio), size * np.sqrt(ratio)
        common = np.minimum(self.width[:, None], width) * np.minimum(self.height[:, None], height)
        union = (self.width * self.height)[:, None] + width * height - common
        return (common / union).max(axis=1)


def resize_scale(height: int, width: int, short: int, most: int) -> float:
    """Give the factor by which Detectron2 resizes a picture."""
    if not short:
        return 1.0
    shape = ResizeShortestEdge.get_output_shape(height, width, short, most)
    return max(shape) / max(height, width)  # of the other edge nothing may be left


def objects_per_class(images: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, int]:
    """Count the objects of each class, crowds apart, in the order of the classes."""
    counts = Counter(
        annotation["category_id"]
        for image in images
        for annotation in image.get("annotations", ())
        if not annotation.get("iscrowd")
    )
    return {name: counts[number] for number, name in enumerate(classes)}


def check_balance(
    images: Sequence[dict[str, Any]], classes: Sequence[str], place: str, findings: Findings
) -> None:
    """Warn of classes with very few objects, or far fewer than others."""
    counts = objects_per_class(images, classes)
    most = max(counts.values(), default=0)
    for name, count in counts.items():
        if most == 0 or count > max(_RARE - 1, most / _IMBALANCE):
            continue
        what = f"of {name!r} there are {count} objects, of the most frequent class {most}"
        findings.warning(
            place,
            "classes with few objects",
            what if count else f"no object is a {name!r}",
            "label more of them, or remove the class" if count else "label some, or remove it",
        )


def check_anchors(
    images: Sequence[dict[str, Any]],
    sizes: Sequence[float],
    ratios: Sequence[float],
    resizing: tuple[int, int],
    place: str,
    findings: Findings,
) -> None:
    """Warn of objects that are much smaller than all anchors, or much longer.

    Args:
        images: labeled ones.
        sizes: of all anchors, the square roots of their areas in pixels of the resized picture.
        ratios: height / width of all anchors.
        resizing: short edge and most of the long one.
        place: begins the lines.
        findings: what is found is added to it.
    """
    shapes = BoxShapes.of(images, *resizing)
    if len(shapes.width) == 0:
        return
    tiny = (shapes.side < _TINY * min(sizes)).mean()
    if tiny > _FEW:
        findings.warning(
            place,
            "objects smaller than the anchors",
            f"{tiny:.0%} of the objects have a side below {_TINY * min(sizes):.0f} pixels once the "
            f"picture is resized, the smallest anchor has {min(sizes):g}",
            "add smaller MODEL.ANCHOR_GENERATOR.SIZES, or raise INPUT.MIN_SIZE_TRAIN and _TEST",
        )
    long = ((shapes.ratio > 3 * max(ratios)) | (shapes.ratio < min(ratios) / 3)).mean()
    if long > _FEW:
        findings.warning(
            place,
            "objects longer than the anchors",
            f"{long:.0%} of the objects are more than three times as long or as high as any "
            f"anchor, whose height / width is {min(ratios):g} to {max(ratios):g}",
            "add such MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
        )


def check_visible(
    images: Sequence[dict[str, Any]], resizing: tuple[int, int], place: str, findings: Findings
) -> None:
    """Warn of objects of which resizing leaves next to nothing; arguments as ``check_anchors``."""
    side = BoxShapes.of(images, *resizing).side
    if len(side) and (side < _CELL).mean() > _FEW:
        findings.warning(
            place,
            "objects that resizing makes vanish",
            f"{(side < _CELL).mean():.0%} of the objects have a side below {_CELL:.0f} pixels once "
            f"the picture is resized (median {np.median(side):.1f})",
            "raise INPUT.MIN_SIZE_TRAIN, MAX_SIZE_TRAIN and those of _TEST, or cut the pictures "
            "into tiles",
        )


def check_crowds(images: Sequence[dict[str, Any]], place: str, findings: Findings) -> None:
    """Warn of many crowds, which are neither learned nor counted: they may be meant as objects.

    Args:
        images: Detectron2 dicts.
        place: begins the line.
        findings: what is found is added to it.
    """
    annotations = sum(len(image.get("annotations", ())) for image in images)
    crowds = annotations - sum(map(num_objects, images))
    if crowds > _MANY_CROWDS * annotations:
        findings.warning(
            place,
            "many crowds",
            f"{crowds} of {annotations} annotations are crowds (iscrowd 1, or difficult in VOC), "
            "which are neither learned nor counted as objects",
            "if they are objects, set iscrowd to 0; CVAT sets it for masks, not for polygons",
        )


def check_number_of_objects(
    images: Sequence[dict[str, Any]], most: int, place: str, findings: Findings
) -> None:
    """Warn of images with more objects than a model may find (``TEST.DETECTIONS_PER_IMAGE``)."""
    if most < 0:  # all
        return
    counts = np.array([num_objects(image) for image in images])
    above = counts[counts > most]
    if len(above):
        findings.warning(
            place,
            "more objects than are looked for",
            f"{len(above)} images have more than {most}, up to {above.max()}",
            "raise TEST.DETECTIONS_PER_IMAGE, which is the most that a model finds in an image: "
            "pseudo-labels and results lack all others",
        )


def fit_anchors(
    shapes: BoxShapes, num_sizes: int, num_ratios: int
) -> tuple[list[float], list[float]]:
    """Find anchor sizes and ratios for the objects, by k-means of their logarithms.

    Without the objects that resizing makes vanish, or lines, if they are few: a click or drag by
    mistake would have a size or ratio of its own.

    Args:
        shapes: of the objects; at least one.
        num_sizes: how many sizes; fewer if objects have fewer.
        num_ratios: how many ratios; fewer if objects have fewer.

    Returns:
        sizes (whole pixels, 1 or more) and ratios (two digits), each sorted.
    """
    shorter = np.minimum(shapes.width, shapes.height)
    visible = (shapes.side >= _CELL) & (shorter >= _CELL / 2)
    used = visible if visible.mean() >= 1 - _FEW else np.full_like(visible, True)
    sizes = {max(1.0, float(round(value))) for value in _centers(shapes.side[used], num_sizes)}
    ratios = {round(float(value), 2) for value in _centers(shapes.ratio[used], num_ratios)}
    return sorted(sizes), sorted(ratios)


def _centers(values: np.ndarray, count: int) -> np.ndarray:
    from sklearn.cluster import KMeans  # slow to import

    if len(values) > _MOST_CLUSTERED:
        values = np.random.default_rng(0).choice(values, _MOST_CLUSTERED, replace=False)
    logs = np.log(values).reshape(-1, 1)
    count = min(count, len(np.unique(logs.round(6))))
    return np.exp(KMeans(count, n_init=10, random_state=0).fit(logs).cluster_centers_.ravel())
