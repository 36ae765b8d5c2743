"""All that is checked about the data sets that a config names, before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from d2_ssod.data import checks, datasets_root, statistics
from d2_ssod.data.box_checks import check_boxes
from d2_ssod.data.datasets import DataSet, DataSource, missing_paths, read_data_set
from d2_ssod.data.findings import Findings, raise_first
from d2_ssod.data.objects import trained_on
from d2_ssod.data.picture_files import PictureFiles
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import evaluator_kind, ground_truth, read_voc_truth
from d2_ssod.modeling import detector_of, num_classes
from d2_ssod.pseudo_label import easy_fraction

from .configs.schedule import WARM_UP_REMEDY, phase_config, warm_up_problem

_KEYS = ("TRAIN", "UNLABELED", "VAL", "TEST")
_LABELED = ("TRAIN", "VAL", "TEST")
_JUDGING = ("VAL", "TEST")


def check_data_sets(cfg: CfgNode) -> None:
    """Every data set that the config names is registered, and each kind is named and usable.

    Raises:
        ConfigError: otherwise.
    """
    for key in _KEYS:
        if not cfg.DATASETS[key] and not _may_be_empty(cfg, key):
            raise ConfigError(f"DATASETS.{key} is empty: name at least one registered data set")
        for name, times in Counter(cfg.DATASETS[key]).items():
            if times > 1:
                raise ConfigError(
                    f"DATASETS.{key} names {name} {times} times; name it once (to train on labeled "
                    "images more often: SSOD.LABELED_REPEAT)"
                )
    _check_registered(cfg, _KEYS)


def check_judging_sets(cfg: CfgNode, thing_classes: Sequence[str]) -> dict[str, list[dict]]:
    """Check what finished models are to be judged on, and read it.

    Args:
        cfg: of a run.
        thing_classes: of its models.

    Returns:
        The images of each data set of ``DATASETS.VAL`` and ``DATASETS.TEST``.

    Raises:
        ConfigError: one is missing, has other classes, or pictures or boxes that cannot be used.
    """
    _check_registered(cfg, _JUDGING)
    sets = NamedDataSets.read(cfg, _JUDGING)
    findings, classes = Findings(), {"the models": list(thing_classes)}
    for place, found in sets.placed(*_JUDGING):
        findings.extend(found.findings)
        classes[place] = found.thing_classes
    checks.check_same_classes(classes, findings)
    raise_first(findings)
    files = PictureFiles()
    for place, found in sets.placed(*_JUDGING):
        checks.check_not_empty(found.images, place, findings)
        checks.check_annotations(found.images, len(thing_classes), place, findings)
        checks.check_images(found.images, files, place, findings)
    _check_other_files(sets, findings)
    raise_first(findings)
    return {name: found.images for (_, name), found in sets.named.items()}


def _check_registered(cfg: CfgNode, keys: Sequence[str]) -> None:
    """Every data set of these keys is registered, and has its files."""
    for key in keys:
        for name in cfg.DATASETS[key]:
            if name not in DatasetCatalog:
                raise ConfigError(
                    f"DATASETS.{key}: no data set is registered as {name!r}: correct the name, or "
                    "register yours in SSOD.REGISTER"
                )
            if key in _JUDGING:
                evaluator_kind(name, f"DATASETS.{key}")
    _check_paths(cfg, keys)


def _check_paths(cfg: CfgNode, keys: Sequence[str]) -> None:
    """Name all that official data sets need and that is not there, in one message."""
    names = dict.fromkeys(name for key in keys for name in cfg.DATASETS[key])
    missing = list(dict.fromkeys(p for n in names for p in missing_paths(n)))
    if missing:
        raise ConfigError(
            f"DATASETS: of {', '.join(names)} these paths are not there: {', '.join(missing)}; "
            "expected below $DETECTRON2_DATASETS (now "
            f"{datasets_root()}): VOC2007/ and VOC2012/ with Annotations/, ImageSets/Main/ and "
            "JPEGImages/, coco/ with annotations/ and the folders of images (files of some percent "
            "are made by python -m d2_ssod split)"
        )


def _may_be_empty(cfg: CfgNode, key: str) -> bool:
    """Tell whether ``DATASETS.<key>`` may name nothing: unlabeled images if phase 0 alone runs."""
    phase_0_alone = cfg.SSOD.NUM_PHASES == 0 and not detector_of(cfg).learns_unlabeled
    return key in ("VAL", "TEST") or (key == "UNLABELED" and phase_0_alone)


def check_run_data(cfg: CfgNode) -> Findings:
    """Find everything in the data sets of a config that cannot be used, or is odd."""
    sets = NamedDataSets.read(cfg)
    findings = check_contents(cfg, sets)
    findings.extend(check_pictures(cfg, sets))
    findings.extend(_check_warm_up(cfg, sets))
    return findings


def _check_warm_up(cfg: CfgNode, sets: NamedDataSets) -> Findings:
    """Find phases, of all unlabeled images, that are warm-up for the most part."""
    findings, last = Findings(), cfg.SSOD.NUM_PHASES
    labeled = len(trained_on(cfg, sets.of_key("TRAIN")))
    unlabeled = len(sets.of_key("UNLABELED"))
    for phase in range(last + 1):
        fraction = easy_fraction(phase, last, cfg.SSOD.EASY_FRACTIONS) if phase > 0 else 0
        own = phase_config(cfg, phase, labeled, round(fraction * unlabeled))
        if problem := warm_up_problem(own, phase):
            kind = "phases that are warm-up most of the time"
            findings.warning("SOLVER.WARMUP_ITERS", kind, problem, WARM_UP_REMEDY)
    return findings


@dataclass(frozen=True)
class NamedDataSets:
    """The data sets that the keys of a config name, in its order."""

    named: dict[tuple[str, str], DataSet]

    @classmethod
    def read(cls, cfg: CfgNode, keys: Sequence[str] = _KEYS) -> NamedDataSets:
        """Read those of these keys."""
        return cls({(key, name): read_data_set(name) for key in keys for name in cfg.DATASETS[key]})

    def of_key(self, key: str) -> list[dict]:
        """Join the images of all data sets of a key."""
        return [i for (own, _), found in self.named.items() if own == key for i in found.images]

    def names(self, key: str) -> list[str]:
        """List the data sets of a key."""
        return [name for own, name in self.named if own == key]

    @property
    def first_labeled(self) -> str:
        """Name the data set whose classes are those of the run."""
        return self.names("TRAIN")[0]

    def placed(self, *keys: str) -> Iterator[tuple[str, DataSet]]:
        """Yield the data sets of the keys, with where they are named."""
        for (key, name), found in self.named.items():
            if key in keys:
                yield _place(key, name), found


def _place(key: str, name: str) -> str:
    return f"DATASETS.{key} ({name})"


def check_contents(cfg: CfgNode, sets: NamedDataSets) -> Findings:
    """Check what the data sets say, without looking at pictures."""
    findings = Findings()
    for place, found in sets.placed(*_KEYS):
        findings.extend(found.findings)
        if not found.findings.has_errors:
            checks.check_not_empty(found.images, place, findings)
    with_classes = {
        place: found.thing_classes
        for place, found in sets.placed(*_LABELED)
        if not found.findings.has_errors
    }
    checks.check_same_classes(with_classes, findings)
    classes = sets.named["TRAIN", sets.first_labeled].thing_classes
    if classes is not None:
        _check_labeled(cfg, sets, classes, findings)
    for place, found in sets.placed("UNLABELED"):
        checks.check_sizes(found.images, place, findings)
    for place, found in sets.placed("UNLABELED", *_JUDGING):
        _check_ids(found.images, place, findings)
    for place, found in sets.placed(*_JUDGING):
        checks.check_difficulties(found.images, place, findings)
    _check_other_files(sets, findings)
    return findings


def _check_labeled(
    cfg: CfgNode, sets: NamedDataSets, classes: list[str], findings: Findings
) -> None:
    if num_classes(cfg) != len(classes):
        findings.error(
            "",
            "another number of classes",
            f"{detector_of(cfg).num_classes_key} is {num_classes(cfg)}, but {sets.first_labeled} "
            f"(DATASETS.TRAIN) has {len(classes)} classes",
            "set it to that",
        )
    for place, found in sets.placed(*_LABELED):
        if found.thing_classes is None or found.findings.has_errors:
            continue
        before = len(findings)
        checks.check_annotations(found.images, len(classes), place, findings)
        checks.check_has_objects(found.images, place, findings)
        if len(findings) == before:
            check_boxes(found.images, place, findings)
    labeled = sets.of_key("TRAIN")
    if not findings.has_errors:
        resizing, place = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST), "DATASETS.TRAIN"
        checks.check_trained_on(labeled, len(trained_on(cfg, labeled)), place, findings)
        statistics.check_crowds(labeled, place, findings)
        statistics.check_balance(labeled, classes, place, findings)
        statistics.check_visible(labeled, resizing, place, findings)
        statistics.check_number_of_objects(labeled, cfg.TEST.DETECTIONS_PER_IMAGE, place, findings)
    if not findings.has_errors and detector_of(cfg).has_anchors:
        statistics.check_anchors(
            labeled,
            # of each level, or, as one list, of all
            np.hstack(cfg.MODEL.ANCHOR_GENERATOR.SIZES).tolist(),
            np.hstack(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS).tolist(),
            resizing,
            place,
            findings,
        )


def check_pictures(
    cfg: CfgNode, sets: NamedDataSets, on_step: Callable[[], object] = lambda: None
) -> Findings:
    """Check the pictures themselves; ``on_step`` is called after each that was looked at."""
    findings, files = Findings(), PictureFiles(on_step)
    test = ("INPUT.MIN_SIZE_TEST", cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    least = min(cfg.INPUT.MIN_SIZE_TRAIN)
    train = ("INPUT.MIN_SIZE_TRAIN", least, cfg.INPUT.MAX_SIZE_TRAIN)
    for key in _KEYS:
        checks.check_repeated(sets.of_key(key), files, f"DATASETS.{key}", findings)
    for place, found in sets.placed(*_KEYS):
        checks.check_images(found.images, files, place, findings)
        checks.check_resizable(found.images, [train, test], place, findings)
    for second, first, words in _APART:
        place = f"DATASETS.{second}"
        sharing = sets.of_key(first), sets.of_key(second)
        checks.check_disjoint(*sharing, files, words, place, findings)
    return findings


# Keys whose images should not be those of another one, and the words that say so.
_APART = (
    (
        "UNLABELED",
        "TRAIN",
        ("unlabeled", "labeled", "their pseudo-labels will look better than they are"),
    ),
    ("VAL", "TRAIN", ("validation", "labeled", "results on them mean nothing")),
    (
        "VAL",
        "UNLABELED",
        (
            "validation",
            "unlabeled",
            "the best model is chosen by the very images that the models are adapted to",
        ),
    ),
    ("TEST", "TRAIN", ("test", "labeled", "results on them mean nothing")),
    (
        "TEST",
        "VAL",
        ("test", "validation", "the best model is chosen by the very images it is judged by"),
    ),
    (
        "TEST",
        "UNLABELED",
        ("test", "unlabeled", "the models are adapted to the very images they are judged by"),
    ),
)


def _check_other_files(sets: NamedDataSets, findings: Findings) -> None:
    """Check the files that judge results, where others' functions give the images."""
    for (key, name), found in sets.named.items():
        is_read_here = isinstance(DatasetCatalog[name], DataSource)
        if key not in _JUDGING or is_read_here or not found.thing_classes:
            continue
        if MetadataCatalog.get(name).get("evaluator_type") == "pascal_voc":
            _check_voc_truth(found.images, name, _place(key, name), findings)
        else:
            _check_coco_truth(name, _place(key, name), findings)


def _check_coco_truth(name: str, place: str, findings: Findings) -> None:
    """Check that there is what results will be compared with."""
    try:
        ground_truth(name)
    except ConfigError as error:
        kind, remedy = "COCO files that cannot be read", "or take json_file out of the metadata"
        findings.error(place, kind, str(error), remedy)


def _check_voc_truth(images: list[dict], name: str, place: str, findings: Findings) -> None:
    """Check VOC's XML files, in which an image is found by its id."""
    try:
        truth = read_voc_truth(name)
    except ConfigError as error:
        kind, remedy = "VOC files that cannot be read", "or set evaluator_type to 'coco'"
        findings.error(place, kind, str(error), remedy)
        return
    findings.extend(finding for finding in truth.findings if finding.level == "error")
    names = {image["image_id"] for image in truth.images}
    for image in images:
        if str(image["image_id"]) not in names:
            findings.error(
                place,
                "image ids that are no names of VOC's",
                f"image_id {image['image_id']!r} ({image['file_name']}) is not among the images of "
                f"{MetadataCatalog.get(name).dirname}, split {MetadataCatalog.get(name).split!r}",
                "give images the names of their XML files, or set evaluator_type to 'coco'",
            )


def _check_ids(images: list[dict], place: str, findings: Findings) -> None:
    """Predictions, pseudo-labels and results are kept by image id."""
    for image_id, count in Counter(image["image_id"] for image in images).items():
        if count > 1:
            findings.error(
                place,
                "repeated image ids",
                f"image_id {image_id!r} occurs {count} times",
                "give each image its own id",
            )
