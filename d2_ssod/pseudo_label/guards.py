"""Signs that pseudo-labels do harm, each from a few counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Guard:
    """Limits beyond which counts of pseudo-labels are suspicious.

    Attributes:
        class_share: least share of a class among the pseudo-boxes, in parts of its share among the
            labeled objects.
        rate_factor: how many times more, or less, boxes an image may have than a labeled one.
        consensus_kept: least share of the boxes of the model that has fewest that the models agree
            on.
    """

    class_share: float = 0.2
    rate_factor: float = 3.0
    consensus_kept: float = 0.25

    def vanished_classes(
        self,
        boxes: np.ndarray,
        objects: np.ndarray,
        thing_classes: Sequence[str],
        fraction: float = 0.0,
    ) -> str | None:
        """Say which classes are much rarer among the pseudo-boxes than among the labels.

        Their objects on the selected images are then trained as background.

        Args:
            boxes: int [C], pseudo-boxes of each class on the selected images.
            objects: float [C], labeled objects of each class, per image or in all.
            thing_classes: names of the classes.
            fraction: of the images with boxes that is selected.
        """
        if boxes.sum() == 0 or objects.sum() == 0:
            return None
        found, expected = boxes / boxes.sum(), objects / objects.sum()
        rare = [
            f"{name} {found[number]:.1%} of the pseudo-boxes, {expected[number]:.1%} of the labels"
            for number, name in enumerate(thing_classes)
            if found[number] < self.class_share * expected[number]
        ]
        if not rare:
            return None
        remedy = (
            "set SSOD.SELECTION to class_balanced, or take all images (SSOD.EASY_FRACTIONS)"
            if fraction < 1
            else "the models find too few of them; train phase 0 longer, or label more of them"
        )
        return (
            f"classes vanish ({'; '.join(rare)}), so that their objects are trained as background: "
            f"{remedy}"
        )

    def box_rate(self, boxes: int, images: int, objects_per_image: float) -> str | None:
        """Say that an image has far more, or fewer, boxes than a labeled one.

        Args:
            boxes: pseudo-boxes on the selected images.
            images: selected images.
            objects_per_image: labeled objects per labeled image with objects.
        """
        if images == 0 or objects_per_image == 0:
            return None
        rate = boxes / images / objects_per_image
        if 1 / self.rate_factor <= rate <= self.rate_factor:
            return None
        remedy = ", or relax SSOD.CONSENSUS" if rate < 1 else ""
        return (
            f"a selected image has {boxes / images:.2f} pseudo-boxes, a labeled one with "
            f"objects {objects_per_image:.2f}: the unlabeled images may be of another kind, or the "
            f"model too weak; look at the labels, train phase 0 longer{remedy}"
        )

    def little_consensus(self, agreed: int, of_sources: Sequence[int]) -> str | None:
        """Say that the models agree on little.

        Args:
            agreed: boxes that they agree on, in all images.
            of_sources: boxes of each model.
        """
        fewest = min(of_sources)
        if len(of_sources) < 2 or agreed >= self.consensus_kept * fewest:
            return None
        return (
            f"the {len(of_sources)} models agree on {agreed} boxes, {agreed / fewest:.0%} of the "
            f"{fewest} of the one that has fewest: one of them may be bad (see summary.json); set "
            "SSOD.CONSENSUS.MIN_VOTES to 1, lower SSOD.CONSENSUS.IOU_THRESH or train longer"
        )
