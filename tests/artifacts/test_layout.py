from pathlib import Path

import pytest

from d2_ssod.artifacts import PhaseFolder, RunFolder


def test_layout_is_the_contract():
    folder = RunFolder("/runs/mine")
    phase = folder.phase(2)
    found = {
        name: getattr(phase, name)
        for name, member in vars(PhaseFolder).items()
        if isinstance(member, property)
    }
    assert found == {
        "model": Path("/runs/mine/phase_2/model_final.pth"),
        "trained_with": Path("/runs/mine/phase_2/trained_with.json"),
        "taken_from": Path("/runs/mine/phase_2/taken_from.json"),
        "validation": Path("/runs/mine/phase_2/validation.json"),
        "predictions": Path("/runs/mine/phase_2/predictions.json"),
        "predictions_source": Path("/runs/mine/phase_2/predictions_source.json"),
        "partial_predictions": Path("/runs/mine/phase_2/partial_predictions"),
        "pseudo_labels": Path("/runs/mine/phase_2/pseudo_labels.json"),
        "manifest": Path("/runs/mine/phase_2/manifest.json"),
        "labeled_predictions": Path("/runs/mine/phase_2/labeled_predictions.json"),
        "metrics": Path("/runs/mine/phase_2/metrics.json"),
    }
    assert phase.folder == Path("/runs/mine/phase_2")
    assert folder.config == Path("/runs/mine/config.yaml")
    assert folder.classes == Path("/runs/mine/classes.json")
    assert folder.history == Path("/runs/mine/history.jsonl")
    assert folder.report == Path("/runs/mine/report.html")
    assert folder.review == Path("/runs/mine/review")
    assert folder.best == Path("/runs/mine/model_best.pth")
    assert folder.summary() == Path("/runs/mine/summary.json")


def test_layout_has_a_summary_of_each_further_data_set():
    names = {RunFolder("out").summary(name) for name in (None, "voc_2007_test", "voc_2012_val")}
    assert Path("out/summary_voc_2007_test.json") in names
    assert len(names) == 3


def test_layout_names_files_as_the_run_does_wherever_it_lies(tmp_path):
    """A folder that was moved has files that still speak of each other."""
    for root in (tmp_path, Path("relative")):
        folder = RunFolder(root)
        assert folder.relative(folder.phase(1).model) == "phase_1/model_final.pth"


def test_layout_names_no_file_outside_the_run(tmp_path):
    with pytest.raises(ValueError, match="other"):
        RunFolder(tmp_path / "run").relative(tmp_path / "other" / "model_final.pth")


def test_layout_creates_nothing(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert not folder.phase(0).model.exists()
    assert list(tmp_path.iterdir()) == []
