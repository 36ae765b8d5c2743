"""The paper's figures and tables, from end to end on a dozen images."""

import json
import shutil

import numpy as np
import pytest
import runs

from ablation.paper import __main__ as commands
from ablation.paper import heatmap, sweeps, tables
from d2_ssod.demo import digit_scenes
from d2_ssod.json_files import write_json

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def finished_run(data, data_root, tmp_path_factory):
    """A run of two phases whose models find something, and the truth about its images."""
    output = tmp_path_factory.mktemp("run") / "output"
    truth = {
        "NAME": "tiny_truth",
        "IMAGES": str(digit_scenes.image_folder(data_root, "unlabeled")),
        "JSON": str(digit_scenes.annotation_file(data_root, digit_scenes.HIDDEN_TRUTH)),
    }
    argv = runs.arguments([*data, truth], output, SSOD__SCHEDULE__MAX_ITER=[40, 10, 10])
    runs.run_here(argv)
    return output


def command(*arguments):
    commands.main([str(argument) for argument in arguments])


def result_of(folder, name):
    path = folder / "figures" / f"{name}.json"
    assert path.with_suffix(".png").read_bytes().startswith(PNG)
    return runs.read(path)


def test_noise_is_on_both_kinds_of_images(finished_run):
    command("noise", finished_run, "--truth", "tiny_truth")
    result = result_of(finished_run, "noise")
    test = [phase["metrics"]["AP50"] for phase in runs.summary_of(finished_run)["phases"]]
    assert [metrics["AP50"] for metrics in result["test"]] == test
    assert len(result["unlabeled"]) == 3
    assert all(0 <= metrics["AP50"] <= 100 for metrics in result["unlabeled"])


def test_what_was_computed_is_only_drawn_again(finished_run):
    command("noise", finished_run, "--truth", "tiny_truth")
    path = finished_run / "figures" / "noise.json"
    kept = {**runs.read(path), "truth": "kept"}
    write_json(path, kept)
    command("noise", finished_run, "--truth", "tiny_truth")
    assert runs.read(path) == kept


def test_truth_that_is_not_registered_ends_with_one_line(finished_run, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: --truth is 'nothing', .*name the one") as info:
        command("noise", _copy_without_figures(finished_run, tmp_path), "--truth", "nothing")
    assert "\n" not in str(info.value)


def _copy_without_figures(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("figures"))
    return copy


def test_difficulty_splits_the_test_images(finished_run):
    command("difficulty", finished_run)
    result = result_of(finished_run, "difficulty")
    assert sum(result["images"].values()) == runs.SIZES["test"]
    rows = ["phase 0", "phase 1", "phase 2", "ensemble 1~N", "ensemble 0~N"]
    assert list(result["AP50"]) == rows
    summary = runs.summary_of(finished_run)
    assert result["AP50"]["phase 2"]["all"] == summary["phases"][2]["metrics"]["AP50"]
    for part, count in result["images"].items():
        assert (result["AP50"]["phase 0"][part] is not None) == (count > 0)


def test_heatmap_weighs_the_background_of_images(finished_run):
    command("heatmap", finished_run, "--images", 2)
    result = result_of(finished_run, "heatmap")
    assert (result["phase"], len(result["classes"])) == (2, 5)
    assert 1 <= len(result["images"]) <= 2
    for image in result["images"]:
        assert len(image["weights"]) == len(image["boxes"]) > 0
        assert all(0 <= weight <= 1 for weight in image["weights"])
        assert len(image["labels"]["boxes"]) > 0
    means = [np.mean(image["weights"]) for image in result["images"]]
    assert means == sorted(means)


def test_weight_of_a_pixel_is_the_mean_of_the_rois_on_it():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 9, 3]])
    found = heatmap.weight_map((3, 4), boxes, np.array([0.2, 0.4]))
    expected = [[0.2, 0.2, 1, 1], [0.2, 0.3, 0.4, 0.4], [1, 0.4, 0.4, 0.4]]
    assert found.tolist() == pytest.approx(np.array(expected))


def test_heatmap_of_a_phase_that_there_is_not_ends_with_one_line(finished_run, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: --phase is 3; the run has phases 1\.\.2"):
        command("heatmap", _copy_without_figures(finished_run, tmp_path), "--phase", 3)


def test_a_run_that_has_not_ended_is_said(finished_run, tmp_path):
    copy = _copy_without_figures(finished_run, tmp_path)
    (copy / "summary.json").unlink()
    with pytest.raises(SystemExit, match=r"summary\.json: no such file, the run has not come"):
        command("difficulty", copy)


# --- Sweeps and tables, without training ----------------------------------------------------------


def trained(monkeypatch, module):
    """Let trainings leave a summary at once; what they were asked for, by folder."""
    asked = {}

    def train(config, overrides, folder, *, num_gpus=0):
        asked[folder.name] = {"config": config, "num_gpus": num_gpus, **overrides}
        phases = overrides.get("SSOD.NUM_PHASES", 2)
        metrics = [{"AP50": 50.0 + 2 * p + overrides.get("SEED", 0), "AP": 30.0} for p in range(9)]
        summary = {
            "dataset": "test",
            "phases": [{"phase": p, "metrics": metrics[p]} for p in range(phases + 1)],
            "ensembles": {"0~N": metrics[8], "1~N": metrics[7]} if phases else {},
        }
        write_json(folder / "summary.json", summary)
        return True

    monkeypatch.setattr(module, "train", train)
    return asked


def test_fractions_share_phase_0(monkeypatch, tmp_path):
    asked = trained(monkeypatch, sweeps)
    command("easy-fractions", "--seeds", 1, 3, "--output", tmp_path)
    folder = tmp_path / "digits_two_phase"
    result = result_of(folder, "easy_fractions")
    assert result["fraction"] == list(sweeps.FRACTIONS)
    assert result["first phase"] == [54.0] * 6  # the mean of 53 and 55
    assert result["last phase"] == [56.0] * 6
    assert asked["fraction_0.3_seed_3"]["SSOD.EASY_FRACTIONS"] == (0.3, 1.0)
    assert "SSOD.START.PHASE_0" not in asked["fraction_0.1_seed_3"]
    start = asked["fraction_0.3_seed_3"]["SSOD.START.PHASE_0"]
    assert start == folder / "fraction_0.1_seed_3" / "phase_0" / "model_final.pth"
    asked.clear()
    command("easy-fractions", "--seeds", 1, 3, "--output", tmp_path)
    assert asked == {}
    command("easy-fractions", "--seeds", 3, "--output", tmp_path)
    assert asked == {}  # all are there
    assert result_of(folder, "easy_fractions")["last phase"] == [57.0] * 6


def test_phases_have_the_schedule_of_the_last(monkeypatch, tmp_path):
    asked = trained(monkeypatch, sweeps)
    command("phases", "--config", "coco_35_two_phase.yaml", "--num-gpus", 8, "--output", tmp_path)
    four = asked["phases_4_seed_1"]
    assert four["SSOD.SCHEDULE.EPOCHS"] == [12, 8, 7, 7, 7]
    assert four["SSOD.SCHEDULE.STEP_EPOCHS"][-1] == [5, 6]
    assert asked["phases_1_seed_1"]["SSOD.SCHEDULE.LABELED_REPEAT"] == [1, 2]
    assert four["num_gpus"] == 8
    result = result_of(tmp_path / "coco_35_two_phase", "phases")
    assert result["phases"] == [1, 2, 3, 4]
    assert result["last phase"] == [53.0, 55.0, 57.0, 59.0]


def test_tables_on_the_embedded_data_are_trained_where_asked(monkeypatch, tmp_path, capsys):
    asked = trained(monkeypatch, tables)
    command("table", 3, "--data", "digits", "--output", tmp_path)
    assert asked == {}
    assert capsys.readouterr().out.count("not run") == 2 * 9
    command("table", 3, "--data", "digits", "--train", "--output", tmp_path)
    assert "not run" not in capsys.readouterr().out
    assert asked["voc_two_phase_baseline"]["SSOD.ROI_WEIGHTING.NAME"] == "none"
    assert asked["voc_ssd300"]["config"] == "digits_ssd.yaml"
    rows = json.loads((tmp_path / "table_3.json").read_text())["rows"]
    assert [row["AP50"] for row in rows[:5]] == [50, 52, 54, 54, 66]
    assert (tmp_path / "table_3.png").read_bytes().startswith(PNG)


def test_rows_of_tables_have_configs(tmp_path):
    for system in tables.SYSTEMS.values():
        for name in (system.voc, system.digits):
            assert (runs.ROOT / "configs" / f"{name}.yaml").exists()
    used = {system for table in tables.TABLES.values() for _, system, _, _ in table}
    assert used == set(tables.SYSTEMS)
