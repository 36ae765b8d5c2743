import json

import numpy as np
import pytest
from detectron2.config import CfgNode
from runs import bare_config
from samples import detections

from d2_ssod.artifacts import (
    RunFolder,
    check_label_settings,
    label_settings,
    write_manifest,
)
from d2_ssod.errors import ConfigError
from d2_ssod.pseudo_label import LABEL_RULES, LabelRule, PseudoLabels, Selection, Thresholds

MODELS = ["phase_0/model_final.pth", "phase_1/model_final.pth"]
CLASSES = ["cat", "dog"]
LABELS = PseudoLabels(
    selected={2: detections((1, 0, 11, 10, 0.955, 0), (5, 0, 11, 10, 0.9, 0))},
    selection=Selection(kept=(2,), left_out=(1,), empty=(3, 4), scores={1: 0.905, 2: 0.9275}),
    fraction=0.5,
    thresholds=(
        Thresholds(np.array([0.1, 0.3]), np.array([1.0, 0.25]), np.array([1.25, 0.0])),
        Thresholds(np.array([0.35, 0.12]), np.array([1.0, 0.25]), np.array([0.75, 0.5])),
    ),
    thresholded=np.array([[4, 1], [2, 2]]),
    agreed=np.array([3, 0]),
)


def write(folder, **options):
    folder.mkdir(exist_ok=True)
    path = write_manifest(
        folder / "manifest.json", LABELS, models=MODELS, thing_classes=CLASSES, **options
    )
    assert path == folder / "manifest.json"
    return json.loads(path.read_text())


def test_manifest_tells_every_number(tmp_path):
    assert write(tmp_path, settings={"SSOD.CONSENSUS.IOU_THRESH": 0.5}) == {
        "format_version": 2,
        "sources": {
            "phase_0/model_final.pth": {
                "cat": {"threshold": 0.1, "target_per_image": 1.0, "achieved_per_image": 1.25},
                "dog": {"threshold": 0.3, "target_per_image": 0.25, "achieved_per_image": 0.0},
            },
            "phase_1/model_final.pth": {
                "cat": {"threshold": 0.35, "target_per_image": 1.0, "achieved_per_image": 0.75},
                "dog": {"threshold": 0.12, "target_per_image": 0.25, "achieved_per_image": 0.5},
            },
        },
        "selection": {
            "fraction": 0.5,
            "images": 4,
            "images_kept": 1,
            "images_left_out": 1,
            "images_empty": 2,
            "score_of_last_kept": 0.9275,
        },
        "boxes": {
            "after_threshold": {"phase_0/model_final.pth": 5, "phase_1/model_final.pth": 4},
            "after_consensus": 3,
            "after_threshold_per_class": {
                "phase_0/model_final.pth": {"cat": 4, "dog": 1},
                "phase_1/model_final.pth": {"cat": 2, "dog": 2},
            },
            "after_consensus_per_class": {"cat": 3, "dog": 0},
            "kept": 2,
            "kept_per_class": {"cat": 2, "dog": 0},
        },
        "settings": {"SSOD.CONSENSUS.IOU_THRESH": 0.5},
    }


def test_manifest_needs_no_settings(tmp_path):
    assert write(tmp_path)["settings"] == {}


def test_manifest_of_no_image_has_no_last_score(tmp_path):
    nothing = PseudoLabels(
        selected={},
        selection=Selection(kept=(), left_out=(), empty=(1,), scores={}),
        fraction=1.0,
        thresholds=LABELS.thresholds[:1],
        thresholded=np.zeros((1, 2), dtype=np.int64),
        agreed=np.zeros(2, dtype=np.int64),
    )
    path = write_manifest(tmp_path / "m.json", nothing, models=MODELS[:1], thing_classes=CLASSES)
    manifest = json.loads(path.read_text())
    assert manifest["selection"]["score_of_last_kept"] is None
    assert manifest["boxes"]["kept_per_class"] == {"cat": 0, "dog": 0}


@pytest.mark.parametrize("models", [MODELS[:1], [*MODELS, "phase_2/model_final.pth"]])
def test_manifest_needs_the_name_of_every_model(tmp_path, models):
    with pytest.raises(ValueError, match="zip"):
        write_manifest(tmp_path / "m.json", LABELS, models=models, thing_classes=CLASSES)
    assert list(tmp_path.iterdir()) == []


# What may change once there are labels


def check(cfg, *changes, without=()):
    """Make labels of phase 1, and check them after changes of keys."""
    files = RunFolder(cfg.OUTPUT_DIR).phase(1)
    settings = {k: v for k, v in label_settings(cfg).items() if k not in without}
    write(files.folder, settings=settings)
    files.pseudo_labels.write_text("{}")
    cfg.merge_from_list(list(changes))
    check_label_settings(cfg, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SSOD.SELECTION", "class_balanced"),
        ("SSOD.CONSENSUS.IOU_THRESH", 0.75),
        ("SSOD.PSEUDO_LABEL.KEEP_FRACTION", 0.5),
        ("SSOD.TTA.ENABLED", True),
        ("SSOD.LABELS", "tiers"),
    ],
)
def test_other_settings_than_the_labels_are_refused(tmp_path, key, value):
    with pytest.raises(
        ConfigError, match=f"phase_1/pseudo_labels.json was made .*{key} was"
    ) as info:
        check(bare_config(tmp_path), key, value)
    assert "SSOD.RESUME_ANYWAY" in str(info.value)
    check(bare_config(tmp_path), key, value, "SSOD.RESUME_ANYWAY", True)


def test_settings_of_tiers_count_where_there_are_tiers(tmp_path):
    cfg = bare_config(tmp_path)
    check(cfg, "SSOD.TIERS.CERTAIN", 0.25)
    cfg.SSOD.LABELS = "tiers"
    check(cfg, "SSOD.CONSENSUS.IOU_THRESH", 0.75, "SSOD.TIERS.UNCERTAIN", "hard")
    check(cfg, "SSOD.TIERS.MAX_SPREAD", 0.5)  # of how labels are learned
    with pytest.raises(ConfigError, match=r"SSOD\.TIERS\.CERTAIN was 0\.25 and is 0\.5"):
        check(cfg, "SSOD.TIERS.CERTAIN", 0.5)


def test_models_that_vote_along_count_with_every_rule(tmp_path):
    cfg = bare_config(tmp_path)
    cfg.SSOD.LABELS = "tiers"
    with pytest.raises(ConfigError, match=r"SSOD\.CONSENSUS\.EXTRA_SOURCES was \[\] and is"):
        check(cfg, "SSOD.CONSENSUS.EXTRA_SOURCES", ["other.json"])


def test_settings_of_a_rule_of_ones_own_count(tmp_path, monkeypatch):
    monkeypatch.setitem(LABEL_RULES, "mine", LabelRule(lambda cfg: len, "MODEL.LABELS"))
    cfg = bare_config(tmp_path)
    cfg.MODEL.LABELS, cfg.SSOD.LABELS = CfgNode({"LEAST": 3}), "mine"
    check(cfg, "SSOD.CONSENSUS.IOU_THRESH", 0.75)
    assert json.loads((tmp_path / "phase_1/manifest.json").read_text())["settings"] == {
        "SSOD.LABELS": "mine",
        "SSOD.CONSENSUS.EXTRA_SOURCES": [],
        "SSOD.PSEUDO_LABEL.KEEP_FRACTION": 1.0,
        "SSOD.TTA.ENABLED": False,
        "SSOD.SELECTION": "mean_score",
        "MODEL.LABELS.LEAST": 3,
    }
    with pytest.raises(ConfigError, match=r"MODEL\.LABELS\.LEAST was 3 and is 4"):
        check(cfg, "MODEL.LABELS.LEAST", 4)


def test_what_an_older_version_has_not_noted_is_not_compared(tmp_path):
    without = ("SSOD.SELECTION", "SSOD.LABELS")
    check(bare_config(tmp_path), "SSOD.SELECTION", "class_balanced", without=without)


@pytest.mark.parametrize(
    ("fractions", "is_refused"), [([0.5, 1.0], False), ([0.2, 1.0], True), ([], False)]
)
def test_another_part_of_the_images_is_refused(tmp_path, fractions, is_refused):
    """The labels are of half of the images; by default a phase's part depends on N."""
    cfg = bare_config(tmp_path)
    cfg.SSOD.NUM_PHASES = 2 if fractions else 5
    keys = ("SSOD.EASY_FRACTIONS", fractions)
    if is_refused:
        with pytest.raises(ConfigError, match=r"EASY_FRACTIONS gave phase 1 0\.5, now 0\.2"):
            check(cfg, *keys)
    else:
        check(cfg, *keys)


def test_settings_by_names_of_an_earlier_version_are_said_not_to_be_compared(tmp_path, caplog):
    cfg = bare_config(tmp_path)
    check(cfg)
    assert not caplog.records
    path = tmp_path / "phase_1" / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format_version": 1, "settings": {"tta": False}}))
    cfg.SSOD.TTA.ENABLED = True
    check_label_settings(cfg, 1)
    assert f"{path} was written by another version" in caplog.text


def test_labels_from_elsewhere_have_no_settings(tmp_path):
    check_label_settings(bare_config(tmp_path), 1)
    (tmp_path / "phase_1").mkdir()
    (tmp_path / "phase_1" / "pseudo_labels.json").write_text("{}")
    check_label_settings(bare_config(tmp_path), 1)
