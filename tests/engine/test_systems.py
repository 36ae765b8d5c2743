"""The systems of the paper's tables, each from end to end on a dozen images."""

import json

import pytest
import runs
import torch

CONFIGS = runs.ROOT / "configs"


def run(data, output, config, **keys):
    runs.run_here(runs.arguments(data, output, "--config-file", str(CONFIGS / config), **keys))
    return runs.summary_of(output)


def losses_of(output, phase=0):
    lines = (output / f"phase_{phase}" / "metrics.json").read_text().splitlines()
    return {name for line in lines for name in json.loads(line) if name.startswith("loss_")}


def test_ssd_goes_through_all_phases(data, tmp_path):
    summary = run(data, tmp_path, "digits_ssd.yaml")
    assert [phase["phase"] for phase in summary["phases"]] == [0, 1, 2]
    assert set(summary["ensembles"]) == {"1~N", "0~N"}
    assert losses_of(tmp_path, phase=1) == {"loss_cls", "loss_box_reg"}
    assert summary["phases"][1]["pseudo_boxes"] > 0
    assert "no RoIs" not in runs.log_of(tmp_path)


def test_weighting_of_rois_that_there_are_none_of_is_said(data, tmp_path):
    keys = {"SSOD__ROI_WEIGHTING__NAME": "uncertainty", "SSOD__NUM_PHASES": 0}
    run(data, tmp_path, "digits_ssd.yaml", SSOD__SCHEDULE__MAX_ITER=[2], **keys)
    assert "SSOD.ROI_WEIGHTING.NAME is 'uncertainty', but" in runs.log_of(tmp_path)
    assert "'SSD' has no RoIs to be weighed" in runs.log_of(tmp_path)


@pytest.mark.parametrize("system", ["csd", "isd"])
def test_consistency_is_trained_on_labeled_and_unlabeled_images(data, tmp_path, system):
    summary = run(data, tmp_path, f"digits_{system}.yaml", SSOD__SCHEDULE__MAX_ITER=[6])
    assert [phase["phase"] for phase in summary["phases"]] == [0]
    assert "12 labeled + 12 unlabeled images, 6 iterations" in runs.log_of(tmp_path)
    expected = {"loss_cls", "loss_box_reg", "loss_consistency_cls", "loss_consistency_box"}
    if system == "isd":
        expected |= {"loss_mixed_both", "loss_mixed_one"}
    assert losses_of(tmp_path) == expected


def test_proposal_learning_is_trained_on_labeled_and_unlabeled_images(data, tmp_path):
    run(data, tmp_path, "digits_proposal_learning.yaml", SSOD__SCHEDULE__MAX_ITER=[6])
    assert "12 labeled + 12 unlabeled images, 6 iterations" in runs.log_of(tmp_path)
    assert {"loss_location", "loss_contrast", "loss_rpn_cls"} < losses_of(tmp_path)


def test_consistency_without_unlabeled_images_ends_with_one_line(data, tmp_path, capfd):
    keys = {"DATASETS__UNLABELED": [], "SSOD__SCHEDULE__MAX_ITER": [6]}
    with pytest.raises(SystemExit):
        run(data, tmp_path, "digits_csd.yaml", **keys)
    assert "DATASETS.UNLABELED is empty" in capfd.readouterr().err


def test_consistency_is_resumed_bit_for_bit(data, tmp_path, monkeypatch):
    keys = {"SSOD__SCHEDULE__MAX_ITER": [6], "SOLVER__CHECKPOINT_PERIOD": 3}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(data, whole, "digits_isd.yaml", **keys)
    run(data, broken, "digits_isd.yaml", **keys)
    phase = broken / "phase_0"
    for name in ("model_final.pth", "trained_with.json"):
        (phase / name).unlink()
    (broken / "summary.json").unlink()
    (phase / "last_checkpoint").write_text("model_0000002.pth")
    argv = runs.arguments(
        data, broken, "--resume", "--config-file", str(CONFIGS / "digits_isd.yaml"), **keys
    )
    runs.run_here(argv)
    first, second = (
        torch.load(folder / "phase_0" / "model_final.pth")["model"] for folder in (whole, broken)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_ssd_learns_from_a_mean_teacher_on_labels_of_two_tiers(data, tmp_path):
    keys = {
        "SSOD__NUM_PHASES": 1,
        "SSOD__SCHEDULE__MAX_ITER": [24, 6],
        "SSOD__SCHEDULE__BASE_LR": [0.002, 0.001],
        "SSOD__LABELS": "tiers",
        "SSOD__TEACHER__ENABLED": True,
        "SSOD__AVERAGE__DECAY": 0.9,
        "SSOD__AUG__STRONG": "pseudo",
    }
    summary = run(data, tmp_path, "digits_ssd.yaml", **keys)
    assert [phase["phase"] for phase in summary["phases"]] == [0, 1]
    for phase, has_teacher in ((0, False), (1, True)):
        text = (tmp_path / f"phase_{phase}" / "metrics.json").read_text()
        assert ("teacher/all_boxes" in text) == has_teacher
    config = ("--config-file", str(CONFIGS / "digits_ssd.yaml"))
    runs.run_here(runs.arguments(data, tmp_path, "--resume", *config, **keys))  # it is the same
    assert runs.summary_of(tmp_path) == summary
