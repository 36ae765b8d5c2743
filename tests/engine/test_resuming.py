"""Where the loop begins, from what lies in the output folder."""

import itertools
from pathlib import Path

import pytest
from runs import bare_config

from d2_ssod.artifacts import RunFolder
from d2_ssod.engine.resuming import check_models_are_there, first_unfinished_phase
from d2_ssod.errors import ConfigError


@pytest.fixture
def cfg(tmp_path):
    return bare_config(tmp_path)


def leave(cfg, **kinds):
    """Make empty files of these kinds (model, predictions, pseudo_labels) in these phases."""
    for kind, phases in kinds.items():
        for phase in phases:
            path = getattr(RunFolder(cfg.OUTPUT_DIR).phase(phase), kind)
            path.parent.mkdir(exist_ok=True)
            path.touch()


@pytest.mark.parametrize(
    ("models", "labels", "expected"),
    [
        ([], [], 0),
        ([0], [], 0),  # its labels are missing
        ([0], [1], 1),
        ([0, 1], [1], 1),
        ([0, 1], [1, 2], 2),
        ([0, 1, 2], [1, 2], 3),
        ([0, 1, 2], [2], 0),
        ([0, 1, 2], [1], 1),
    ],
)
def test_first_unfinished_phase_lacks_its_model_or_its_labels(cfg, models, labels, expected):
    leave(cfg, model=models, pseudo_labels=labels)
    assert first_unfinished_phase(cfg) == expected


def test_phase_0_alone_needs_no_labels(cfg):
    cfg.SSOD.NUM_PHASES = 0
    assert first_unfinished_phase(cfg) == 0
    leave(cfg, model=[0])
    assert first_unfinished_phase(cfg) == 1


@pytest.mark.parametrize("phase", [0, 1])
def test_predictions_without_their_model_are_named(cfg, phase):
    leave(cfg, predictions=[phase])
    with pytest.raises(ConfigError, match=rf"phase_{phase}/predictions\.json.*model_final\.pth"):
        check_models_are_there(cfg)


def test_all_that_a_missing_model_has_made_is_named(cfg):
    leave(cfg, model=[0, 2], predictions=[0, 1], pseudo_labels=[1, 2], manifest=[1, 2])
    with pytest.raises(ConfigError) as error:
        check_models_are_there(cfg)
    listed, said = str(error.value).split(": made with ")
    made = ["phase_1/predictions.json", "phase_2/pseudo_labels.json", "phase_2/model_final.pth"]
    assert listed.split(", ") == [str(RunFolder(cfg.OUTPUT_DIR).root / name) for name in made]
    assert "phase_1/model_final.pth, which does not exist: restore it; or delete" in said
    for path in listed.split(", "):
        Path(path).unlink()
    check_models_are_there(cfg)
    assert first_unfinished_phase(cfg) == 1


def test_labels_from_elsewhere_may_be_there_before_any_model(cfg):
    leave(cfg, pseudo_labels=[1])
    check_models_are_there(cfg)
    assert first_unfinished_phase(cfg) == 0


def test_predictions_with_their_model_may_come_before_the_labels(cfg):
    leave(cfg, model=[0, 1], predictions=[0, 1], pseudo_labels=[1])
    assert first_unfinished_phase(cfg) == 1


def test_checkpoint_of_an_older_version_is_said_not_to_be_used(cfg, tmp_path, caplog):
    leave(cfg, model=[0], pseudo_labels=[1])
    (tmp_path / "last_checkpoint").touch()
    assert first_unfinished_phase(cfg) == 1
    assert "older version" in caplog.text


def test_every_order_of_finishing_is_gone_on_with(cfg):
    """Files appear in the order of Algorithm 1; what is missing first decides."""
    order = [("model", 0), ("pseudo_labels", 1), ("model", 1), ("pseudo_labels", 2), ("model", 2)]
    found = []
    for kind, phase in itertools.chain([(None, None)], order):
        if kind:
            leave(cfg, **{kind: [phase]})
        found.append(first_unfinished_phase(cfg))
    assert found == [0, 0, 1, 1, 2, 3]
