"""What the validation images say of each phase's model."""

import io
import json

import pytest
import torch
from runs import bare_config

from d2_ssod.artifacts import (
    RunFolder,
    best_phase,
    best_phases,
    load_validated_ensembles,
    save_ensemble_validation,
    save_validation,
)
from d2_ssod.data.datasets import DataSet
from d2_ssod.engine import validation
from d2_ssod.engine.validation import (
    discard_other_validations,
    keep_best,
    validate_ensembles,
    validate_phase,
    yardstick_of_phases,
)
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import Fusion

IMAGES = {name: [{"file_name": f"{name}.png"}] for name in ("val", "more")}


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """A run of three phases, whose models are numbers; what is found is in ``cfg.found``."""
    cfg = bare_config(tmp_path)
    cfg.SSOD.NUM_PHASES = 2
    cfg.DATASETS.VAL = ("val",)
    monkeypatch.setattr(validation, "read_data_set", lambda name: DataSet(IMAGES[name]))
    for phase in range(3):
        path = RunFolder(tmp_path).phase(phase).model
        path.parent.mkdir()
        torch.save({"model": {"phase": torch.tensor(phase)}}, path)
    return cfg


def with_results(monkeypatch, *aps):
    """Let the phases have these APs; returns the phases that are evaluated."""
    seen = []

    def evaluated(cfg, name, model):
        seen.append(model)
        return {"AP": aps[model], "AP50": 2 * aps[model]}

    monkeypatch.setattr(validation, "load_phase_model", lambda cfg, phase: phase)
    monkeypatch.setattr(validation, "validate", evaluated)
    return seen


def test_each_phase_is_validated_once(cfg, monkeypatch):
    seen = with_results(monkeypatch, 10.0, 12.0, 11.8)
    for phase in (0, 1, 2, 2, 0):
        validate_phase(cfg, phase, yardstick_of_phases(cfg))
    assert seen == [0, 1, 2]
    assert best_phase(RunFolder(cfg.OUTPUT_DIR), 2) == 1


def test_without_validation_images_nothing_is_evaluated(cfg, monkeypatch):
    seen = with_results(monkeypatch)
    cfg.DATASETS.VAL = ()
    validate_phase(cfg, 0, yardstick_of_phases(cfg))
    assert seen == []
    keep_best(cfg)
    assert not RunFolder(cfg.OUTPUT_DIR).best.exists()


@pytest.mark.parametrize("action", ["off", "warn", "stop"])
def test_a_worse_phase_is_said_or_ends_the_run(cfg, monkeypatch, caplog, action):
    cfg.SSOD.GUARD.VALIDATION = action
    with_results(monkeypatch, 19.6, 18.9, 18.5)
    validate_phase(cfg, 0, yardstick_of_phases(cfg))
    if action == "stop":
        with pytest.raises(ConfigError, match=r"Phase 1: AP 18.9 .*, 19.6 before.*VALIDATION"):
            validate_phase(cfg, 1, yardstick_of_phases(cfg))
        return
    validate_phase(cfg, 1, yardstick_of_phases(cfg))
    assert ("AP 18.9 on the validation images, 19.6 before" in caplog.text) == (action == "warn")
    validate_phase(cfg, 2, yardstick_of_phases(cfg))  # .4 below, within GUARD.VALIDATION_DROP
    assert "18.5 on the validation images, 18.9 before" not in caplog.text


@pytest.mark.parametrize("has_teacher", [False, True])
def test_what_has_been_done_already_is_not_advised(cfg, monkeypatch, caplog, has_teacher):
    cfg.SSOD.PHASE_INIT = "previous"
    folder = RunFolder(cfg.OUTPUT_DIR).phase(1)
    folder.folder.mkdir(parents=True, exist_ok=True)
    folder.model.touch()
    digests = {"labeled_sha256": "", "unlabeled_sha256": "", "weights": {}}
    content = {"settings": {"SSOD.TEACHER.ENABLED": has_teacher}, **digests}
    folder.trained_with.write_text(json.dumps(content))
    with_results(monkeypatch, 19.6, 18.5)
    validate_phase(cfg, 0, yardstick_of_phases(cfg))
    validate_phase(cfg, 1, yardstick_of_phases(cfg))
    assert "PHASE_INIT" not in caplog.text
    assert ("do without SSOD.TEACHER" in caplog.text) == has_teacher
    assert ("SELECTION" in caplog.text) != has_teacher


def test_what_would_change_nothing_is_not_advised(cfg, monkeypatch, caplog):
    """One model has no votes, and where all images are taken none are selected."""
    cfg.SSOD.NUM_PHASES = 1
    with_results(monkeypatch, 19.6, 18.5)
    for phase in (0, 1):
        validate_phase(cfg, phase, yardstick_of_phases(cfg))
    assert "train phase 0 longer" in caplog.text
    assert "SELECTION" not in caplog.text
    assert "MIN_VOTES" not in caplog.text


def test_votes_of_several_models_are_advised(cfg, monkeypatch, caplog):
    cfg.SSOD.NUM_PHASES = 2
    with_results(monkeypatch, 19.6, 19.6, 18.5)
    for phase in (0, 1, 2):
        validate_phase(cfg, phase, yardstick_of_phases(cfg))
    assert "SSOD.CONSENSUS.MIN_VOTES 1" in caplog.text


def test_the_best_model_is_handed_over(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR)
    for phase, ap in enumerate([20.0, 25.0]):
        save_validation(folder, phase, {"AP": ap})
    keep_best(cfg)
    assert not folder.best.exists()  # not before all are known
    save_validation(folder, 2, {"AP": 24.0})
    cfg.SSOD.KEEP_BEST = False
    keep_best(cfg)
    assert not folder.best.exists()
    cfg.SSOD.KEEP_BEST = True
    keep_best(cfg)
    assert folder.best.read_bytes() == folder.phase(1).model.read_bytes()


def cut(content):
    return content[: len(content) // 2]


def with_other_weights(content):
    weights = torch.ones(9).numpy().tobytes()
    assert weights in content
    return content.replace(weights, bytes(len(weights)))


def without_model(content):
    file = io.BytesIO()
    torch.save([1, 2], file)
    return file.getvalue()


def of_something_else(content):
    file = io.BytesIO()
    torch.save({"iteration": 5, "optimizer": {}}, file)
    return file.getvalue()


@pytest.mark.parametrize("damage", [cut, with_other_weights, without_model, of_something_else])
def test_a_damaged_model_does_not_take_the_place_of_a_copy_of_it(cfg, damage):
    folder = RunFolder(cfg.OUTPUT_DIR)
    torch.save({"model": {"weight": torch.ones(9)}}, folder.phase(1).model)
    for phase, ap in enumerate([20.0, 25.0, 24.0]):
        save_validation(folder, phase, {"AP": ap})
    keep_best(cfg)
    whole = folder.best.read_bytes()
    folder.phase(1).model.write_bytes(damage(whole))
    copy = r"model_best\.pth is a copy, if what log\.txt .* says is best .* is phase 1\)$"
    with pytest.raises(ConfigError, match=rf"phase_1/model_final\.pth: cannot be read as .*{copy}"):
        keep_best(cfg)
    assert folder.best.read_bytes() == whole
    folder.best.unlink()
    with pytest.raises(ConfigError, match=r"to have it made again$"):
        keep_best(cfg)


def test_a_phase_without_an_ap_is_not_the_best(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR)
    for phase, ap in enumerate([float("nan"), 3.0, 2.0]):
        save_validation(folder, phase, {"AP": ap})
    assert best_phase(folder, 2) is None


def with_ensembles(monkeypatch, aps):
    """Let the ensembles have these APs on the data sets; returns the evaluations."""
    seen = []

    def evaluate_rows(models, *, rows, name, fusion):
        seen.append((name, models, {row: list(of_row) for row, of_row in rows.items()}))
        return {row: {"AP": aps[row] + (name == "more")} for row in rows}

    monkeypatch.setattr(validation, "load_phase_model", lambda cfg, phase: phase)
    monkeypatch.setattr(validation, "judged_on", lambda cfg, name, images: {"name": name})
    monkeypatch.setattr(validation, "evaluate_rows", evaluate_rows)
    return seen


def test_ensembles_are_validated_once(cfg, monkeypatch):
    seen = with_ensembles(monkeypatch, {"1~N": 20.0, "0~N": 22.0})
    cfg.DATASETS.VAL = ("val", "more")
    for _ in range(2):
        validate_ensembles(cfg, yardstick_of_phases(cfg))
    rows = {"1~N": [1, 2], "0~N": [0, 1, 2]}
    assert seen == [("val", [0, 1, 2], rows), ("more", [0, 1, 2], rows)]
    folder = RunFolder(cfg.OUTPUT_DIR)
    assert load_validated_ensembles(folder, 2) == {"1~N": {"AP": 20.5}, "0~N": {"AP": 22.5}}
    assert load_validated_ensembles(folder, 3) is None  # gone on with: one phase more


def test_one_phase_has_one_ensemble_and_none_has_no_images(cfg, monkeypatch):
    seen = with_ensembles(monkeypatch, {"0~N": 22.0})
    cfg.SSOD.NUM_PHASES = 0
    validate_ensembles(cfg, yardstick_of_phases(cfg))
    cfg.SSOD.NUM_PHASES = 1
    validate_ensembles(cfg, yardstick_of_phases(cfg))
    assert seen == [("val", [0, 1], {"0~N": [0, 1]})]
    cfg.DATASETS.VAL, cfg.SSOD.NUM_PHASES = (), 2
    validate_ensembles(cfg, yardstick_of_phases(cfg))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("ensembles", "best"),
    [
        ({"1~N": 24.0, "0~N": 25.0}, [1]),  # no better than the phase
        ({"1~N": 25.1, "0~N": 25.0}, [1, 2]),
        ({"1~N": 25.1, "0~N": 25.2}, [0, 1, 2]),
        ({"1~N": float("nan"), "0~N": float("nan")}, [1]),
        (None, [1]),
    ],
)
def test_an_ensemble_may_be_the_best(cfg, caplog, ensembles, best):
    folder = RunFolder(cfg.OUTPUT_DIR)
    for phase, ap in enumerate([20.0, 25.0, 24.0]):
        save_validation(folder, phase, {"AP": ap})
    if ensembles is not None:
        found = {name: {"AP": ap} for name, ap in ensembles.items()}
        save_ensemble_validation(folder, 2, found)
    assert best_phases(folder, 2) == best
    with caplog.at_level("INFO"):
        keep_best(cfg)
    # That of the best phase.
    assert folder.best.read_bytes() == folder.phase(1).model.read_bytes()
    together = f"ensemble of phases {best[0]}~2 is better still"
    assert (together in caplog.text) == ("is better still" in caplog.text) == (len(best) > 1)


def validate_all(cfg):
    """Do as a resumed run does."""
    discard_other_validations(cfg, yardstick_of_phases(cfg))
    for phase in range(3):
        validate_phase(cfg, phase, yardstick_of_phases(cfg))
    validate_ensembles(cfg, yardstick_of_phases(cfg))


@pytest.mark.parametrize(
    ("key", "value", "phases", "ensembles"),
    [
        ("DATASETS.VAL", ("more",), [0, 1, 2], 1),
        ("INPUT.MIN_SIZE_TEST", 99, [0, 1, 2], 1),
        ("TEST.DETECTIONS_PER_IMAGE", 7, [0, 1, 2], 1),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.5, [0, 1, 2], 1),
        ("SSOD.ENSEMBLE.WEIGHTS", (1.0, 2.0, 3.0), [], 1),
        ("TEST.EVAL_PERIOD", 7, [], 0),
        ("DATASETS.VAL", (), [], 0),
    ],
)
def test_what_was_judged_otherwise_is_judged_anew(cfg, monkeypatch, key, value, phases, ensembles):
    of_ensembles = with_ensembles(monkeypatch, {"1~N": 20.0, "0~N": 22.0})
    seen = with_results(monkeypatch, 10.0, 12.0, 11.8)
    validate_all(cfg)
    seen.clear(), of_ensembles.clear()
    cfg.merge_from_list([key, value])
    validate_all(cfg)
    assert seen == phases
    assert len(of_ensembles) == ensembles


def test_metrics_that_not_all_sets_have_are_left_out(cfg, monkeypatch):
    """As COCO's sizes beside a data set of Pascal VOC."""
    found = {"val": {"AP": 10.0, "APs": 1.0}, "more": {"AP": 20.0}}
    monkeypatch.setattr(validation, "load_phase_model", lambda cfg, phase: phase)
    monkeypatch.setattr(validation, "validate", lambda cfg, name, model: found[name])
    cfg.DATASETS.VAL = ("val", "more")
    validate_phase(cfg, 0, yardstick_of_phases(cfg))
    content = json.loads(RunFolder(cfg.OUTPUT_DIR).phase(0).validation.read_text())
    assert content["metrics"] == {"AP": 15.0}


def test_a_phase_is_compared_with_the_one_before(cfg, monkeypatch, caplog):
    with_results(monkeypatch, 30.0, 10.0, 20.0)
    for phase in range(3):
        validate_phase(cfg, phase, yardstick_of_phases(cfg))
    assert "Phase 1: AP 10.0" in caplog.text
    assert "Phase 2: AP" not in caplog.text


def test_other_objects_on_the_same_images_are_another_yardstick(cfg, monkeypatch):
    before = yardstick_of_phases(cfg)
    box = {"bbox": [0, 0, 5, 5], "bbox_mode": 1, "category_id": 0}
    labeled = {"val": [{"file_name": "val.png", "annotations": [box]}]}
    monkeypatch.setattr(validation, "read_data_set", lambda name: DataSet(labeled[name]))
    assert yardstick_of_phases(cfg) != before
    of_objects = yardstick_of_phases(cfg)
    labeled["val"][0]["annotations"].append(box | {"iscrowd": 1})
    assert yardstick_of_phases(cfg) != of_objects, (
        "boxes on crowds count neither as right nor as wrong"
    )


def test_the_earlier_of_equal_phases_is_the_best(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR)
    for phase, ap in enumerate([20.0, 25.0, 25.0]):
        save_validation(folder, phase, {"AP": ap})
    assert best_phase(folder, 2) == 1


@pytest.mark.parametrize(
    "damage",
    [
        ("phase_1/validation.json", {"metrics": {"AP": "30"}}),
        ("phase_1/validation.json", {"metrics": [30]}),
        ("validation.json", {"num_phases": 2, "ensembles": {"0~N": None}}),
        ("validation.json", {"num_phases": 2, "ensembles": []}),
    ],
)
def test_damaged_results_are_named(cfg, damage):
    folder = RunFolder(cfg.OUTPUT_DIR)
    for phase in range(3):
        save_validation(folder, phase, {"AP": 30.0})
    save_ensemble_validation(folder, 2, {"0~N": {"AP": 34.0}})
    assert best_phases(folder, 2) == [0, 1, 2]
    name, content = damage
    (folder.root / name).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=f"{name}: .*delete the file"):
        best_phases(folder, 2)


def test_a_phase_is_not_compared_with_one_that_has_no_ap(cfg, monkeypatch, caplog):
    with_results(monkeypatch, float("nan"), 18.5, float("nan"))
    for phase in range(3):
        validate_phase(cfg, phase, yardstick_of_phases(cfg))
    assert "before it" not in caplog.text


def test_results_outlive_a_run_without_validation_images(cfg, monkeypatch):
    with_ensembles(monkeypatch, {"1~N": 20.0, "0~N": 22.0})
    with_results(monkeypatch, 10.0, 12.0, 11.8)
    validate_all(cfg)
    cfg.DATASETS.VAL = ()
    validate_all(cfg)
    folder = RunFolder(cfg.OUTPUT_DIR)
    assert best_phase(folder, 2) == 1
    assert load_validated_ensembles(folder, 2) is not None


def test_each_validation_set_is_of_the_yardstick(cfg):
    cfg.DATASETS.VAL = ("val",)
    first = yardstick_of_phases(cfg)
    cfg.DATASETS.VAL = ("val", "more")
    assert yardstick_of_phases(cfg) != first


def test_votes_are_advised_where_predictions_from_elsewhere_vote(cfg, monkeypatch, caplog):
    cfg.SSOD.CONSENSUS.EXTRA_SOURCES = ("predictions.json",)
    with_results(monkeypatch, 19.6, 18.5)
    for phase in (0, 1):
        validate_phase(cfg, phase, yardstick_of_phases(cfg))
    assert "SSOD.CONSENSUS.MIN_VOTES 1" in caplog.text
    assert "set SSOD.PHASE_INIT to previous" in caplog.text


def test_keys_that_have_the_advised_values_are_not_advised(cfg, monkeypatch, caplog):
    cfg.SSOD.SELECTION, cfg.SSOD.CONSENSUS.MIN_VOTES = "class_balanced", 1
    with_results(monkeypatch, 19.6, 18.5, 17.4)
    for phase in range(3):
        validate_phase(cfg, phase, yardstick_of_phases(cfg))
    assert "Phase 2: AP 17.4" in caplog.text
    assert "SELECTION" not in caplog.text
    assert "MIN_VOTES" not in caplog.text


def test_ensembles_are_fused_as_the_config_says(cfg, monkeypatch, caplog):
    with_ensembles(monkeypatch, {"1~N": 20.0, "0~N": 22.0})
    judge, fusions = validation.evaluate_rows, []

    def evaluate_rows(models, **keys):
        fusions.append(keys["fusion"])
        return judge(models, **keys)

    monkeypatch.setattr(validation, "evaluate_rows", evaluate_rows)
    cfg.SSOD.ENSEMBLE.WEIGHTS = (1.0, 2.0, 3.0)
    with caplog.at_level("INFO"):
        validate_ensembles(cfg, yardstick_of_phases(cfg))
    assert fusions == [Fusion.from_config(cfg)]
    assert "Ensemble 1~2 on the validation images: AP 20.0" in caplog.text
