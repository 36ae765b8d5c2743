"""Where the pseudo-labels of a phase come from: thresholds, counts, classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2_ssod.json_files import read_record

_OF_CORRECTED = ("images", "boxes", "images_empty")  # the last one is not of all versions


@dataclass(frozen=True)
class ClassRow:
    """A class in the labels of a phase.

    Attributes:
        name: of the class.
        target: objects per labeled image.
        thresholds: (threshold, achieved boxes per unlabeled image) of each source model.
        counts: boxes after each step; None where the step did not note it.
        share: of the kept boxes, and of the labeled objects.
        quality: precision and recall of the kept boxes, None where the truth is not known.
    """

    name: str
    target: float
    thresholds: list[tuple[float, float]]
    counts: list[int | None]
    share: tuple[float, float]
    quality: dict[str, float | None]


@dataclass(frozen=True)
class LabelTable:
    """The labels of a phase, class by class.

    Attributes:
        phase: of the labels.
        models: names of the source models.
        steps: titles of the counts.
        rows: of the classes.
        selection: number of all images, and of those ``_kept``, ``_left_out`` and ``_empty``.
        quality: precision and recall after each step, where the truth is known.
        corrected: images and boxes that a person has labeled, and images found empty.
        learned: images and boxes that the phase was trained on, or would be now.
        were_changed: these are others than were made: a person has changed labels in place.
    """

    phase: int
    models: list[str]
    steps: list[str]
    rows: list[ClassRow]
    selection: dict[str, int]
    quality: dict[str, dict[str, float | None]]
    corrected: dict[str, int] | None
    learned: tuple[int, int]
    were_changed: bool

    def describe(self) -> str:
        """Say how many images are trained on, and whose labels they have."""
        images, of_models = self.selection, self.selection["_kept"]
        text = f"{self.learned[0]} of {images['']} unlabeled images are trained on, with "
        text += f"{self.learned[1]} boxes"
        if self.corrected is None:
            text += f"; {images['_left_out']} are left for later, {images['_empty']} have no "
            text += "pseudo-label."
        else:
            text += (
                f": {self.corrected['images']} images have a person's labels "
                f"({_boxes_of(self.corrected)}). The models' own, whose place these take and which "
                f"the figures below are of, are on {of_models} images; {images['_left_out']} were "
                f"left for later, {images['_empty']} had none."
            )
        if self.were_changed:
            text += " The labels were changed since they were made: the figures below are of the "
            text += f"{of_models} images as they were."
        return text


def read_labels(
    path: Path,
    phase: int,
    learned: tuple[int, int] | None = None,
    *,
    were_changed: bool | None = None,
) -> LabelTable:
    """Read the manifest of a phase.

    Args:
        path: of the manifest.
        phase: of the labels.
        learned: images and boxes of these as they are learned; None: as they were made.
        were_changed: since they were written; None: not known, but by their numbers.

    Raises:
        ConfigError: it is damaged.
    """
    manifest = read_record(path, {"sources": dict, "selection": dict, "boxes": dict})
    sources, selection = manifest["sources"], manifest["selection"]
    counts = _counts(list(sources), manifest["boxes"])
    quality = {
        step: {name: _number(found.get(name)) for name in ("precision", "recall")}
        for step, found in manifest.get("quality", {}).items()
    }
    corrected = manifest.get("corrected")
    made = int(selection["images_kept"]), int(manifest["boxes"]["kept"])
    if were_changed is None:  # as of an earlier version
        were_changed = learned not in (None, made) and not corrected
    return LabelTable(
        phase,
        list(sources),
        list(counts),
        _class_rows(manifest, counts),
        {name: int(selection[f"images{name}"]) for name in ("", "_kept", "_left_out", "_empty")},
        quality,
        corrected and {name: int(corrected.get(name, 0)) for name in _OF_CORRECTED},
        learned or made,
        were_changed,
    )


def _boxes_of(corrected: dict[str, int]) -> str:
    text = f"{corrected['boxes']} boxes"
    if corrected["images_empty"] == 0:
        return text
    return (
        f"{text}; {corrected['images_empty']} of the images have none, and are trained on where "
        "DATALOADER.FILTER_EMPTY_ANNOTATIONS is False"
    )


def _counts(models: Sequence[str], boxes: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Collect the boxes of each class after each step, of the steps that noted them."""
    by_step = {
        **{
            f"model {number}": boxes.get("after_threshold_per_class", {}).get(model)
            for number, model in enumerate(models)
        },
        "consensus": boxes.get("after_consensus_per_class"),
        "kept": boxes.get("kept_per_class"),
    }
    return {
        title: {name: int(count) for name, count in counts.items()}
        for title, counts in by_step.items()
        if counts is not None
    }


def _class_rows(manifest: dict[str, Any], counts: dict[str, dict[str, int]]) -> list[ClassRow]:
    sources = list(manifest["sources"].values())
    first = sources[0] if sources else {}
    targets = {name: float(values["target_per_image"]) for name, values in first.items()}
    kept = counts.get("kept", {})
    quality = manifest.get("quality", {}).get("selected", {}).get("classes", {})
    return [
        ClassRow(
            name,
            target,
            [
                (float(source[name]["threshold"]), float(source[name]["achieved_per_image"]))
                for source in sources
            ],
            [of_step.get(name) for of_step in counts.values()],
            (
                _share(kept.get(name, 0), sum(kept.values())),
                _share(target, sum(targets.values())),
            ),
            {key: _number(quality.get(name, {}).get(key)) for key in ("precision", "recall")},
        )
        for name, target in targets.items()
    ]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
