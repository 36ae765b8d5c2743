"""Where the pseudo-labels of a phase come from: thresholds, counts, classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .collect import Phase


@dataclass(frozen=True)
class ClassRow:
    """A class in the labels of a phase.

    Attributes:
        name: of the class.
        target: objects per labeled image.
        thresholds: (threshold, achieved boxes per unlabeled image) of each source model.
        counts: boxes after each step; None where the step did not note it.
        share: of the kept boxes, and of the labeled objects.
        quality: precision and recall of the kept boxes, where the truth is known.
    """

    name: str
    target: float
    thresholds: list[tuple[float, float]]
    counts: list[int | None]
    share: tuple[float, float]
    quality: dict[str, float] | None


@dataclass(frozen=True)
class LabelTable:
    """The labels of a phase, class by class.

    Attributes:
        phase: of the labels.
        models: names of the source models.
        steps: titles of the counts.
        rows: of the classes.
        selection: images kept, left out and empty.
        quality: precision and recall after each step, where the truth is known.
        corrected: what a person has labeled.
    """

    phase: int
    models: list[str]
    steps: list[str]
    rows: list[ClassRow]
    selection: dict[str, Any]
    quality: dict[str, dict[str, Any]]
    corrected: dict[str, Any] | None


def label_table(phase: Phase) -> LabelTable | None:
    """Read the manifest of a phase; None where it has none."""
    manifest = phase.manifest
    if manifest is None:
        return None
    models, boxes = list(manifest["sources"]), manifest["boxes"]
    by_step = {
        **{
            f"model {number}": boxes.get("after_threshold_per_class", {}).get(model)
            for number, model in enumerate(models)
        },
        "consensus": boxes.get("after_consensus_per_class"),
        "kept": boxes.get("kept_per_class"),
    }
    known = {title: counts for title, counts in by_step.items() if counts is not None}
    quality = manifest.get("quality", {})
    first = manifest["sources"][models[0]] if models else {}
    targets = {name: values["target_per_image"] for name, values in first.items()}
    kept = known.get("kept", {})
    return LabelTable(
        phase.number,
        models,
        list(known),
        [
            ClassRow(
                name,
                target,
                [
                    (source[name]["threshold"], source[name]["achieved_per_image"])
                    for source in manifest["sources"].values()
                ],
                [counts.get(name) for counts in known.values()],
                (
                    _share(kept.get(name, 0), sum(kept.values())),
                    _share(target, sum(targets.values())),
                ),
                quality.get("selected", {}).get("classes", {}).get(name),
            )
            for name, target in targets.items()
        ],
        manifest["selection"],
        quality,
        manifest.get("corrected"),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
