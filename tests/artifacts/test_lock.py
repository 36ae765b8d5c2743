import contextlib
import fcntl
import os
import subprocess
import sys

import pytest

from d2_ssod.artifacts import lock, lock_folder, release_folder
from d2_ssod.errors import ConfigError

HOLD = """
import sys, time
from d2_ssod.artifacts import lock_folder
lock_folder(sys.argv[1])
print("taken", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has the folder."""
    command = [sys.executable, "-W", "ignore", "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "taken\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_of_another_process_is_refused_with_its_name(other, tmp_path):
    with pytest.raises(ConfigError, match=rf"run is in use by process {other.pid} on ") as caught:
        lock_folder(tmp_path / "run", patience=0)
    assert "\n" not in str(caught.value)


def test_a_folder_of_a_killed_process_is_free(other, tmp_path):
    other.kill()
    lock_folder(tmp_path / "run")
    release_folder(tmp_path / "run")


def test_a_folder_is_waited_for(other, tmp_path, monkeypatch):
    waits = []

    def wait(seconds):
        waits.append(seconds)
        other.kill()
        other.wait()

    monkeypatch.setattr("d2_ssod.artifacts.lock.time.sleep", wait)
    lock_folder(tmp_path / "run", patience=5)
    assert waits
    release_folder(tmp_path / "run")


def test_the_same_process_may_run_again(tmp_path):
    for _ in range(3):
        lock_folder(tmp_path / "a" / "run", patience=0)
    assert f"process {os.getpid()} on" in (tmp_path / "a" / "run" / "run.lock").read_text()
    release_folder(tmp_path / "a" / "run")
    release_folder(tmp_path / "a" / "run")


def test_a_file_system_without_locks_is_done_without(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock_folder(tmp_path / "run", patience=0)
    release_folder(tmp_path / "run")


def test_a_run_of_another_machine_is_waited_for_longer(other, tmp_path, monkeypatch, capsys):
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            other.kill()
            other.wait()

    monkeypatch.setattr(lock.time, "sleep", wait)
    monkeypatch.setattr(lock.platform, "node", lambda: "elsewhere")
    monkeypatch.setattr(lock, "_PATIENCE", 0.0)
    lock_folder(tmp_path / "run")
    assert len(waits) >= 3
    assert capsys.readouterr().err.count("its lock ends by itself: waiting up to 150 s") == 1


def test_a_folder_is_taken_where_files_have_no_lasting_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.os.path, "samestat", lambda *_: False)
    lock_folder(tmp_path / "run")
    release_folder(tmp_path / "run")


def test_a_folder_that_another_run_has_set_aside_meanwhile_is_not_shared(tmp_path, monkeypatch):
    """What waits for the old folder must not take the lock that went away with it."""
    folder = tmp_path / "run"
    folder.mkdir()
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:

        def hold(by):
            file = by.enter_context(open(folder / "run.lock", "a"))
            fcntl.flock(file, fcntl.LOCK_EX)

        def set_aside(seconds):
            monkeypatch.setattr(lock.time, "sleep", lambda seconds: None)
            folder.rename(tmp_path / "run.previous_1")
            folder.mkdir()
            hold(second)
            first.close()

        hold(first)
        monkeypatch.setattr(lock.time, "sleep", set_aside)
        with pytest.raises(ConfigError, match="is in use by"):
            lock_folder(folder, patience=0.5)
        second.close()
        lock_folder(folder)
        release_folder(folder)


def test_the_file_names_the_last_process_alone(tmp_path, monkeypatch):
    for host in ("first", "second"):
        monkeypatch.setattr(lock.platform, "node", lambda host=host: host)
        lock_folder(tmp_path, patience=0)
        release_folder(tmp_path)
    assert (tmp_path / "run.lock").read_text() == f"process {os.getpid()} on second\n"
