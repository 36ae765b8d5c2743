import json

import pytest

from ablation import rows, run
from ablation.rows import Run
from ablation.waves import missing

FS = Run("ordinary", "fs", 0)
PAPER = Run("ordinary", "paper", 0)
METRICS = {"phase_0": dict.fromkeys(rows.KEPT_METRICS, 70.0)}


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


def _finish(finished: Run, output=None) -> None:
    """Leave a result, and in ``output`` what a trained phase 0 leaves."""
    finished.result.parent.mkdir(parents=True, exist_ok=True)
    finished.result.write_text(json.dumps({"metrics": METRICS}))
    if output:
        folder = run.run_folder(finished, output) / "phase_0"
        folder.mkdir(parents=True)
        (folder / "predictions.json").write_text("[]")


def to_do(output):
    return missing([FS, PAPER], lambda each: run._is_usable(each, output))


def test_nothing_is_done_twice(output):
    _finish(FS, output)
    assert to_do(output) == [PAPER]


def test_phase_0_is_trained_again_where_only_its_result_is_left(output):
    _finish(FS)
    assert to_do(output) == [FS, PAPER]


def test_phase_0_is_not_trained_again_for_finished_runs(output):
    _finish(FS)
    _finish(PAPER)
    assert to_do(output) == []


def test_runs_wait_for_the_files_of_phase_0(output, monkeypatch):
    _finish(FS)
    order = []

    def train(todo, where):
        if todo == PAPER:
            assert (run.run_folder(FS, where) / "phase_0" / "predictions.json").exists()
        order.append(todo)
        _finish(todo, where)
        return True

    monkeypatch.setattr(run, "_in_own_process", train)
    assert run.do_all([PAPER, FS], 2, output) == []
    assert order == [FS, PAPER]


def test_runs_whose_phase_0_failed_are_not_tried(output, monkeypatch):
    monkeypatch.setattr(run, "_in_own_process", lambda todo, where: False)
    assert run.do_all([FS, PAPER], 2, output) == [FS, PAPER]


@pytest.mark.parametrize(("value", "said"), [(70.0, "the same result"), (71.0, "WARNING")])
def test_a_run_done_again_keeps_its_result_and_says_whether_it_came_out_alike(
    output, monkeypatch, capsys, value, said
):
    _finish(FS)
    metrics = {"phase_0": dict.fromkeys(rows.KEPT_METRICS, value)}
    monkeypatch.setattr(run, "_supervised", lambda todo, where: {"metrics": metrics})
    run.do(FS, output)
    assert said in capsys.readouterr().out
    assert json.loads(FS.result.read_text()) == {"metrics": METRICS}
