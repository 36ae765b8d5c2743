"""What the validation images say of each phase's model."""

import json

import pytest
from runs import bare_config

from d2_ssod.artifacts import RunFolder, best_phase, save_validation
from d2_ssod.engine import validation
from d2_ssod.engine.validation import keep_best, validate_phase
from d2_ssod.errors import ConfigError


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """A run of three phases, whose models are letters; what is found is in ``cfg.found``."""
    cfg = bare_config(tmp_path)
    cfg.SSOD.NUM_PHASES = 2
    cfg.DATASETS.VAL = ("val",)
    for phase in range(3):
        path = RunFolder(tmp_path).phase(phase).model
        path.parent.mkdir()
        path.write_text("abc"[phase])
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
        validate_phase(cfg, phase)
    assert seen == [0, 1, 2]
    assert best_phase(RunFolder(cfg.OUTPUT_DIR), 2) == 1


def test_without_validation_images_nothing_is_evaluated(cfg, monkeypatch):
    seen = with_results(monkeypatch)
    cfg.DATASETS.VAL = ()
    validate_phase(cfg, 0)
    assert seen == []
    keep_best(cfg)
    assert not RunFolder(cfg.OUTPUT_DIR).best.exists()


@pytest.mark.parametrize("action", ["off", "warn", "stop"])
def test_a_worse_phase_is_said_or_ends_the_run(cfg, monkeypatch, caplog, action):
    cfg.SSOD.GUARD.VALIDATION = action
    with_results(monkeypatch, 19.6, 18.9, 18.5)
    validate_phase(cfg, 0)
    if action == "stop":
        with pytest.raises(ConfigError, match=r"Phase 1: AP 18.9 .*, 19.6 before.*VALIDATION"):
            validate_phase(cfg, 1)
        return
    validate_phase(cfg, 1)
    assert ("AP 18.9 on the validation images, 19.6 before" in caplog.text) == (action == "warn")
    validate_phase(cfg, 2)  # .4 below, within GUARD.VALIDATION_DROP
    assert "18.5 on the validation images, 18.9 before" not in caplog.text


@pytest.mark.parametrize("has_teacher", [False, True])
def test_what_has_been_done_already_is_not_advised(cfg, monkeypatch, caplog, has_teacher):
    cfg.SSOD.PHASE_INIT = "previous"
    folder = RunFolder(cfg.OUTPUT_DIR).phase(1)
    folder.folder.mkdir(parents=True, exist_ok=True)
    folder.model.touch()
    content = {"settings": {"SSOD.TEACHER.ENABLED": has_teacher}, "labeled_sha256": ""}
    folder.trained_with.write_text(json.dumps(content))
    with_results(monkeypatch, 19.6, 18.5)
    validate_phase(cfg, 0)
    validate_phase(cfg, 1)
    assert "PHASE_INIT" not in caplog.text
    assert ("train phase 0 longer" in caplog.text) == has_teacher
    assert ("MIN_VOTES" in caplog.text) != has_teacher


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
    assert folder.best.read_text() == "b"


def test_a_phase_without_an_ap_is_not_the_best(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR)
    for phase, ap in enumerate([float("nan"), 3.0, 2.0]):
        save_validation(folder, phase, {"AP": ap})
    assert best_phase(folder, 2) is None
