"""Several detectors that look like one."""

from collections.abc import Sequence

import torch
from detectron2.structures import Instances
from torch import nn

from d2_ssod.pseudo_label import from_instances, to_instances

from .fusion import fuse

__all__ = ["EnsembleRCNN", "fuse_outputs"]

Outputs = list[dict[str, Instances]]


class EnsembleRCNN(nn.Module):
    """Runs several detectors and fuses their boxes; for inference only.

    Called like ``GeneralizedRCNN`` in evaluation mode, so Detectron2's ``inference_on_dataset`` and
    predictors work with it unchanged.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        *,
        weights: Sequence[float] | None = None,
        iou_thresh: float = 0.6,
        skip_box_thresh: float = 1e-4,
        max_detections: int | None = 100,
    ) -> None:
        """Takes the models and the constants of ``fuse``.

        Args:
            models: the detectors, phase 0 first.
            weights: of each model; 1 by default.
            iou_thresh: IoU above which boxes are fused.
            skip_box_thresh: boxes with a lower score are left out.
            max_detections: boxes per image; None: all.

        Raises:
            ValueError: no models, or another number of weights than models.
        """
        super().__init__()
        if not models:
            raise ValueError("models must hold at least one detector, got none")
        weights = [1.0] * len(models) if weights is None else list(weights)
        if len(weights) != len(models):
            raise ValueError(
                f"weights must be one number for each of the {len(models)} models, got {weights}"
            )
        self.models = nn.ModuleList(models)
        self.weights = weights
        self.iou_thresh = iou_thresh
        self.skip_box_thresh = skip_box_thresh
        self.max_detections = max_detections

    def forward(self, batched_inputs: list[dict]) -> Outputs:
        """The fused detections.

        Args:
            batched_inputs: as ``GeneralizedRCNN`` takes them.

        Returns:
            For each image ``{"instances": Instances}`` with ``pred_boxes``, ``scores`` and
            ``pred_classes`` in the coordinates of the original image, best score first, on the CPU.

        Raises:
            RuntimeError: in training mode.
        """
        return fuse_outputs(
            self.forward_each(batched_inputs),
            weights=self.weights,
            iou_thresh=self.iou_thresh,
            skip_box_thresh=self.skip_box_thresh,
            max_detections=self.max_detections,
        )

    def forward_each(self, batched_inputs: list[dict]) -> list[Outputs]:
        """The outputs of each model alone, so that one pass over the images serves them all.

        Raises:
            RuntimeError: in training mode.
        """
        if self.training:
            raise RuntimeError("an EnsembleRCNN cannot be trained; call .eval() first")
        with torch.no_grad():
            return [model(batched_inputs) for model in self.models]


def fuse_outputs(
    outputs: Sequence[Outputs],
    *,
    weights: Sequence[float],
    iou_thresh: float = 0.6,
    skip_box_thresh: float = 1e-4,
    max_detections: int | None = 100,
) -> Outputs:
    """Fuses the outputs of several models for the same images (``fuse`` for each image).

    Args:
        outputs: for each model what it returned: a list over images of ``{"instances": ...}``.
        weights: of each model.
        iou_thresh: IoU above which boxes are fused.
        skip_box_thresh: boxes with a lower score are left out.
        max_detections: boxes per image; None: all.
    """
    fused: Outputs = []
    for of_image in zip(*outputs, strict=True):
        image_size = of_image[0]["instances"].image_size
        detections = fuse(
            [from_instances(output["instances"]) for output in of_image],
            image_size,
            weights=weights,
            iou_thresh=iou_thresh,
            skip_box_thresh=skip_box_thresh,
            max_detections=max_detections,
        )
        fused.append({"instances": to_instances(detections, image_size)})
    return fused
