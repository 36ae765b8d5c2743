"""Between two phases: predict, threshold, consensus, selection, and the files that they leave.

Whatever exists is used as it is. So a run that was interrupted at any point goes on from there,
and pseudo-labels that a person has corrected are what the phase trains on.
"""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from torch import nn

from d2_ssod.artifacts import (
    RunFolder,
    label_settings,
    load_predictions,
    load_pseudo_labels,
    save_pseudo_labels,
    timed_event,
    write_manifest,
)
from d2_ssod.errors import ConfigError
from d2_ssod.pseudo_label import (
    LABEL_RULES,
    PseudoLabels,
    build_pseudo_labels,
    easy_fraction,
)
from d2_ssod.structures import Predictions

from ..processes.agreement import on_main_process
from ..run_data import RunData
from .corrections import describe_corrected, left_to_models, load_corrected, say_corrected
from .diagnostics import LabelTruth, check_labels
from .extra_sources import load_extra_sources
from .predicting import predict_unlabeled

logger = logging.getLogger(__name__)


def label_next_phase(
    cfg: CfgNode, phase: int, data: RunData, model: nn.Module | None = None
) -> None:
    """Make the pseudo-labels of phase i + 1 from the models of the phases 0..i; on every rank.

    Args:
        cfg: the run's config.
        phase: i, 0..N-1.
        data: the data sets of the run.
        model: of phase i, without a distributed wrapper; None to load it from ``OUTPUT_DIR``.
    """
    path = RunFolder(cfg.OUTPUT_DIR).phase(phase + 1).pseudo_labels
    if not on_main_process(path.exists):
        for source in range(phase):
            predict_unlabeled(cfg, source, data)
        predict_unlabeled(cfg, phase, data, model)
        with timed_event(RunFolder(cfg.OUTPUT_DIR), "labeled", phase=phase + 1):
            on_main_process(lambda: _make_pseudo_labels(cfg, phase + 1, data))


def read_pseudo_labels(cfg: CfgNode, phase: int, data: RunData) -> list[dict]:
    """Read the pseudo-labeled images that a phase trains on, as Detectron2 dicts.

    Args:
        cfg: the run's config.
        phase: 1..N.
        data: the data sets of the run.
    """
    path = RunFolder(cfg.OUTPUT_DIR).phase(phase).pseudo_labels
    logger.info("Phase %d: reading its labels", phase)
    images = load_pseudo_labels(
        path,
        *(data.unlabeled, data.thing_classes),
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
    )
    if not images:
        logger.warning(
            "Phase %d: no unlabeled image has a pseudo-label that could be selected; it trains on "
            "the labeled images only",
            phase,
        )
    return images


def _make_pseudo_labels(cfg: CfgNode, phase: int, data: RunData) -> None:
    """Threshold, consensus and selection of all models before ``phase``, into its two files."""
    files, truth = RunFolder(cfg.OUTPUT_DIR).phase(phase), LabelTruth(cfg, phase, data)
    labels = _labels_of_models(cfg, phase, data, truth)
    corrected = load_corrected(cfg, data)
    of_models = left_to_models(labels.selected, corrected)
    check_labels(cfg, phase, labels, of_models, data)
    say_corrected(cfg, phase, data, corrected)
    # Not under its name, whose existence says that labels and manifest are complete.
    written = save_pseudo_labels(
        files.pseudo_labels.with_name(".pseudo_labels.json"),
        *(corrected | of_models, data.unlabeled, data.thing_classes, data.category_ids),
        corrected=corrected,
    )
    write_manifest(
        files.manifest,
        labels,
        models=_names_of_models(cfg, phase),
        thing_classes=data.thing_classes,
        settings=label_settings(cfg),
        quality=truth.found,
        corrected=describe_corrected(cfg, corrected, data),
        written=written,
    )
    written.replace(files.pseudo_labels)


def _labels_of_models(cfg: CfgNode, phase: int, data: RunData, truth: LabelTruth) -> PseudoLabels:
    """Make the labels on which all models before ``phase`` agree, and say how many there are."""
    logger.info(
        "Phase %d: making the labels, of the boxes of all models so far (%d)",
        *(phase, phase + len(cfg.SSOD.CONSENSUS.EXTRA_SOURCES)),
    )
    folder, ssod, rule = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD, LABEL_RULES[cfg.SSOD.LABELS]
    image_ids = [image["image_id"] for image in data.unlabeled]
    labels = build_pseudo_labels(
        [
            *(
                load_predictions(folder.phase(source).predictions, image_ids, data.category_ids)
                for source in range(phase)
            ),
            *load_extra_sources(cfg, data),
        ],
        data.objects_per_image,
        fraction=easy_fraction(phase, ssod.NUM_PHASES, ssod.EASY_FRACTIONS),
        rule=rule.from_config(cfg),
        keep_fraction=ssod.PSEUDO_LABEL.KEEP_FRACTION,
        selection_rule=ssod.SELECTION,
        observe=truth.observe,
    )
    if labels.has_tiers and not rule.has_tiers:
        raise ConfigError(
            f"SSOD.LABELS {ssod.LABELS!r} gives labels in tiers: say so by has_tiers in LABEL_RULES"
        )
    _check_within(labels.selected, data)
    for line in labels.describe(data.thing_classes):
        logger.info("Phase %d: %s", phase, line)
    return labels


def _names_of_models(cfg: CfgNode, phase: int) -> list[str]:
    """Name the models whose boxes a phase's labels are of, oldest first, then those of others."""
    folder = RunFolder(cfg.OUTPUT_DIR)
    own = [folder.relative(folder.phase(source).model) for source in range(phase)]
    return [*own, *cfg.SSOD.CONSENSUS.EXTRA_SOURCES]


def _check_within(labels: Predictions, data: RunData) -> None:
    """Check that labels lie in their images, as what reads them asks for.

    Raises:
        ConfigError: some lie outside; a rule, or a file, of one's own may give such.
    """
    images = {image["image_id"]: image for image in data.unlabeled}
    outside = {}
    for image_id, found in labels.items():
        image, boxes = images[image_id], found.boxes
        is_before = (boxes[:, 2:] <= 0).any(axis=1)
        is_beyond = (boxes[:, :2] >= (image["width"], image["height"])).any(axis=1)
        if count := int((is_before | is_beyond).sum()):
            outside[image["file_name"]] = count
    if outside:
        raise ConfigError(
            f"{sum(outside.values())} labels lie outside their images, as in {next(iter(outside))}:"
            " correct the rule (SSOD.LABELS), or the boxes of SSOD.CONSENSUS.EXTRA_SOURCES"
        )
