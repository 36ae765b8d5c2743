"""``trained_with.json``: the settings, labels and weights that a phase was trained with.

So a run is not gone on with by others, which would make its results a mixture of both.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from d2_ssod.config import value_of
from d2_ssod.json_files import read_record, write_json
from d2_ssod.modeling import TIMM_BACKBONES, detector_of

from .differences import differences_between, refuse
from .digests import digest_of, digest_of_file
from .label_files import count_pseudo_labels
from .layout import PhaseFolder, RunFolder
from .settings import EMPTY_IMAGES, is_below, training_settings

# What any model depends on that the shapes of its weights do not show.
_UNSEEN = (
    *("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.ANCHOR_GENERATOR"),
    *("MODEL.RPN.BBOX_REG_WEIGHTS", "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"),
)
# ... where the name of a part has a word.
_UNSEEN_OF = (
    ("MODEL.BACKBONE.NAME", "fpn", ("MODEL.FPN.FUSE_TYPE",)),
    (
        "MODEL.BACKBONE.NAME",
        "resnet",
        ("MODEL.RESNETS.STRIDE_IN_1X1", "MODEL.RESNETS.RES5_DILATION"),
    ),
    ("MODEL.ROI_HEADS.NAME", "Cascade", ("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS",)),
)
_HASH = "sha256:"
LEARNED_UNLABELED = "learned_unlabeled"  # in the note of a phase that was taken from elsewhere
_DELETE = "delete the file"
_COUNTS = ("labeled_images", "pseudo_images", "pseudo_boxes")
_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"  # detectron2:// is that


def record_training(
    own: CfgNode,
    phase: int,
    labeled: Sequence[dict],
    folder: RunFolder,
    unlabeled: Sequence[dict] = (),
) -> None:
    """Write what a phase is trained with, its pseudo-labels too; on the main process.

    Args:
        own: config of the phase.
        phase: 0..N.
        labeled: dicts of the labeled images.
        folder: of the run.
        unlabeled: dicts of those that it learns from without labels.
    """
    content = _describe(own, phase, labeled, unlabeled)
    files = folder.phase(phase)
    if files.trained_with.exists():  # and its weights may be gone since
        content["weights"] = _read(files.trained_with)["weights"] | content["weights"]
    has_labels = phase > 0 and files.pseudo_labels.exists()
    if has_labels:
        content["pseudo_labels_sha256"] = digest_of_file(files.pseudo_labels)
    content["counts"] = _counts(own, len(labeled), files.pseudo_labels if has_labels else None)
    write_json(files.trained_with, content)


def counts_of_training(cfg: CfgNode, phase: int, folder: RunFolder, labeled: int) -> dict[str, int]:
    """Count the images and pseudo-boxes that a phase was trained on, or would be now.

    Args:
        cfg: of the run, as it is now.
        phase: 0..N.
        folder: of the run.
        labeled: number of the labeled images that there are now.

    Returns:
        ``labeled_images``, ``pseudo_images`` and ``pseudo_boxes``.
    """
    files = folder.phase(phase)
    is_known = files.has_weights() and files.trained_with.exists()
    known = _read(files.trained_with).get("counts", {}) if is_known else {}
    if all(isinstance(known.get(name), int) for name in _COUNTS):
        return {name: known[name] for name in _COUNTS}
    return _counts(cfg, labeled, files.pseudo_labels if phase > 0 else None)


def _counts(cfg: CfgNode, labeled: int, pseudo_labels: Path | None) -> dict[str, int]:
    filter_empty, pseudo = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, (0, 0)
    if pseudo_labels is not None:
        pseudo = count_pseudo_labels(pseudo_labels, filter_empty=filter_empty)
    return dict(zip(_COUNTS, (labeled, *pseudo), strict=True))


def check_training(
    own: CfgNode,
    phase: int,
    labeled: Sequence[dict],
    folder: RunFolder,
    unlabeled: Sequence[dict] = (),
) -> None:
    """Check that what exists of a phase was trained with these settings, labels and images.

    Its pseudo-labels may have been changed only as long as nothing was learned from them.

    Args:
        own: config of the phase, as it would be trained now.
        phase: 0..N.
        labeled: dicts of the labeled images.
        folder: of the run.
        unlabeled: dicts of those that it learns from without labels.

    Raises:
        ConfigError: naming the first three settings that differ, or the images, or weights.
    """
    files = folder.phase(phase)
    if not files.trained_with.exists():
        return
    made, now = _read(files.trained_with), _describe(own, phase, labeled, unlabeled)
    settings, filters = made["settings"], own.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    if settings.get(EMPTY_IMAGES) != filters and not _has_empty_images(files):
        settings.pop(EMPTY_IMAGES, None)
    differences = differences_between(settings, now["settings"])
    if made["labeled_sha256"] != now["labeled_sha256"]:
        differences.append(
            "the labeled images that are trained on, or their objects, are others (DATASETS.TRAIN, "
            f"{EMPTY_IMAGES})"
        )
    if made["unlabeled_sha256"] != now["unlabeled_sha256"]:
        differences.append("the unlabeled images are others (DATASETS.UNLABELED)")
    differences += _other_weights(made["weights"], now["weights"])
    if _has_other_pseudo_labels(files, made.get("pseudo_labels_sha256")):
        differences.append(
            f"{files.pseudo_labels} has been changed since (to train the phase again, delete "
            "model_*.pth beside it)"
        )
    refuse(own, f"phase {phase} in {folder.root} was trained with other settings", differences)


def _has_empty_images(files: PhaseFolder) -> bool:
    """Tell whether a phase's labels have, or may have had, images that a person has found empty."""
    path = files.pseudo_labels
    if not path.exists():
        return files.has_weights()
    without, with_them = (count_pseudo_labels(path, filter_empty=own) for own in (True, False))
    return without != with_them


def _has_other_pseudo_labels(files: PhaseFolder, trained_with: str | None) -> bool:
    """Tell whether a model, or a part of its training, is of other pseudo-labels than there are."""
    if trained_with is None or not files.has_weights() or not files.pseudo_labels.exists():
        return False
    return digest_of_file(files.pseudo_labels) != trained_with


def _weights(own: CfgNode, phase: int) -> dict[str, str]:
    """Describe the weights from elsewhere that a phase starts from; those that are gone left out.

    They are "" (random ones), "pretrained" or an address, or of a file its hash.
    """
    if phase > 0 and own.SSOD.PHASE_INIT != "pretrained":
        return {}
    keys = ["MODEL.WEIGHTS"]
    if own.MODEL.BACKBONE.NAME in TIMM_BACKBONES:
        keys.append("MODEL.TIMM.WEIGHTS")
    described = {}
    for key in keys:
        name = value_of(own, key).split("?")[0]  # Detectron2's options follow
        if os.path.isfile(name):
            status = os.stat(name)
            described[key] = _HASH + _digest_of_weights(name, status.st_mtime_ns, status.st_size)
        elif name in ("", "pretrained") or "://" in name:
            described[key] = name.replace("detectron2://", _DETECTRON2)
    return described


@functools.lru_cache(maxsize=4)
def _digest_of_weights(path: str, changed: int, size: int) -> str:
    """Hash a large file once, as long as it does not change; it is asked for in each phase."""
    return digest_of_file(path)


def _other_weights(made: dict[str, str], now: dict[str, str]) -> list[str]:
    """Tell of each key whether its weights are surely others; a file may be what is downloaded."""
    return [
        f"the weights that it started from are others ({key})"
        for key, was in made.items()
        if key in now
        and was != now[key]
        and ("" in (was, now[key]) or _is_hash(was) == _is_hash(now[key]))
    ]


def _is_hash(weights: str) -> bool:
    return str(weights).startswith(_HASH)


def has_learned(folder: RunFolder, phase: int, labeled: Sequence[dict]) -> bool:
    """Tell whether a phase was trained on these labeled images, also where that is not known."""
    return digest_of_learned(folder, phase) in (None, digest_of(labeled, crowds=False))


def digest_of_learned(folder: RunFolder, phase: int, remedy: str = _DELETE) -> str | None:
    """Read the digest of the labeled images that a phase was trained on; None if not known."""
    path = folder.phase(phase).trained_with
    return _read(path, remedy)["labeled_sha256"] if path.exists() else None


def has_learned_unlabeled(files: PhaseFolder) -> bool | None:
    """Tell whether a phase has learned from unlabeled images, too; None if that is not known."""
    if files.trained_with.exists():
        made = _read(files.trained_with, "restore it")
        learned = made["unlabeled_sha256"] != digest_of((), crowds=False)
        return learned or "pseudo_labels_sha256" in made
    if files.taken_from.exists():
        taken = read_record(files.taken_from, {}, {LEARNED_UNLABELED: bool})
        return taken.get(LEARNED_UNLABELED)
    return None


def had_teacher(folder: RunFolder, phase: int) -> bool:
    """Tell whether a phase is finished, and a mean teacher labeled its images."""
    files = folder.phase(phase)
    if not (files.model.exists() and files.trained_with.exists()):
        return False
    return bool(_read(files.trained_with)["settings"].get("SSOD.TEACHER.ENABLED", False))


def check_architecture(cfg: CfgNode, phase: int, folder: RunFolder) -> None:
    """Check that a phase's model is the one that the config describes, also where all shapes fit.

    Args:
        cfg: of the run.
        phase: 0..N.
        folder: of the run.

    Raises:
        ConfigError: naming the first three settings of ``MODEL`` that differ.
    """
    path = folder.phase(phase).trained_with
    if path.exists():
        parts = [
            {k: v for k, v in settings.items() if k.startswith("MODEL.") or k == "INPUT.FORMAT"}
            for settings in (_read(path)["settings"], training_settings(cfg, phase))
        ]
        model = folder.phase(phase).model
        refuse(cfg, f"{model} does not fit the config's model", differences_between(*parts))


def differences_unseen(cfg: CfgNode, files: PhaseFolder) -> list[str]:
    """Tell in what a model that lies elsewhere is not the config's, though its weights fit."""
    if not files.trained_with.exists():
        return []
    settings = (_read(files.trained_with, "restore it")["settings"], training_settings(cfg, 0))
    unseen = [*_UNSEEN, *detector_of(cfg).unseen_keys]
    for part, word, keys in _UNSEEN_OF:
        if word in value_of(cfg, part):
            unseen += keys
    parts = [{k: v for k, v in own.items() if is_below(k, unseen)} for own in settings]
    return differences_between(*parts)


def _read(path: Path, remedy: str = _DELETE) -> dict[str, Any]:
    parts = {"settings": dict, "weights": dict, "labeled_sha256": str, "unlabeled_sha256": str}
    return read_record(path, parts, {"counts": dict}, remedy=remedy)


def _describe(
    own: CfgNode, phase: int, labeled: Sequence[dict], unlabeled: Sequence[dict]
) -> dict[str, Any]:
    return {
        "settings": training_settings(own, phase),
        "weights": _weights(own, phase),
        "labeled_sha256": digest_of(labeled, crowds=False),
        "unlabeled_sha256": digest_of(unlabeled, crowds=False),
    }
