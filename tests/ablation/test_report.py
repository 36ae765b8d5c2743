import json

import pytest

from ablation import figures, report, rows
from ablation.real import rows as real_rows

METRICS = ("AP", "AP50", "AP/easy", "AP50/easy", "AP/difficult", "AP50/difficult")


@pytest.fixture
def results(tmp_path, monkeypatch):
    for module in (report, real_rows):
        monkeypatch.setattr(module, "RESULTS", tmp_path)

    def add(setting: str, row: str, seed: int, models: dict[str, float]) -> None:
        path = tmp_path / setting / row / f"seed_{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        metrics = {model: dict.fromkeys(METRICS, value) for model, value in models.items()}
        content = {"setting": setting, "row": row, "seed": seed, "metrics": metrics}
        content |= {"separation": {}, "mean_weight": None}
        provenance = {"seconds": 3600, "commit": "abc", "versions": {"torch": "2.0"}}
        path.write_text(json.dumps({**content, **provenance}))

    return add


def _row(text: str, title: str) -> list[str]:
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    (row,) = (cells for cells in table if cells[0] == title)
    return row


def test_report_without_results_says_so(results):
    text = report.report()
    assert "No run is finished yet" in text
    assert "no result yet" in report.control()


def test_report_gives_mean_and_standard_error(results):
    for seed, value in enumerate((70.0, 72.0, 74.0)):
        results("ordinary", "fs", seed, {"phase_0": value})
    # standard deviation 2, so standard error 2 / sqrt(3) = 1.15
    assert _row(report.report(), rows.SUPERVISED["fs"])[1:3] == ["3", "72.0 ± 1.2"]


def _differences() -> str:
    """The table of differences of the first setting."""
    text = report.report()
    return text[text.index("Differences") : text.index("How well")]


def test_differences_are_paired_by_seed(results):
    for seed, (base, gain) in enumerate(((70.0, 1.0), (80.0, 3.0))):
        results("ordinary", "none", seed, {"phase_2": base})
        results("ordinary", "paper", seed, {"phase_2": base + gain})
    results("ordinary", "paper", 2, {"phase_2": 10.0})  # has no partner
    assert _row(_differences(), rows.SEMI_SUPERVISED["paper"][0])[1] == "+2.0 ± 1.0 (2)"


def test_only_rows_that_share_phase_0_are_paired(results):
    for seed, own_start in enumerate((60.0, 60.0, 61.0)):
        results("ordinary", "none", seed, {"phase_0": 60.0, "phase_2": 70.0})
        results("ordinary", "paper", seed, {"phase_0": own_start, "phase_2": 71.0 + seed})
    assert _row(_differences(), rows.SEMI_SUPERVISED["paper"][0])[1] == "+1.5 ± 0.5 (2)"


def test_fs_plus_is_compared_between_means(results):
    for seed, (value, base) in enumerate(((70.0, 60.0), (76.0, 68.0))):
        results("ordinary", "paper", seed + 5, {"phase_2": value})
        results("ordinary", "fs_plus", seed, {"phase_0": base})
    # standard errors 3 and 4 make one of 5
    assert _row(_differences(), rows.SEMI_SUPERVISED["paper"][0])[3] == "+9.0 ± 5.0"


def test_rows_without_a_run_are_listed(results):
    results("ordinary", "none", 0, {"phase_2": 70.0})
    line = next(x for x in report.report().splitlines() if x.startswith("Not run yet:"))
    assert rows.SEMI_SUPERVISED["oracle"][0] in line
    assert rows.SEMI_SUPERVISED["none"][0] not in line


def test_control_is_the_mean_of_fs_plus(results):
    results("ordinary", "fs_plus", 0, {"phase_0": 75.0})
    results("ordinary", "fs_plus", 1, {"phase_0": 77.0})
    assert "76.0 ± 1.0 (2 seeds" in report.control()


def test_values_of_a_model_that_a_run_lacks_are_left_out(results):
    results("ordinary", "one_phase", 0, {"phase_1": 50.0})
    assert figures.values(report.load("ordinary", "one_phase"), "phase_2", "AP50") == []


def test_the_document_is_what_the_results_give():
    assert report.REPORT.read_text() == report.report(), "run `python -m ablation.report`"
