import json

import pytest

from ablation import one_stage, report
from ablation.one_stage import ROWS, OneStageRun


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    for module in (one_stage, report):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    return tmp_path


@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_as_long(row, tmp_path):
    keys = OneStageRun(row, 3).overrides(tmp_path)
    assert sum(keys["SSOD.SCHEDULE.MAX_ITER"]) == 3900
    assert len(keys["SSOD.SCHEDULE.MAX_ITER"]) == keys["SSOD.NUM_PHASES"] + 1
    assert keys["SEED"] == 3


def test_one_phase_starts_from_the_phase_0_of_two(tmp_path):
    start = OneStageRun("one_phase", 3).overrides(tmp_path)["SSOD.START.PHASE_0"]
    assert start == tmp_path / "one_stage" / "two_phase" / "seed_3" / "phase_0" / "model_final.pth"


def test_a_finished_run_leaves_what_the_table_needs(results, monkeypatch, tmp_path):
    run = OneStageRun("csd", 2)

    def train(config, overrides, folder):
        assert (config, overrides["SEED"]) == ("digits_csd.yaml", 2)
        folder.mkdir(parents=True)
        metrics = dict.fromkeys(one_stage.KEPT_METRICS, 41.23456)
        phases = [{"phase": 0, "metrics": metrics}]
        summary = {"dataset": "test", "phases": phases, "ensembles": {}}
        (folder / "summary.json").write_text(json.dumps(summary))
        return True

    monkeypatch.setattr(one_stage, "train", train)
    assert one_stage.do_all([run], 1, tmp_path / "output") == []
    kept = json.loads((results / "one_stage" / "csd" / "seed_2.json").read_text())
    assert kept["metrics"]["phase_0"]["AP50"] == 41.235
    assert (kept["row"], kept["seed"], kept["views"]) == ("csd", 2, 2)
    monkeypatch.setattr(one_stage, "train", None)  # would fail if called
    assert one_stage.do_all([run], 1, tmp_path / "output") == []


def test_one_phase_trains_the_phase_0_it_needs(results, monkeypatch, tmp_path):
    two, one = (OneStageRun(row, 2) for row in ("two_phase", "one_phase"))
    two.result.parent.mkdir(parents=True)
    two.result.write_text("{}")  # kept, but not its models
    done = []

    def do(run, output):
        done.append(run)
        run.phase_0(output).parent.mkdir(parents=True)
        run.phase_0(output).write_text("")
        return True

    monkeypatch.setattr(one_stage, "do", do)
    assert one_stage.do_all([one], 2, tmp_path / "output") == []
    assert done == [two, one]


def test_a_run_that_fails_leaves_no_result(results, monkeypatch, tmp_path):
    run = OneStageRun("isd", 2)
    monkeypatch.setattr(one_stage, "train", lambda *_: False)
    assert one_stage.do_all([run], 1, tmp_path / "output") == [run]
    assert not run.result.exists()


def finish(results, row, values):
    """Write results whose last model has these AP50, and phase 0 ten less."""
    folder = results / "one_stage" / row
    folder.mkdir(parents=True)
    for seed, value in enumerate(values, 1):
        last = ROWS[row].last
        metrics = {"phase_0": {"AP50": value - 10, "AP": 30.0}, last: {"AP50": value, "AP": 31.0}}
        content = {"seed": seed, "metrics": metrics}
        (folder / f"seed_{seed}.json").write_text(json.dumps(content))


def test_table_gives_gains_over_phase_0_and_over_training_as_long(results):
    finish(results, "two_phase", [60.0, 62.0])
    finish(results, "fs_plus", [55.0, 57.0])
    finish(results, "csd", [58.0, 58.0])
    lines = report._one_stage_table().splitlines()
    rows = {
        cells[0]: cells[1:]
        for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
        if len(cells) > 1
    }
    assert rows["SSD, FS: phase 0"][:3] == ["2", "1500 x 1", "51.0 ± 1.0"]
    assert rows["two phases"][1:6] == [
        "3900 x 1",
        "61.0 ± 1.0",
        "31.0 ± 0.0",
        "+10.0 ± 1.4",
        "+5.0 ± 1.4",
    ]
    assert rows["CSD"][1:6] == ["3900 x 2", "58.0 ± 0.0", "31.0 ± 0.0", "+7.0 ± 1.0", "+2.0 ± 1.0"]
    assert rows["FS+: labeled images only, as long"][5] == ""
    assert "ISD" not in rows
