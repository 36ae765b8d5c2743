"""What a phase was trained with, and what may change when it is gone on with."""

import copy
import functools
import json
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.structures import BoxMode
from runs import bare_config

from d2_ssod.artifacts import (
    RunFolder,
    check_training,
    forget_lengths,
    had_teacher,
    record_training,
)
from d2_ssod.artifacts.trained_with import has_learned
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import write_json
from d2_ssod.pseudo_label import LABEL_RULES, LabelRule

LABELED = [
    {
        "file_name": "/data/labeled/1.png",
        "image_id": 1,
        "annotations": [
            {"bbox": [1.0, 2.0, 3.0, 4.0], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
        ],
    },
    {"file_name": "/data/labeled/2.png", "image_id": 2, "annotations": []},
]


@pytest.fixture
def cfg(tmp_path):
    return bare_config(tmp_path)


def check(cfg, phase, *changes, labeled=LABELED):
    """Record a phase's training, and check it after changes of keys."""
    folder = RunFolder(cfg.OUTPUT_DIR)
    record_training(cfg, phase, LABELED, folder)
    cfg.merge_from_list(list(changes))
    check_training(cfg, phase, labeled, folder)


def test_other_unlabeled_images_are_refused_where_they_are_learned_from(cfg):
    folder, unlabeled = RunFolder(cfg.OUTPUT_DIR), [{"file_name": "/data/3.png", "image_id": 3}]
    record_training(cfg, 0, LABELED, folder, unlabeled)
    check_training(cfg, 0, LABELED, folder, unlabeled)
    with pytest.raises(ConfigError, match=r"unlabeled images are others.*UNLABELED"):
        check_training(cfg, 0, LABELED, folder, [{"file_name": "/data/4.png", "image_id": 3}])


CROWD = {
    "bbox": [5.0, 5.0, 2.0, 2.0],
    "bbox_mode": BoxMode.XYWH_ABS,
    "category_id": 0,
    "iscrowd": 1,
}


def test_crowds_are_learned_by_no_phase_and_may_change(cfg):
    """VOC's difficult objects were left out when images were read; COCO's crowds never."""
    folder, labeled = RunFolder(cfg.OUTPUT_DIR), copy.deepcopy(LABELED)
    record_training(cfg, 0, labeled, folder)
    labeled[1]["annotations"].append(CROWD)
    check_training(cfg, 0, labeled, folder)
    assert has_learned(folder, 0, labeled)


REFUSED = [
    ("SEED", 5),
    ("SOLVER.IMS_PER_BATCH", 4),
    ("SOLVER.BASE_LR", 0.5),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[7]]),
    ("INPUT.MIN_SIZE_TRAIN", (99,)),
    ("SSOD.AUG.COLOR", 0.5),
    ("SSOD.OPTIMIZER", "AdamW"),
    ("MODEL.TIMM.NAME", "resnet18"),
    ("SSOD.SIMILARITY.LOSS_WEIGHT", 0.0),
]
OF_PSEUDO_LABELS = [
    ("SSOD.ROI_WEIGHTING.NAME", "constant"),
    ("SSOD.PHASE_INIT", "previous"),
    ("SSOD.SAMPLING", "balanced"),
    ("SSOD.TIERS.UNCERTAIN", "hard"),
    ("SSOD.TIERS.MAX_SPREAD", 0.5),
]
HARMLESS = [
    ("DATALOADER.NUM_WORKERS", 1),
    ("SOLVER.CHECKPOINT_PERIOD", 7),
    ("SOLVER.MAX_ITER", 9),
    ("TEST.EVAL_PERIOD", 3),
    ("DATASETS.TEST", ("other",)),
    ("SSOD.GUARD.BOX_RATE", "stop"),
    ("SSOD.NUM_PHASES", 5),
    ("SSOD.REPORT", False),
    ("SSOD.CHECK_LABELED", False),
    ("MODEL.DEVICE", "cpu"),
    ("MODEL.TIMM.WEIGHTS", "moved.pth"),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.5),
]


@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_what_changes_what_is_learned_is_refused(cfg, phase, key, value):
    with pytest.raises(ConfigError, match=f"phase {phase} .*{key} was .* and is") as info:
        check(cfg, phase, key, value)
    assert "\n" not in str(info.value)
    assert "SSOD.RESUME_ANYWAY" in str(info.value)


@pytest.mark.parametrize(("key", "value"), OF_PSEUDO_LABELS)
def test_what_is_of_pseudo_labels_may_change_after_phase_0(cfg, key, value):
    check(cfg, 0, key, value)
    with pytest.raises(ConfigError, match=key):
        check(bare_config(cfg.OUTPUT_DIR), 1, key, value)


def test_keys_of_a_rule_of_ones_own_for_labels_may_change_after_phase_0(cfg, monkeypatch):
    monkeypatch.setitem(LABEL_RULES, "mine", LabelRule(lambda cfg: len, "MINE"))
    cfg.MINE = CfgNode({"LEAST": 3})
    check(cfg, 0, "MINE.LEAST", 4)


def test_keys_that_a_rule_shares_with_the_detector_are_its_own(cfg, monkeypatch):
    monkeypatch.setitem(LABEL_RULES, "mine", LabelRule(lambda cfg: len, "MODEL.MINE"))
    cfg.MODEL.MINE = CfgNode({"DEPTH": 50})
    with pytest.raises(ConfigError, match=r"MODEL\.MINE\.DEPTH was 50 and is 101"):
        check(cfg, 0, "MODEL.MINE.DEPTH", 101)


OF_PHASE_0_TOO = [
    (("SSOD.AUG.STRONG", "pseudo"), ("SSOD.AUG.STRONG", "all")),
    (("SSOD.AUG.STRONG", "all"), ("SSOD.AUG.STRONG", "none")),
    ((), ("SSOD.ROI_WEIGHTING.APPLY_TO", "all")),
    (("SSOD.ROI_WEIGHTING.APPLY_TO", "all"), ("SSOD.ROI_WEIGHTING.NAME", "constant")),
    (("MODEL.META_ARCHITECTURE", "CSD"), ("SSOD.SAMPLING", "balanced")),
]


@pytest.mark.parametrize(("before", "after"), OF_PHASE_0_TOO)
def test_what_phase_0_learns_by_may_not_change(cfg, before, after):
    cfg.merge_from_list(list(before))
    with pytest.raises(ConfigError, match=after[0]):
        check(cfg, 0, *after)


def test_what_is_pseudo_labels_alone_may_change_among_these(cfg):
    cfg.merge_from_list(["SSOD.AUG.STRONG", "pseudo"])
    check(cfg, 0, "SSOD.AUG.STRONG", "none")


@pytest.mark.parametrize(("key", "value"), HARMLESS)
def test_what_changes_nothing_may_change(cfg, key, value):
    check(cfg, 1, key, value)


def test_labels_that_changed_are_refused(cfg):
    changed = copy.deepcopy(LABELED)
    changed[0]["annotations"][0]["bbox"][0] = 1.5
    with pytest.raises(ConfigError, match="trained on, or their objects, are others"):
        check(cfg, 0, labeled=changed)


def test_pictures_that_were_replaced_are_refused(cfg, tmp_path):
    labeled = [
        {**image, "file_name": str(tmp_path / f"{n}.png")} for n, image in enumerate(LABELED)
    ]
    folder = RunFolder(cfg.OUTPUT_DIR)

    def put(*lengths):
        for image, length in zip(labeled, lengths, strict=True):
            Path(image["file_name"]).write_bytes(bytes(length))
        forget_lengths()

    check_now = functools.partial(check_training, cfg, 1, labeled, folder)
    record_training(cfg, 1, labeled, folder)
    put(5, 7)
    check_now()  # they were not there, so that nothing is known
    record_training(cfg, 1, labeled, folder)
    put(5, 7)
    check_now()
    put(7, 5)
    with pytest.raises(
        ConfigError, match="labeled pictures were replaced by others of their names"
    ):
        check_now()
    Path(labeled[0]["file_name"]).unlink()
    forget_lengths()
    check_now()  # that one is gone is said elsewhere
    note = json.loads(folder.phase(1).trained_with.read_text())
    del note["labeled_bytes_sha256"]  # as of an earlier version
    folder.phase(1).trained_with.write_text(json.dumps(note))
    put(7, 5)
    check_now()


EMPTY = ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", False)


@pytest.mark.parametrize("corrected", [None, False, True])
def test_whether_images_without_objects_are_learned_from_counts_where_there_are_some(
    cfg, corrected
):
    check(cfg, 0, *EMPTY)  # the labeled images are the same
    cfg = bare_config(cfg.OUTPUT_DIR)
    if corrected is not None:
        image = {"id": 1, "file_name": "1.png", "corrected": corrected}
        content = {"images": [image], "categories": [], "annotations": []}
        write_json(RunFolder(cfg.OUTPUT_DIR).phase(1).pseudo_labels, content)
    if corrected:
        with pytest.raises(ConfigError, match=r"FILTER_EMPTY_ANNOTATIONS was True and is False"):
            check(cfg, 1, *EMPTY)
    else:
        check(cfg, 1, *EMPTY)


def test_labels_that_were_deleted_may_have_had_images_without_objects(cfg):
    model = RunFolder(cfg.OUTPUT_DIR).phase(1).model
    check(cfg, 1, *EMPTY)
    model.parent.mkdir(exist_ok=True)
    model.touch()
    cfg = bare_config(cfg.OUTPUT_DIR)
    with pytest.raises(ConfigError, match=r"FILTER_EMPTY_ANNOTATIONS was True and is False"):
        check(cfg, 1, *EMPTY)


def test_labels_that_were_moved_or_numbered_anew_are_the_same(cfg):
    moved = copy.deepcopy(LABELED)
    moved[0].update(file_name="D:\\copy\\1.png", image_id=77)
    check(cfg, 0, labeled=moved)


@pytest.fixture
def weights(tmp_path):
    """Weights under two names, and others."""
    paths = [tmp_path / name for name in ("a.pkl", "copy.pkl", "other.pkl")]
    for path in paths:
        path.write_bytes(b"other" if path.stem == "other" else b"same")
    return {path.stem: str(path) for path in paths}


ADDRESS = "detectron2://R-50.pkl"


@pytest.mark.parametrize("key", ["MODEL.WEIGHTS", "MODEL.TIMM.WEIGHTS"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        *[("a", "other"), ("", "a"), ("a", ""), ("", ADDRESS), (ADDRESS, "d://x")],
        *[("pretrained", ""), ("", "pretrained")],
    ],
)
def test_other_weights_to_start_from_are_refused(cfg, weights, key, before, after):
    before, after = (weights.get(name, name) for name in (before, after))
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", key, before])
    with pytest.raises(ConfigError, match=rf"weights that it started from are others \({key}\)"):
        check(cfg, 1, key, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *[("a", "copy"), ("a", "copy?matching_heuristics=True"), ("a", ADDRESS), ("a", "gone.pkl")],
        (ADDRESS, "https://dl.fbaipublicfiles.com/detectron2/R-50.pkl?matching_heuristics=True"),
    ],
)
def test_weights_that_may_be_the_same_are_taken(cfg, weights, before, after):
    """Those of an address may have been downloaded; a file that is gone is not needed again."""
    name, *options = after.split("?")
    cfg.MODEL.WEIGHTS = weights.get(before, before)
    check(cfg, 0, "MODEL.WEIGHTS", "?".join([weights.get(name, name), *options]))


def test_weights_that_no_backbone_reads_are_not_compared(cfg):
    check(cfg, 0, "MODEL.TIMM.WEIGHTS", "pretrained")


def test_weights_of_a_phase_that_starts_from_another_are_not_compared(cfg, weights):
    cfg.SSOD.PHASE_INIT, cfg.MODEL.WEIGHTS = "previous", weights["a"]
    check(cfg, 1, "MODEL.WEIGHTS", weights["other"])


def test_weights_are_known_though_the_file_is_gone_when_the_phase_goes_on(cfg, weights):
    folder = RunFolder(cfg.OUTPUT_DIR)
    for name in ("a.pkl", "gone.pkl"):
        cfg.MODEL.WEIGHTS = weights.get(name.split(".")[0], name)
        record_training(cfg, 0, LABELED, folder)
    cfg.MODEL.WEIGHTS = weights["other"]
    with pytest.raises(ConfigError, match=r"MODEL\.WEIGHTS"):
        check_training(cfg, 0, LABELED, folder)


def test_all_may_change_on_request(cfg):
    check(cfg, 1, "SEED", 5, "SSOD.RESUME_ANYWAY", True)


def test_a_phase_from_elsewhere_has_no_such_file(cfg):
    check_training(cfg, 0, LABELED, RunFolder(cfg.OUTPUT_DIR))


def test_a_key_of_another_version_is_not_compared(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR)
    record_training(cfg, 1, LABELED, folder)
    path = folder.phase(1).trained_with
    record = json.loads(path.read_text())
    del record["settings"]["SSOD.TIERS.UNCERTAIN"]
    record["settings"]["SSOD.OF_ANOTHER_VERSION"] = 1
    path.write_text(json.dumps(record))
    check_training(cfg, 1, LABELED, folder)


# What a phase learns by. A new key belongs here, or among those of no effect in trained_with.py.
LEARNED_BY = {
    "AUG": {"COLOR", "SCALE", "SHIFT", "PHOTOMETRIC", "EXPAND", "IOU_CROP", "STRONG"},
    "AVERAGE": {"DECAY", "RAMP"},
    "ROI_WEIGHTING": {
        *("NAME", "VARIANT", "APPLY_TO", "A", "B", "C_IOU", "C_SIM", "C_SOFT_SAMPLING", "CONSTANT"),
    },
    "SIMILARITY": {"EMBED_DIM", "IOF_THRESH", "LOSS_WEIGHT", "SAME_CLASS"},
    "TEACHER": {"ENABLED", "START", "BOX_LOSS"},
    "TIERS": {"IOU_THRESH", "MIN_SCORE", "CERTAIN", "ALL", "UNCERTAIN", "MAX_SPREAD"},
    "": {"PHASE_INIT", "SAMPLING", "LABELED_REPEAT", "OPTIMIZER"},
}
LEARNED_BY_MODEL = {"TIMM": {"NAME", "OUT_INDICES", "NORM"}}  # the same, of the sections of MODEL


def test_every_key_of_ours_is_compared_or_harmless_by_choice(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR)
    record_training(cfg, 1, LABELED, folder)
    noted = json.loads(folder.phase(1).trained_with.read_text())["settings"]
    expected = {
        f"SSOD.{section}.{key}" if section else f"SSOD.{key}"
        for section, keys in LEARNED_BY.items()
        for key in keys
    }
    expected |= {
        f"MODEL.{section}.{key}" for section, keys in LEARNED_BY_MODEL.items() for key in keys
    }
    ours = tuple(f"{section}." for section in ("SSOD", "MODEL.TIMM"))
    assert {key for key in noted if key.startswith(ours)} == expected


@pytest.mark.parametrize("trained", ["model_final.pth", "model_0000003.pth", None])
def test_pseudo_labels_may_change_until_something_is_learned_from_them(cfg, trained):
    folder = RunFolder(cfg.OUTPUT_DIR)
    files = folder.phase(1)
    files.folder.mkdir()
    files.pseudo_labels.write_text('{"images": [], "annotations": []}')
    record_training(cfg, 1, LABELED, folder)
    if trained is not None:
        (files.folder / trained).touch()
    check_training(cfg, 1, LABELED, folder)
    files.pseudo_labels.write_text('{"images": [],\n"annotations": []}')
    if trained is None:
        check_training(cfg, 1, LABELED, folder)
        return
    with pytest.raises(ConfigError, match=r"phase_1/pseudo_labels\.json has been changed since"):
        check_training(cfg, 1, LABELED, folder)
    cfg.SSOD.RESUME_ANYWAY = True
    check_training(cfg, 1, LABELED, folder)
    cfg.SSOD.RESUME_ANYWAY = False
    (files.folder / trained).unlink()  # as the message says
    check_training(cfg, 1, LABELED, folder)


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": [1.0, 2.0, 3.0, 4.3]},
        {"iscrowd": 1},
        {"bbox_mode": BoxMode.XYXY_ABS},
        {"category_id": 1},
    ],
)
def test_each_part_of_an_object_counts(cfg, change):
    changed = copy.deepcopy(LABELED)
    changed[0]["annotations"][0].update(change)
    with pytest.raises(ConfigError, match="trained on, or their objects, are others"):
        check(cfg, 0, labeled=changed)


def test_the_average_of_phase_0_may_not_change(cfg):
    folder, changed = RunFolder(cfg.OUTPUT_DIR), cfg.clone()
    changed.merge_from_list(["SSOD.AVERAGE.DECAY", 0.5])
    record_training(cfg, 0, [], folder)
    with pytest.raises(ConfigError, match=r"SSOD\.AVERAGE\.DECAY"):
        check_training(changed, 0, [], folder)


def test_a_teacher_of_a_phase_that_is_not_finished_does_not_count(tmp_path):
    cfg, folder = bare_config(tmp_path), RunFolder(tmp_path)
    cfg.SSOD.TEACHER.ENABLED = True
    record_training(cfg, 1, [], folder)
    assert not had_teacher(folder, 1)
    folder.phase(1).model.touch()
    assert had_teacher(folder, 1)
