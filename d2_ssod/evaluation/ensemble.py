"""Several detectors that look like one."""

from collections.abc import Sequence

import torch
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.structures import Instances, RotatedBoxes
from torch import nn

from d2_ssod.errors import ConfigError
from d2_ssod.modeling import unwrapped
from d2_ssod.structures import from_instances, to_instances

from .fusion import Fusion

Outputs = list[dict[str, Instances]]


class EnsembleRCNN(nn.Module):
    """Runs several detectors and fuses their boxes; for inference only.

    Called like ``GeneralizedRCNN`` in evaluation mode, so Detectron2's ``inference_on_dataset`` and
    predictors work with it unchanged.
    """

    def __init__(self, models: Sequence[nn.Module], *, fusion: Fusion = Fusion()) -> None:
        """Take the models and what fusing means.

        Args:
            models: the detectors, phase 0 first.
            fusion: weights of the models and constants of the fusion.

        Raises:
            ValueError: no models, or another number of weights than models.
            ConfigError: models that take images of different formats, or find different numbers of
                classes (also a ValueError).
        """
        super().__init__()
        models = list(models)
        if not models:
            raise ValueError("models must hold at least one detector, got none")
        fusion.weights_of(len(models))
        _check_formats(models)
        _check_classes(models)
        self.models = nn.ModuleList(models)
        self.fusion = fusion

    def forward(self, batched_inputs: list[dict]) -> Outputs:
        """Return the fused detections.

        Args:
            batched_inputs: as ``GeneralizedRCNN`` takes them.

        Returns:
            For each image ``{"instances": Instances}`` with ``pred_boxes``, ``scores`` and
            ``pred_classes`` in the coordinates of the original image, best score first, on the CPU.

        Raises:
            RuntimeError: in training mode.
        """
        return fuse_outputs(self.forward_each(batched_inputs), self.fusion)

    def forward_each(self, batched_inputs: list[dict]) -> list[Outputs]:
        """Return the outputs of each model alone, so that one pass over the images serves them all.

        Raises:
            RuntimeError: in training mode.
        """
        if self.training:
            raise RuntimeError("an EnsembleRCNN cannot be trained; call .eval() first")
        with torch.no_grad():
            return [model(batched_inputs) for model in self.models]


def _check_formats(models: Sequence[nn.Module]) -> None:
    """Refuse models that take different images, of which one data loader gives only one kind."""
    formats = [getattr(_detector_in(model), "input_format", None) for model in models]
    if len({found for found in formats if found is not None}) > 1:
        raise ConfigError(
            f"models must all have the same input_format, got {formats}; take models that were "
            "trained with one INPUT.FORMAT"
        )


def _check_classes(models: Sequence[nn.Module]) -> None:
    """Refuse models of which the numbers of classes mean others."""
    detectors = list(map(_detector_in, models))
    numbers = [getattr(getattr(d, "roi_heads", d), "num_classes", None) for d in detectors]
    if len({found for found in numbers if found is not None}) > 1:
        raise ConfigError(f"models must all find the same classes, got models of {numbers} classes")


def _detector_in(model: nn.Module) -> nn.Module:
    """Find the detector below wrappers; the first one of several, which are alike."""
    model = unwrapped(model)
    if isinstance(model, EnsembleRCNN):
        return _detector_in(model.models[0])
    return _detector_in(model.model) if isinstance(model, GeneralizedRCNNWithTTA) else model


def _size_of(outputs: Sequence[dict]) -> tuple[int, int]:
    """Give (height, width) of an image, in which all models must have answered.

    Raises:
        ValueError: they have not, or one gives no boxes.
    """
    if not all("instances" in output for output in outputs):
        raise ValueError('each model must give {"instances": ...} for each image, as R-CNNs do')
    if any(isinstance(output["instances"].pred_boxes, RotatedBoxes) for output in outputs):
        raise ValueError("the pred_boxes of each model must be Boxes: RotatedBoxes are not fused")
    sizes = {tuple(output["instances"].image_size) for output in outputs}
    if len(sizes) > 1:
        raise ValueError(
            f"models answered in images of different sizes, {sorted(sizes)}: give them the same "
            "height and width"
        )
    return sizes.pop()


def fuse_outputs(outputs: Sequence[Outputs], fusion: Fusion) -> Outputs:
    """Fuse the outputs of several models for the same images (``Fusion.fuse`` for each image).

    Args:
        outputs: for each model what it returned: a list over images of ``{"instances": ...}``.
        fusion: weights of the models and constants of the fusion.
    """
    fused: Outputs = []
    for of_image in zip(*outputs, strict=True):
        image_size = _size_of(of_image)
        detections = fusion.fuse(
            [from_instances(output["instances"]) for output in of_image], image_size
        )
        fused.append({"instances": to_instances(detections, image_size)})
    return fused
