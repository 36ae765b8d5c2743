"""What the loop still does, by what lies in the output folder."""

from pathlib import Path

import pytest
from runs import bare_config

from d2_ssod.artifacts import RunFolder, record_event
from d2_ssod.engine import multi_phase, starting
from d2_ssod.engine.pausing import pauses_before
from d2_ssod.engine.resuming import (
    as_it_was_trained,
    check_models_are_there,
    say_what_is_left_out,
    say_what_judges_otherwise,
)
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


def test_what_is_known_of_a_run_outlives_an_evaluation(cfg):
    truth = "SSOD.DIAGNOSTICS.UNLABELED_TRUTH"
    for known, now, expected in (("a", "", "a"), ("a", "b", "b"), ("", "b", "b")):
        made = bare_config(cfg.OUTPUT_DIR)
        made.merge_from_list([truth, known, "SOLVER.BASE_LR", 0.5])
        RunFolder(cfg.OUTPUT_DIR).config.write_text(made.dump())
        cfg.merge_from_list([truth, now, "SSOD.ENSEMBLE.IOU_THRESH", 0.375])
        found = as_it_was_trained(cfg)
        assert expected == found.SSOD.DIAGNOSTICS.UNLABELED_TRUTH
        assert (found.SOLVER.BASE_LR, found.SSOD.ENSEMBLE.IOU_THRESH) == (0.5, 0.375)
    RunFolder(cfg.OUTPUT_DIR).config.unlink()
    assert as_it_was_trained(cfg) is cfg


def done_by_training(cfg, monkeypatch, validate=lambda phase: None):
    """List what a run does that goes on with what there is."""
    done, folder = [], RunFolder(cfg.OUTPUT_DIR)

    def train(cfg, phase, *_):
        done.append(f"train {phase}")
        leave(cfg, model=[phase])
        if phase < cfg.SSOD.NUM_PHASES:
            label(cfg, phase)

    def label(cfg, phase, *_):
        if not folder.phase(phase + 1).pseudo_labels.exists():
            done.append(f"label {phase + 1}")
            leave(cfg, pseudo_labels=[phase + 1], manifest=[phase + 1])
            record_event(folder, "labeled", phase=phase + 1)

    for name in ("begin", "check_trained", "discard_other_validations", "validate_ensembles"):
        monkeypatch.setattr(multi_phase, name, lambda *_: None)
    for name in ("yardstick_of_phases", "keep_best", "predict_labeled"):
        monkeypatch.setattr(multi_phase, name, lambda *_: None)
    monkeypatch.setattr(multi_phase, "_train_phase", train)
    monkeypatch.setattr(multi_phase, "label_next_phase", label)
    validated = []

    def validate_phase(cfg, phase, judged_by):
        validate(phase)
        validated.append(phase)

    monkeypatch.setattr(multi_phase, "validate_phase", validate_phase)
    ended = multi_phase.train_phases(cfg, None)
    assert validated == list(range(cfg.SSOD.NUM_PHASES + 1))[: None if ended else len(validated)]
    return done


ALL = ["train 0", "label 1", "train 1", "label 2", "train 2"]


@pytest.mark.parametrize(
    ("models", "labels", "left"),
    [
        ([], [], ALL),
        ([0], [], ALL[1:]),
        ([0], [1], ALL[2:]),
        ([0, 1], [1], ALL[3:]),
        ([0, 1], [1, 2], ALL[4:]),
        ([0, 1, 2], [1, 2], []),
        ([0, 1, 2], [2], ["label 1"]),  # somebody has deleted them
        ([0, 1, 2], [1], ["label 2"]),
        ([], [1], [ALL[0], *ALL[2:]]),  # labels from elsewhere
    ],
)
def test_what_is_missing_is_made(cfg, monkeypatch, models, labels, left):
    leave(cfg, model=models, pseudo_labels=labels)
    assert done_by_training(cfg, monkeypatch) == left


def test_phase_0_alone_needs_no_labels(cfg, monkeypatch):
    cfg.SSOD.NUM_PHASES = 0
    assert done_by_training(cfg, monkeypatch) == ["train 0"]
    assert done_by_training(cfg, monkeypatch) == []


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


def test_labels_from_elsewhere_may_be_there_before_any_model(cfg):
    leave(cfg, pseudo_labels=[1])
    check_models_are_there(cfg)


def test_predictions_with_their_model_may_come_before_the_labels(cfg):
    leave(cfg, model=[0, 1], predictions=[0, 1], pseudo_labels=[1])
    check_models_are_there(cfg)


@pytest.mark.parametrize(
    ("init", "begun", "left"),
    [
        ("supervised", [], [0]),
        ("supervised", ["phase_0/model_0000004.pth"], []),
        ("pretrained", ["phase_0/model_final.pth", "phase_1/model_0000004.pth"], [2]),
    ],
)
def test_weights_are_looked_for_where_a_phase_is_to_begin_with_them(cfg, init, begun, left):
    cfg.SSOD.PHASE_INIT, cfg.SSOD.NUM_PHASES = init, 2
    for name in begun:
        path = RunFolder(cfg.OUTPUT_DIR).root / name
        path.parent.mkdir()
        path.touch()
    assert starting._phases_from_weights(cfg) == left


def test_a_run_may_end_with_new_labels_for_a_person_to_look_at(cfg, monkeypatch):
    cfg.SSOD.PSEUDO_LABEL.PAUSE = True
    for expected in (ALL[:2], ALL[2:4], ALL[4:], []):
        assert done_by_training(cfg, monkeypatch) == expected


def test_labels_are_shown_also_if_the_run_was_killed_before_it_paused(cfg, monkeypatch):
    def killed(phase):
        raise KeyboardInterrupt

    cfg.SSOD.PSEUDO_LABEL.PAUSE = True
    with pytest.raises(KeyboardInterrupt):
        done_by_training(cfg, monkeypatch, validate=killed)
    assert done_by_training(cfg, monkeypatch) == []
    assert done_by_training(cfg, monkeypatch) == ALL[2:4]


def test_labels_that_were_made_anew_are_to_be_looked_at_again(cfg):
    """Also if the run was killed before it noted that it had made them."""
    cfg.SSOD.PSEUDO_LABEL.PAUSE = True
    leave(cfg, model=[0], pseudo_labels=[1], manifest=[1])
    assert [pauses_before(cfg, 1) for _ in range(2)] == [True, False]
    RunFolder(cfg.OUTPUT_DIR).phase(1).manifest.write_text("another one")
    assert [pauses_before(cfg, 1) for _ in range(2)] == [True, False]


def test_the_same_labels_made_anew_are_to_be_looked_at_again(cfg):
    """Of kept predictions they come out the same; a person has deleted those that were spoiled."""
    cfg.SSOD.PSEUDO_LABEL.PAUSE = True
    leave(cfg, model=[0], pseudo_labels=[1], manifest=[1])
    for _ in range(2):
        record_event(RunFolder(cfg.OUTPUT_DIR), "labeled", phase=1)
        assert [pauses_before(cfg, 1) for _ in range(2)] == [True, False]


def test_labels_from_elsewhere_and_those_of_a_phase_that_has_begun_need_no_look(cfg, monkeypatch):
    cfg.SSOD.PSEUDO_LABEL.PAUSE = True
    folder = RunFolder(cfg.OUTPUT_DIR)
    leave(cfg, model=[0], pseudo_labels=[1, 2], manifest=[2], trained_with=[2])
    record_event(folder, "labeled", phase=2)
    (folder.phase(2).folder / "model_0000001.pth").touch()
    assert not pauses_before(cfg, 2)
    # What had learned from others may be gone, and only the note of that be left.
    (folder.phase(2).folder / "model_0000001.pth").unlink()
    assert done_by_training(cfg, monkeypatch) == ["train 1"]


def test_a_phase_that_the_config_has_no_more_is_said(cfg, caplog):
    cfg.SSOD.NUM_PHASES = 2
    leave(cfg, model=[0, 1, 2])
    say_what_is_left_out(cfg, resume=False)
    assert not caplog.records
    cfg.SSOD.NUM_PHASES = 1
    say_what_is_left_out(cfg, resume=False)
    assert "phase_2/model_final.pth is there, but SSOD.NUM_PHASES is 1" in caplog.text
    assert "set SSOD.NUM_PHASES to 2" in caplog.text


def test_that_there_is_nothing_to_resume_is_said(cfg, caplog):
    say_what_is_left_out(cfg, resume=True)
    assert f"there is no run in {cfg.OUTPUT_DIR} yet, so that a new one begins" in caplog.text
    caplog.clear()
    RunFolder(cfg.OUTPUT_DIR).config.touch()
    say_what_is_left_out(cfg, resume=True)
    assert not caplog.records


def test_settings_that_judge_otherwise_than_the_run_are_said(cfg, caplog):
    say_what_judges_otherwise(cfg)  # there is no run
    RunFolder(cfg.OUTPUT_DIR).config.write_text(cfg.dump())
    say_what_judges_otherwise(cfg)
    assert not caplog.records
    cfg.INPUT.MIN_SIZE_TEST, cfg.DATASETS.TEST, cfg.SOLVER.BASE_LR = 64, ("others",), 7.0
    cfg.MODEL.RPN.NMS_THRESH, cfg.SSOD.ENSEMBLE.IOU_THRESH = 0.11, 0.9
    say_what_judges_otherwise(cfg)
    said = caplog.text
    assert "INPUT.MIN_SIZE_TEST was 800 and is 64: the results are of that, but " in said
    assert all(f"{key} was" in said for key in ("DATASETS.TEST", "MODEL.RPN.NMS_THRESH"))
    assert "SSOD.ENSEMBLE.IOU_THRESH was" in said
    assert "BASE_LR" not in said
    caplog.clear()
    for gone in (
        "SSOD: {IMPORTS: [gone_module]}",
        "{VERSION: 2, MODEL: {META_ARCHITECTURE: Gone}}",
    ):
        RunFolder(cfg.OUTPUT_DIR).config.write_text(gone)
        say_what_judges_otherwise(cfg)
        (record,) = caplog.records
        assert "is not known: " in record.getMessage()
        caplog.clear()
