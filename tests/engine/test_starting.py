"""What there is of a run is gone on with if it was made as it would be made now."""

from types import SimpleNamespace

import pytest
from runs import CONFIG_FILE, bare_config

from d2_ssod.artifacts import RunFolder, record_training
from d2_ssod.engine import PhaseTrainer, starting
from d2_ssod.engine.configs.schedule import phase_config
from d2_ssod.errors import ConfigError

DATA = SimpleNamespace(labeled=[{"file_name": "a.png", "annotations": []}], unlabeled=[])


@pytest.fixture
def cfg(tmp_path):
    cfg = bare_config(tmp_path)
    cfg.merge_from_file(str(CONFIG_FILE))
    cfg.OUTPUT_DIR, cfg.SSOD.NUM_PHASES = str(tmp_path), 1
    cfg.SSOD.SCHEDULE.MAX_ITER = [6, 6]
    return cfg


def leave(cfg, phase, *, finished=True):
    """Leave what training a phase leaves."""
    files = RunFolder(cfg.OUTPUT_DIR).phase(phase)
    files.folder.mkdir(exist_ok=True)
    record_training(phase_config(cfg, phase, 1, 1), phase, DATA.labeled, RunFolder(cfg.OUTPUT_DIR))
    if finished:
        files.model.touch()


def test_what_was_the_last_phase_may_have_had_a_teacher(cfg):
    cfg.SSOD.TEACHER.ENABLED, cfg.SSOD.AVERAGE.DECAY = True, 0.99
    leave(cfg, 1)
    cfg.SSOD.NUM_PHASES, cfg.SSOD.SCHEDULE.MAX_ITER = 2, [6, 6, 6]
    starting.check_trained(cfg, 1, DATA)
    cfg.SSOD.TEACHER.ENABLED = False
    with pytest.raises(ConfigError, match=r"SSOD\.TEACHER\.ENABLED was True and is False"):
        starting.check_trained(cfg, 1, DATA)


@pytest.mark.parametrize("finished", [False, True])
def test_a_phase_without_a_teacher_that_is_to_have_one_is_not_gone_on_with(cfg, finished):
    leave(cfg, 1, finished=finished)
    cfg.SSOD.TEACHER.ENABLED = True
    with pytest.raises(ConfigError, match=r"SSOD\.TEACHER\.ENABLED was False and is True"):
        starting.check_trained(cfg, 1, DATA)
    cfg.SSOD.NUM_PHASES, cfg.SSOD.SCHEDULE.MAX_ITER = 2, [6, 6, 6]  # phase 2 has one
    starting.check_trained(cfg, 1, DATA)


@pytest.mark.parametrize("phase", [0, 1])
def test_each_phase_is_to_be_of_the_images_that_there_are(cfg, phase):
    leave(cfg, phase)
    first = RunFolder(cfg.OUTPUT_DIR).phase(0)
    first.folder.mkdir(parents=True, exist_ok=True)
    first.model.touch()
    starting.check_made(cfg, DATA)
    other = SimpleNamespace(labeled=[{"file_name": "b.png", "annotations": []}], unlabeled=[])
    with pytest.raises(ConfigError, match=rf"phase {phase}"):
        starting.check_made(cfg, other)


class OwnTrainer(PhaseTrainer):
    """Replaces what is not called, and what is called in training alone."""

    @classmethod
    def build_evaluator(cls, cfg, name):
        raise NotImplementedError

    @classmethod
    def test(cls, cfg, model):
        raise NotImplementedError

    @classmethod
    def build_model(cls, cfg):
        raise NotImplementedError


def test_methods_that_are_not_called_are_said(caplog):
    starting.warn_of_what_is_not_called(PhaseTrainer)
    assert caplog.text == ""
    starting.warn_of_what_is_not_called(OwnTrainer)
    assert "build_evaluator, test of OwnTrainer will not be called" in caplog.text
    assert "build_model of OwnTrainer is called in training alone" in caplog.text
