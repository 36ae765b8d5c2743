"""The mean teacher: the moving average of the weights labels the pseudo-labeled images of a batch.

Tarvainen and Valpola, NeurIPS 2017; for detection Unbiased Teacher (Liu et al., ICLR 2021) and Soft
Teacher (Xu et al., ICCV 2021). Which of its boxes count is chosen as in LabelMatch (Chen et al.,
CVPR 2022), by how many objects labeled images have of each class; here by thresholds that follow
the counts from batch to batch.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from .averaging import AverageWeights

_GAIN = 0.02  # by how much thresholds follow the counts of one batch
_PRIOR = 0.25  # objects per image that are added to the goal, so that rare classes move slowly


class CountThresholds:
    """Score thresholds of each class that let as many boxes pass as there should be.

    After each batch of n images, in which f_c boxes of class c had more than t_c,

        t_c <- t_c + gain (f_c / n - g_c) / (g_c + prior)

    within ``low`` .. 0.95, where g_c is the goal, in boxes per image.
    """

    def __init__(self, goal: Tensor, start: float, low: float) -> None:
        """Begin with equal thresholds.

        Args:
            goal: float64 Tensor[C], boxes per image.
            start: threshold of every class at first.
            low: the smallest threshold.
        """
        self.values = torch.full_like(goal, start)
        self._goal, self._low = goal, low

    def update(self, boxes: Tensor, images: Tensor) -> None:
        """Follow the counts of a batch: float64 Tensor[C] boxes above t_c in so many images."""
        if images > 0:
            excess = (boxes / images - self._goal) / (self._goal + _PRIOR)
            self.values = (self.values + _GAIN * excess).clamp(self._low, 0.95)


class Teacher(HookBase):
    """Gives the pseudo-labeled images of each batch new labels, by a model of the averaged weights.

    It sees an image as the student does, but without the strong augmentation. Its boxes of each
    class are the best-scored ones, as many as labeled images have objects on average: the first
    ``certain`` of them certain, up to ``all_boxes`` uncertain, with their score as certainty.
    """

    def __init__(
        self,
        model: nn.Module,
        averaging: AverageWeights,
        objects_per_image: np.ndarray,
        *,
        start: int = 0,
        certain: float = 0.5,
        all_boxes: float = 1.0,
        soft: bool = True,
        box_loss: bool = False,
        min_score: float = 0.05,
    ) -> None:
        """Begin with the model's own weights.

        Args:
            model: without a distributed wrapper.
            averaging: the hook that averages its weights.
            objects_per_image: float64 [C], objects of each class in an image like those that it
                labels, so per labeled image with objects.
            start: the iteration from which on labels are the teacher's.
            certain: share of these objects that is to be found by certain labels.
            all_boxes: share that is to be found by all.
            soft: the certainty of an uncertain label is its score, not 1.
            box_loss: learn the boxes of certain labels, too.
            min_score: of detections, the smallest that a threshold can be.
        """
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self._averaging, self._start = averaging, start
        self._shared: dict[str, Tensor] | None = None
        self._soft, self._box_loss = soft, box_loss
        goal = torch.from_numpy(np.asarray(objects_per_image, dtype=np.float64))
        self._certain = CountThresholds(goal * certain, 0.7, min_score)
        self._all = CountThresholds(goal * all_boxes, 0.4, min_score)

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        averaging: AverageWeights,
        objects_per_image: np.ndarray,
    ) -> Teacher:
        """Read ``SSOD.TEACHER`` and ``SSOD.TIERS``."""
        teacher, tiers = cfg.SSOD.TEACHER, cfg.SSOD.TIERS
        return cls(
            model,
            averaging,
            objects_per_image,
            start=teacher.START,
            certain=tiers.CERTAIN,
            all_boxes=tiers.ALL,
            soft=tiers.UNCERTAIN == "soft",
            box_loss=teacher.BOX_LOSS,
            min_score=tiers.MIN_SCORE,
        )

    def relabel(self, batches: Iterable[list[dict]], first: int) -> Iterator[list[dict]]:
        """Yield the batches, with the teacher's labels on pseudo-labeled images.

        As batches come from here, ``data_time`` has the teacher's time, ``teacher/seconds``, in it;
        with several ranks also the time in which it waits for their counts.

        Args:
            batches: of the mapper; pseudo-labeled images with ``is_pseudo``, and of these with
                ``is_corrected`` those whose labels are a person's and stay.
            first: the iteration of the first batch.
        """
        for iteration, batch in enumerate(batches, first):
            if iteration >= self._start:
                started = time.perf_counter()
                batch = self._relabel(batch)
                get_event_storage().put_scalar("teacher/seconds", time.perf_counter() - started)
            for image in batch:
                image.pop("weak_image", None)  # or it would be copied to the student's device
            yield batch

    def state_dict(self) -> dict[str, Tensor]:
        """Give what a checkpoint keeps; the hook that averages the weights keeps those."""
        return {"certain": self._certain.values, "all": self._all.values}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self._certain.values, self._all.values = state_dict["certain"], state_dict["all"]

    @torch.no_grad()
    def _relabel(self, batch: list[dict]) -> list[dict]:
        pseudo = [number for number, image in enumerate(batch) if _is_to_be_labeled(image)]
        found = []
        if pseudo:
            self._share_average()
            found = self._model([_weak_view(batch[number]) for number in pseudo])
        detections = [each["instances"].to("cpu") for each in found]
        labeled = list(batch)
        for number, of_image in zip(pseudo, detections, strict=True):
            labeled[number] = {**batch[number], "instances": self._labels(of_image)}
        self._follow(detections)
        return labeled

    def _share_average(self) -> None:
        """Have the teacher's weights be the average itself, which changes in place."""
        if self._shared is not self._averaging.average:
            self._shared = self._averaging.average
            self._model.load_state_dict(self._shared, assign=True)

    def _labels(self, found: Instances) -> Instances:
        """Turn detections on an image into the targets of its student."""
        classes, scores = found.pred_classes, found.scores.double()
        kept = scores > torch.minimum(self._all.values, self._certain.values)[classes]
        classes, scores = classes[kept], scores[kept]
        certain = scores > self._certain.values[classes]
        labels = Instances(found.image_size)
        labels.gt_boxes = Boxes(found.pred_boxes.tensor[kept])
        labels.gt_classes = classes
        labels.gt_scores = scores.float()
        labels.gt_is_pseudo = torch.ones_like(certain)
        labels.gt_certainty = torch.where(certain | (not self._soft), 1.0, scores.float())
        labels.gt_box_gate = (certain & self._box_loss).float()[:, None].expand(-1, 2)
        return labels

    def _follow(self, detections: list[Instances]) -> None:
        """Adapt the thresholds to the batch, of all ranks alike."""
        images = torch.tensor([float(len(detections))], dtype=torch.float64)
        counts = [_count_above(detections, t.values) for t in (self._certain, self._all)]
        totals = sum(comm.all_gather(torch.cat([images, *counts])))
        images, of_certain, of_all = totals.split([1, *(len(c) for c in counts)])
        self._certain.update(of_certain, images)
        self._all.update(of_all, images)
        if images > 0:
            storage = get_event_storage()
            storage.put_scalar("teacher/certain_boxes", float(of_certain.sum() / images))
            storage.put_scalar("teacher/all_boxes", float(of_all.sum() / images))


def _is_to_be_labeled(image: dict) -> bool:
    return image.get("is_pseudo", False) and not image.get("is_corrected", False)


def _weak_view(image: dict) -> dict:
    """Give the model's input for an image as it was before the strong augmentation."""
    weak = image.get("weak_image", image["image"])
    return {"image": weak, "height": weak.shape[1], "width": weak.shape[2]}


def _count_above(detections: list[Instances], thresholds: Tensor) -> Tensor:
    """Count the boxes of each class above its threshold, float64 Tensor[C]."""
    counts = torch.zeros_like(thresholds)
    for found in detections:
        above = found.pred_classes[found.scores.double() > thresholds[found.pred_classes]]
        counts += torch.bincount(above, minlength=len(thresholds))
    return counts
