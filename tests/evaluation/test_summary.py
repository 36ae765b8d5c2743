import json

import pytest

from d2_ssod.evaluation import PhaseResults, format_table, summarize
from d2_ssod.json_files import write_json

RESULTS = PhaseResults(
    phases=[
        {"AP": 31.26, "AP50": 60.0, "APl": float("nan"), "AP50/easy": 70.0, "AP50/difficult": 50.0},
        {"AP": 33.0, "AP50": 62.0, "APl": float("nan"), "AP50/easy": 71.0, "AP50/difficult": 51.5},
    ],
    ensembles={
        "1~N": {"AP": 33.0, "AP50": 62.0, "AP50/easy": 71.0, "AP50/difficult": 51.5},
        "0~N": {"AP": 34.94, "AP50": float("nan")},
    },
)
INFOS = [
    {"labeled_images": 100, "pseudo_images": 0, "pseudo_boxes": 0},
    {"labeled_images": 100, "pseudo_images": 200, "pseudo_boxes": 456},
]


def test_summary_is_the_contract(tmp_path):
    path = write_json(tmp_path / "summary.json", summarize("digits_test", INFOS, RESULTS))
    assert json.loads(path.read_text()) == {
        "dataset": "digits_test",
        "phases": [
            {
                "phase": 0,
                "labeled_images": 100,
                "pseudo_images": 0,
                "pseudo_boxes": 0,
                "metrics": {
                    "AP": 31.26,
                    "AP50": 60.0,
                    "APl": None,
                    "AP50/easy": 70.0,
                    "AP50/difficult": 50.0,
                },
            },
            {
                "phase": 1,
                "labeled_images": 100,
                "pseudo_images": 200,
                "pseudo_boxes": 456,
                "metrics": {
                    "AP": 33.0,
                    "AP50": 62.0,
                    "APl": None,
                    "AP50/easy": 71.0,
                    "AP50/difficult": 51.5,
                },
            },
        ],
        "ensembles": {
            "1~N": {"AP": 33.0, "AP50": 62.0, "AP50/easy": 71.0, "AP50/difficult": 51.5},
            "0~N": {"AP": 34.94, "AP50": None},
        },
    }


def test_summary_needs_every_phase():
    with pytest.raises(ValueError, match="each of the 2 phases, got 1"):
        summarize("digits_test", INFOS[:1], RESULTS)


def test_table_has_a_row_for_each_phase_and_ensemble_of_several(tmp_path):
    summary = summarize("digits_test", INFOS, RESULTS)
    table = format_table(summary)
    header, _, *rows = table.splitlines()
    assert header.split() == [
        *("digits_test", "AP", "AP50", "AP50/easy", "AP50/difficult"),
        *("labeled", "pseudo-labeled", "boxes"),
    ]
    assert [row.split() for row in rows] == [
        ["phase", "0", "31.3", "60.0", "70.0", "50.0", "100", "0", "0"],
        ["phase", "1", "33.0", "62.0", "71.0", "51.5", "100", "200", "456"],
        ["ensemble", "0~1", "34.9", "-", "-", "-"],
    ]
    path = write_json(tmp_path / "summary.json", summary)  # NaN is null there
    assert format_table(json.loads(path.read_text())) == table


def test_table_leaves_out_columns_that_do_not_exist():
    results = PhaseResults(phases=[{"AP": 1.0, "AP50": 2.0, "AP-cat": 3.0}], ensembles={})
    table = format_table(summarize("voc", INFOS[:1], results))
    assert "easy" not in table
    assert "cat" not in table
