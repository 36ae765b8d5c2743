"""Sampled RoIs that remember the targets of their image."""

from __future__ import annotations

from detectron2.structures import Instances


class SampledRoIs(Instances):
    """The RoIs sampled from one image, with the image's ground truth as ``target``.

    A RoI's own ``gt_*`` fields tell of the one box it was matched with. Weights need all boxes of
    the image, and whether it is pseudo-labeled also where no RoI was matched. A private attribute
    is no field: it has its own length, and indexing or ``to`` drop it. Neither happens between
    sampling and the loss.
    """

    _target: Instances

    @property
    def target(self) -> Instances:
        """Ground truth or pseudo-labels of the image."""
        return self._target

    @classmethod
    def attach(cls, sampled: Instances, target: Instances) -> SampledRoIs:
        """Give the same RoIs, remembering ``target``."""
        rois = cls(sampled.image_size, **sampled.get_fields())
        rois._target = target
        return rois
