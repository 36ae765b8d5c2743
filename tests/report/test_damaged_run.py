"""Whatever is damaged in a run's folder, there is a report of the rest."""

import copy
import json
import os

import pytest
from fuzz import damages
from hypothesis import HealthCheck, given, settings
from made_run import make_run

from d2_ssod.artifacts import RunFolder, save_ensemble_validation, save_validation
from d2_ssod.json_files import read_json_lines
from d2_ssod.report import making
from d2_ssod.report.collect import collect
from d2_ssod.report.results import Results, verdict
from d2_ssod.report.steps import steps_of

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 20))
some = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
JSON = ("summary.json", "classes.json", "validation.json", "phase_2/manifest.json")
LINES = ("phase_1/metrics.json", "history.jsonl")


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    cfg = make_run(tmp_path_factory.mktemp("damaged"))
    folder = RunFolder(cfg.OUTPUT_DIR)
    for phase in range(3):
        save_validation(folder, phase, {"AP": 30.0 + phase})
    save_ensemble_validation(folder, 2, {"1~N": {"AP": 33.0}, "0~N": {"AP": 34.0}})
    return cfg


@pytest.mark.parametrize("name", JSON + LINES)
@some
@given(damage=damages())
def test_of_what_is_left_there_is_a_report(cfg, name, damage):
    path = RunFolder(cfg.OUTPUT_DIR).root / name
    whole = path.read_bytes()
    try:
        if name in LINES:
            lines = damage(list(read_json_lines(path)))
            lines = lines if isinstance(lines, list) else [lines]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        else:
            path.write_text(json.dumps(damage(copy.deepcopy(json.loads(whole)))))
        read_all(cfg)
    finally:
        path.write_bytes(whole)


def test_curves_of_a_phase_that_was_begun_anew_are_those_of_its_last_training(cfg):
    path = RunFolder(cfg.OUTPUT_DIR).phase(1).metrics
    whole = path.read_bytes()
    lines = [(0, 9.0), (20, 8.0), (40, 7.0), (20, 5.0), (40, 4.0), (40, None), (60, 3.0)]
    try:
        rows = ({"iteration": at} | ({"x": x} if x else {"y": 1.0}) for at, x in lines)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        curves = collect(cfg).phases[1].curves
    finally:
        path.write_bytes(whole)
    assert [row["iteration"] for row in curves] == [0, 20, 40, 60]
    assert [row["x"] for row in curves] == [9.0, 5.0, 4.0, 3.0]
    assert curves[2]["y"] == 1.0


def read_all(cfg):
    """What the page shows of these files; figures and pictures of it need no test of this kind."""
    run = collect(cfg)
    assert all(isinstance(sentence, str) for sentence in verdict(run, Results.of(run)))
    assert all(step.seconds >= 0 or step.seconds < 0 for step in steps_of(run.history))
    assert all(isinstance(text, str) for text in making.guards_of(run))
    assert len(making.starts_of(run)) <= len(run.history)
    assert all("\n" not in problem for problem in run.problems)
