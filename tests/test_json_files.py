import errno
import json
import os
import stat

import numpy as np
import pytest

from d2_ssod import json_files
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import (
    atomic_open,
    read_json,
    read_json_lines,
    read_json_list,
    read_record,
    write_json,
    write_json_line,
)


@pytest.mark.parametrize(("mode", "content"), [("w", "new"), ("wb", b"new")])
def test_atomic_open_writes_beside_and_renames(tmp_path, mode, content):
    path = tmp_path / "x"
    path.write_text("old")
    with atomic_open(path, mode) as file:
        file.write(content)
        file.flush()
        assert path.read_text() == "old"
        assert len(list(tmp_path.iterdir())) == 2
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_open_leaves_the_file_as_it_was_after_an_error(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")

    def fail():
        with atomic_open(path) as file:
            file.write("half a")
            raise RuntimeError("full disk")

    with pytest.raises(RuntimeError, match="full disk"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_with_the_file(tmp_path):
    for number, name in ((errno.ENOSPC, str(tmp_path / "x")), (errno.ECONNRESET, None)):
        with pytest.raises(OSError, match=os.strerror(number)) as info, atomic_open(tmp_path / "x"):
            raise OSError(number, os.strerror(number))
        assert info.value.filename == name  # of what is read, it would be another
    with pytest.raises(FileNotFoundError) as info, atomic_open(tmp_path / "gone" / "x"):
        pass
    assert info.value.filename == str(tmp_path / "gone" / "x")  # not the temporary one


def test_json_lines_are_read_as_written(tmp_path):
    contents = [{"a": [1, 2.5]}, "text\nof two lines", np.arange(3), None]
    with open(tmp_path / "x.jsonl", "a", encoding="utf-8") as file:
        for content in contents:
            write_json_line(file, content)
    assert list(read_json_lines(tmp_path / "x.jsonl")) == [*contents[:2], [0, 1, 2], None]


def test_write_json_creates_folders_and_leaves_one_file(tmp_path):
    path = write_json(tmp_path / "a" / "b" / "c.json", {"x": 1})
    assert read_json(path) == {"x": 1}
    assert [p.name for p in path.parent.iterdir()] == ["c.json"]


def test_write_json_failing_keeps_the_old_file(tmp_path):
    path = write_json(tmp_path / "x.json", {"old": 1})
    with pytest.raises(TypeError, match="object"):
        write_json(path, {"new": [1, object()]})

    def broken():
        yield {"new": 1}
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_json(path, broken())
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_write_json_replaces_the_file_at_once(tmp_path):
    path = write_json(tmp_path / "x.json", {"old": 1})
    with open(path) as reader:  # someone who reads while the new file appears
        write_json(path, {"new": 1})
        assert json.load(reader) == {"old": 1}
    assert read_json(path) == {"new": 1}


def test_write_json_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        path = write_json(tmp_path / "x.json", {})
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_write_json_nan_becomes_null(tmp_path):
    content = {
        "a": float("nan"),
        "b": [1.5, float("inf"), np.float32("nan"), np.float64("-inf")],
        "c": [{"d": {"e": (np.nan, 2)}}],
        "f": np.array([1.0, np.nan]),
    }
    assert read_json(write_json(tmp_path / "x.json", content)) == {
        "a": None,
        "b": [1.5, None, None, None],
        "c": [{"d": {"e": [None, 2]}}],
        "f": [1.0, None],
    }


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"a": {}, "b": [], "c": None, "d": True, "e": "ä\n\"'"},
        [1, [2, 3], "x"],
        [{"a": [1, 2]}, {"b": {"c": [{"d": 1}]}}],
        {"a": {"b": {"c": [{"d": [1, {"e": 2}]}, {}]}}},
        3,
        "text",
    ],
)
def test_write_json_round_trip(tmp_path, content):
    assert json.loads(write_json(tmp_path / "x.json", content).read_text()) == content


def test_write_json_numpy_and_paths(tmp_path):
    content = {
        "int": np.int64(3),
        "float": np.float64(0.1),
        "bool": np.bool_(True),
        "array": np.arange(3),
        "path": tmp_path,
    }
    assert read_json(write_json(tmp_path / "x.json", content)) == {
        "int": 3,
        "float": 0.1,
        "bool": True,
        "array": [0, 1, 2],
        "path": str(tmp_path),
    }


def test_write_json_iterator_is_a_list_of_lines(tmp_path):
    path = write_json(tmp_path / "x.json", {"n": 2, "items": ({"i": i} for i in range(2))})
    assert path.read_text() == ('{\n  "n": 2,\n  "items": [\n    {"i": 0},\n    {"i": 1}\n  ]\n}\n')
    assert read_json(write_json(tmp_path / "y.json", iter(()))) == []


@pytest.mark.parametrize("text", ['{"a": 1', "", '{"a": 1}}'])
def test_read_json_invalid_names_the_file(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.json: not valid JSON"):
        read_json(path)


def test_read_json_takes_a_byte_order_mark(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_read_json_unreadable_names_the_file(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.json: not a UTF-8"):
        read_json(tmp_path / "binary.json")
    with pytest.raises(ConfigError, match=r"missing\.json: cannot be read \(No such file"):
        read_json(tmp_path / "missing.json")
    with pytest.raises(ConfigError, match="directory"):
        read_json(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "expected a mapping, found [1]"),
        ({}, "'name' is missing"),
        ({"name": 3}, "'name' is 3, expected a str"),
        ({"name": "a", "more": "x" * 500}, "'more' is 'xxx"),
    ],
)
def test_a_record_of_another_kind_is_refused_in_one_short_line(tmp_path, content, said):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as info:
        read_record(path, {"name": str}, {"more": int})
    assert said in str(info.value)
    assert len(str(info.value)) < 300
    assert "\n" not in str(info.value)


def test_a_record_may_lack_what_is_optional(tmp_path):
    path = tmp_path / "record.json"
    path.write_text('{"name": "a"}')
    assert read_record(path, {"name": str}, {"more": int}) == {"name": "a"}


ITEMS = [{"id": 1, "text": "],\n["}, [1, 2], {}, None, {"id": 5}]


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 6, 100])
@pytest.mark.parametrize("count", range(6))
def test_a_list_is_read_in_parts_that_are_lines(tmp_path, monkeypatch, lines, count):
    monkeypatch.setattr(json_files, "_LINES", lines)
    monkeypatch.setattr(json_files, "read_json", None)  # nothing is read whole
    path = write_json(tmp_path / "a.json", iter(ITEMS[:count]))
    parts = list(read_json_list(path, "a list", "delete it"))
    assert [item for part in parts for item in part] == ITEMS[:count]
    assert max(map(len, parts)) <= lines


@pytest.mark.parametrize("lines", [1, 2, 100])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ITEMS),
        json.dumps(ITEMS, indent=1),
        "[\n" + ",\n".join(map(json.dumps, ITEMS)) + "]",
        "[\n" + "\n,".join(map(json.dumps, ITEMS)) + "\n]\n",
        "\ufeff[\n" + ",\n".join(map(json.dumps, ITEMS)) + "\n]\n\n",
        "[\n" + ", ".join(map(json.dumps, ITEMS[:3])) + ",\n" + '\nnull, {"id":\n5}\n]',
    ],
)
def test_a_list_of_another_layout_is_the_same(tmp_path, monkeypatch, lines, text):
    monkeypatch.setattr(json_files, "_LINES", lines)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    parts = read_json_list(tmp_path / "a.json", "a list", "delete it")
    assert [item for part in parts for item in part] == ITEMS


@pytest.mark.parametrize("lines", [1, 2, 100])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[\n1,\n2\n", "not valid JSON"),
        ("[\n1,\n2,\n]\n", "not valid JSON"),
        ("[\n1,\n,\n2\n]\n", "not valid JSON"),
        ("[\n,\n1\n]\n", "not valid JSON"),
        ("[\n1\n2\n]\n", "not valid JSON"),
        ("[\n1,\n2\n]\n[]", "Extra data in line 5"),
        ("[\n1,\n2,\n]\n3]", "not valid JSON"),
        ("[\n1,\n\x00\n]", "not valid JSON"),
        ('{\n"a": 1\n}', "expected a list, found a dict; delete it"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_list_is_said_as_of_any_file(tmp_path, monkeypatch, lines, text, message):
    monkeypatch.setattr(json_files, "_LINES", lines)
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        list(read_json_list(tmp_path / "a.json", "a list", "delete it"))
