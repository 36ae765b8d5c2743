"""The pictures of the data sets, and which of them are in several."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.config import CfgNode

from d2_ssod.data import checks
from d2_ssod.data.datasets.named import KEYS, NamedDataSets
from d2_ssod.data.findings import Findings
from d2_ssod.data.picture_files import PictureFiles


def check_pictures(
    cfg: CfgNode, sets: NamedDataSets, on_step: Callable[[], object] = lambda: None
) -> Findings:
    """Check the pictures themselves; ``on_step`` is called after each that was looked at."""
    findings, files = Findings(), PictureFiles(on_step)
    test = ("INPUT.MIN_SIZE_TEST", cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    least = min(cfg.INPUT.MIN_SIZE_TRAIN)
    train = ("INPUT.MIN_SIZE_TRAIN", least, cfg.INPUT.MAX_SIZE_TRAIN)
    for key in KEYS:
        checks.check_repeated(sets.of_key(key), files, f"DATASETS.{key}", findings)
    for place, found in sets.placed(*KEYS):
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
