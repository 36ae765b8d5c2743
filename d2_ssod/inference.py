"""What a model sees on images: its raw detections, collected from all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from detectron2.utils import comm
from torch import nn

from d2_ssod.heartbeat import Heartbeat, Ranks
from d2_ssod.progress import progress_bar
from d2_ssod.structures import ImageId, Predictions, from_instances


def predict(
    model: nn.Module,
    data_loader: Iterable[list[dict]],
    *,
    description: str,
    image_ids: Sequence[ImageId] | None = None,
    on_batch: Callable[[Predictions], None] | None = None,
) -> Predictions | None:
    """Run a model over the images and collect its raw detections.

    Every process handles the images that its own loader gives; all processes must call this
    function.

    Args:
        model: called like ``GeneralizedRCNN`` in evaluation mode: takes a list of dicts, returns a
            list of ``{"instances": Instances}`` in the coordinates of the original images. Its
            training mode is as before afterwards, also after an error.
        data_loader: gives lists of dicts with ``image_id``.
        description: shown before the progress bar.
        image_ids: the images of all processes' loaders together; the result has this order. By
            default that of the processes' parts one after another.
        on_batch: called in every process with each batch's detections as soon as they are there,
            to keep them.

    Returns:
        On the main process the detections of every image, boxes without area left out; None on the
        others.

    Raises:
        ValueError: an image of ``image_ids`` was not predicted, or one was predicted twice.
        TimeoutError: another process makes no progress.
    """
    own: Predictions = {}
    heartbeat = Heartbeat(description, Ranks.of_run())
    with heartbeat, evaluation_mode(model), torch.no_grad():
        for inputs in progress_bar(data_loader, description=description):
            for record, output in zip(inputs, model(inputs), strict=True):
                image_id, instances = record["image_id"], output["instances"]
                if image_id in own:
                    raise ValueError(f"image_id {image_id!r} occurs twice in the data")
                # Multi-transform inference leaves boxes without area, where the others do not.
                own[image_id] = from_instances(instances[instances.pred_boxes.nonempty()])
            if on_batch is not None:
                on_batch({record["image_id"]: own[record["image_id"]] for record in inputs})
            heartbeat.beat()
        heartbeat.wait_for_others()
    parts = comm.gather(own, dst=0)
    return _merge(parts, image_ids) if comm.is_main_process() else None


def _merge(parts: Sequence[Predictions], image_ids: Sequence[ImageId] | None) -> Predictions:
    merged: Predictions = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise ValueError(f"image_id {next(iter(twice))!r} was predicted by two processes")
        merged.update(part)
    if image_ids is None:
        return merged
    if set(image_ids) != merged.keys():
        odd = next(iter(set(image_ids) ^ merged.keys()))
        raise ValueError(
            f"the loader gave {len(merged)} images and image_ids lists {len(set(image_ids))}; "
            f"{odd!r} is in only one of them"
        )
    return {image_id: merged[image_id] for image_id in image_ids}


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; afterwards every submodule is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
