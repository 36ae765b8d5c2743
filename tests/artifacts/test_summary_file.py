import pytest

from d2_ssod.artifacts import load_summary
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import write_json

_GOOD = {
    "dataset": "test",
    "phases": [{"phase": 0, "metrics": {"AP": 3, "AP50": None}}],
    "ensembles": {"0~N": {"AP": 4.5, "AP-cat": "?"}},
}


def test_what_is_a_number_is_read(tmp_path):
    found = load_summary(write_json(tmp_path / "summary.json", _GOOD))
    assert found.dataset == "test"
    assert found.phases == {0: {"AP": 3.0}}
    assert found.ensembles == {"0~N": {"AP": 4.5}}


@pytest.mark.parametrize(
    "damage",
    [
        {"phases": []},
        {"phases": [1]},
        {"phases": [{"phase": 0}]},
        {"phases": [{"phase": "one", "metrics": {}}]},
        {"phases": [{"phase": 0, "metrics": [3]}]},
        {"ensembles": {"0~N": 4.5}},
    ],
)
def test_what_is_damaged_is_named_and_may_be_made_again(tmp_path, damage):
    path = write_json(tmp_path / "summary.json", _GOOD | damage)
    with pytest.raises(ConfigError, match=r"summary\.json is damaged \(.*\); .*--eval-only"):
        load_summary(path)


def test_a_file_without_its_parts_is_named(tmp_path):
    path = write_json(tmp_path / "summary.json", {"phases": []})
    with pytest.raises(ConfigError, match=r"summary\.json: 'dataset' is missing"):
        load_summary(path)
