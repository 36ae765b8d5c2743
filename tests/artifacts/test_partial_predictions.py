import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from d2_ssod.artifacts import (
    discard_partial_predictions,
    keep_partial_predictions,
    load_partial_predictions,
    partial_predictions,
)
from d2_ssod.structures import Detections

floats = st.floats(-1e6, 1e6, width=32)


@st.composite
def detections(draw):
    n = draw(st.integers(0, 4))
    return Detections(
        draw(arrays.arrays(np.float32, (n, 4), elements=floats)),
        draw(arrays.arrays(np.float32, n, elements=st.floats(0, 1, width=32))),
        draw(arrays.arrays(np.int64, n, elements=st.integers(0, 90))),
    )


@pytest.fixture
def as_rank(monkeypatch):
    return lambda rank: monkeypatch.setattr(partial_predictions.comm, "get_rank", lambda: rank)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for image_id, of_image in expected.items():
        for name in ("boxes", "scores", "classes"):
            a, b = getattr(found[image_id], name), getattr(of_image, name)
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def found(number, n=2):
    return Detections(
        np.full((n, 4), number / 3, np.float32),
        np.full(n, 0.1, np.float32),
        np.full(n, number, np.int64),
    )


def keep(folder, *batches):
    """One pass, up to its end or an interruption."""
    with keep_partial_predictions(folder) as keep_batch:
        for batch in batches:
            keep_batch(batch)


@given(st.lists(st.dictionaries(st.integers() | st.text(), detections(), max_size=3), max_size=4))
def test_what_was_kept_is_loaded_exactly(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("phase") / "partial_predictions"
    keep(folder, *batches)
    assert_same(
        load_partial_predictions(folder), {i: d for batch in batches for i, d in batch.items()}
    )


def test_a_batch_is_on_disk_at_once(tmp_path):
    with keep_partial_predictions(tmp_path) as keep_batch:
        keep_batch({1: found(1)})
        assert_same(load_partial_predictions(tmp_path), {1: found(1)})


def test_all_ranks_are_loaded(tmp_path, as_rank):
    for rank in range(3):
        as_rank(rank)
        keep(tmp_path, {rank: found(rank)})
    as_rank(0)
    assert_same(load_partial_predictions(tmp_path), {rank: found(rank) for rank in range(3)})


@pytest.mark.parametrize("cut", range(1, 130, 3))
def test_an_interruption_loses_the_line_it_cuts_off_alone(tmp_path, cut):
    keep(tmp_path, {1: found(1)}, {2: found(2)})
    path = tmp_path / "rank_0.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    keep(tmp_path, {3: found(3)})
    assert_same(load_partial_predictions(tmp_path), {1: found(1), 3: found(3)})


@pytest.mark.parametrize("line", ["\0\0\0", "7", "[1]", '{"image_id": 4}', "{", "\udcff"])
def test_lines_of_something_else_are_not_detections(tmp_path, line):
    keep(tmp_path, {1: found(1)})
    with open(tmp_path / "rank_0.jsonl", "ab") as file:
        file.write(b"\n" + line.encode("utf-8", "surrogateescape"))
    keep(tmp_path, {2: found(2)})
    assert_same(load_partial_predictions(tmp_path), {1: found(1), 2: found(2)})


def test_ids_may_be_of_numpy(tmp_path):
    keep(tmp_path, {np.int64(7): found(1)})
    assert_same(load_partial_predictions(tmp_path), {7: found(1)})


def test_nothing_is_left_of_what_is_discarded(tmp_path):
    discard_partial_predictions(tmp_path / "partial_predictions")
    keep(tmp_path / "partial_predictions", {1: found(1)})
    discard_partial_predictions(tmp_path / "partial_predictions")
    assert load_partial_predictions(tmp_path / "partial_predictions") == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "columns",
    [
        {"boxes": [[0, 0, 1]], "scores": [0.5], "classes": [1]},
        {"boxes": [[0, 0, 1, "x"]], "scores": [0.5], "classes": [1]},
        {"boxes": [[0, 0, 1, 1], [0]], "scores": [0.5, 0.5], "classes": [1, 1]},
    ],
)
def test_lines_of_other_boxes_are_not_detections(tmp_path, columns):
    keep(tmp_path, {1: found(1)})
    with open(tmp_path / "rank_0.jsonl", "a") as file:
        file.write("\n" + json.dumps({"image_id": 4, **columns}))
    assert_same(load_partial_predictions(tmp_path), {1: found(1)})
