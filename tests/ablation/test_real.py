import json
from pathlib import Path

import pytest

from ablation import real
from ablation.digits_folder import lay_out
from ablation.real import BATCH, ROWS, RealRun, table


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(real, "RESULTS", tmp_path / "results")
    folder = tmp_path / "steel"
    folder.mkdir()
    (folder / "labeled.json").write_text(json.dumps({"categories": [{"id": 1}, {"id": 5}]}))
    return folder


def run_of(data, row, seed=1, split="val"):
    return RealRun(data, row, (300, 500), (0.003, 0.002), seed, split)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_the_same_image_passes(data, row):
    overrides = run_of(data, row).overrides()
    lengths = overrides["SSOD.SCHEDULE.MAX_ITER"]
    assert sum(lengths) == 800
    assert len(lengths) == len(overrides["SSOD.SCHEDULE.BASE_LR"]) == ROWS[row][1] + 1
    assert overrides["SOLVER.IMS_PER_BATCH"] == BATCH
    assert overrides["MODEL.ROI_HEADS.NUM_CLASSES"] == 2


def test_the_embedded_data_are_laid_out_with_settings_of_their_own(tmp_path):
    folder = tmp_path / "digits"
    lay_out(folder, sizes={"labeled": 3, "unlabeled": 2, "test": 1, "val": 1})
    overrides = run_of(folder, "teacher").overrides()
    assert overrides["INPUT.RANDOM_FLIP"] == "none"
    assert overrides["MODEL.ROI_HEADS.NUM_CLASSES"] == 5
    for entry in overrides["SSOD.REGISTER"]:
        names = {path.name for path in Path(entry["IMAGES"]).iterdir()}
        if "JSON" in entry:
            images = json.loads(Path(entry["JSON"]).read_text())["images"]
            assert {image["file_name"] for image in images} == names


def test_runs_that_differ_have_results_of_their_own(data):
    runs = [
        run_of(data, "fs_plus"),
        run_of(data, "teacher"),
        run_of(data, "teacher", seed=2),
        run_of(data, "teacher", split="test"),
        RealRun(data, "teacher", (300, 400), (0.003, 0.002), 1),
        RealRun(data, "teacher", (300, 500), (0.003, 0.003), 1),
    ]
    assert len({run.result for run in runs}) == len(runs)


def finish(run, ap50):
    run.result.parent.mkdir(parents=True, exist_ok=True)
    last = f"phase_{ROWS[run.row][1]}"
    metrics = {"phase_0": {"AP50": 40.0, "AP": 20.0}, last: {"AP50": ap50, "AP": ap50 / 2}}
    run.result.write_text(json.dumps({"metrics": metrics}))


def test_table_gives_means_and_errors_over_the_finished_seeds(data):
    runs = [run_of(data, "teacher", seed) for seed in (1, 2, 3)] + [run_of(data, "tiers")]
    finish(runs[0], 50.0)
    finish(runs[1], 54.0)
    (line,) = table(runs).splitlines()[2:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:] == ["2", "40.0 ± 0.0", "20.0 ± 0.0", "52.0 ± 2.0", "26.0 ± 1.0", ""]


def test_a_run_with_a_result_is_not_done_again(data, monkeypatch, tmp_path):
    run = run_of(data, "teacher")
    finish(run, 50.0)
    monkeypatch.setattr(real, "train", None)  # would fail if called
    assert real.do(run, tmp_path) is None
