"""What a run notes of itself."""

import pytest

from d2_ssod.artifacts import RunFolder, read_history, record_event, timed_event


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def test_events_come_back_in_their_order(folder):
    assert read_history(folder) == []
    record_event(folder, "started", torch="2.0")
    record_event(folder, "guard", text="classes vanish")
    first, second = read_history(folder)
    assert (first["event"], first["torch"]) == ("started", "2.0")
    assert (second["event"], second["text"]) == ("guard", "classes vanish")
    assert first["time"] <= second["time"]


def test_time_is_noted_of_what_has_ended(folder):
    with timed_event(folder, "predicted", phase=1):
        pass
    with pytest.raises(RuntimeError), timed_event(folder, "predicted", phase=2):
        raise RuntimeError("disk")
    (event,) = read_history(folder)
    assert event["phase"] == 1
    assert 0 <= event["seconds"] < 60


def test_a_line_that_was_cut_off_is_passed_over(folder):
    record_event(folder, "started")
    with open(folder.history, "a") as file:
        file.write('\n{"time": "2026-')
    record_event(folder, "evaluated")
    assert [event["event"] for event in read_history(folder)] == ["started", "evaluated"]
