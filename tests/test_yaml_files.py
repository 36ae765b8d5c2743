import pytest

from d2_ssod.errors import ConfigError
from d2_ssod.yaml_files import check_repeated_keys


def test_a_key_that_stands_twice_is_named_with_its_lines(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("SOLVER:\n  BASE_LR: 1\nSEED: 1\nSOLVER:\n  STEPS: (1,)\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: SOLVER stands twice, in lines 1 and 4, "):
        check_repeated_keys(path)


def test_both_may_stand_in_one_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("REGISTER:\n  - {NAME: a, JSON: b, JSON: c}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: JSON stands twice, in lines 2 and 2, "):
        check_repeated_keys(path)


@pytest.mark.parametrize("base", ["b.yaml", "[b.yaml]"])
def test_keys_of_lower_levels_and_of_bases_count(tmp_path, base):
    (tmp_path / "b.yaml").write_text("A:\n  - B: 1\n    B: 2\n")
    (tmp_path / "a.yaml").write_text(f"_BASE_: {base}\nA: 1\n")
    with pytest.raises(ConfigError, match=r"b\.yaml: B stands twice, in lines 2 and 3"):
        check_repeated_keys(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "A: 1\nB: {A: 1}\nC: [{A: 1}, {A: 1}]",
        "A: &a {B: 1}\nC: *a",
        "A: &a {B: 1}\nC: &c {D: 1}\nE:\n  <<: *a\n  <<: *c",
        "",
        "[1",
        "A: !!python/tuple [1]",
    ],
)
def test_other_files_are_left_to_their_readers(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    check_repeated_keys(tmp_path / "a.yaml")
    check_repeated_keys(tmp_path / "none.yaml")
