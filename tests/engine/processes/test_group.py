"""How a group of processes ends when one of them does."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import runs
from test_interruption import FAULTY, assert_none_left, assert_stopped, start, wait_for
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from d2_ssod.engine.processes import group
from d2_ssod.engine.processes.group import USER_ERROR, end_of_group, run_to_the_end
from d2_ssod.engine.processes.interruption import INTERRUPTED, PREEMPTED

PREDICTING = {
    "SSOD__NUM_PHASES": 1,
    "SSOD__SCHEDULE__MAX_ITER": [2, 2],
    "SSOD__INFERENCE_BATCH_SIZE": 1,
}
EVALUATING = {
    "SSOD__NUM_PHASES": 0,
    "SSOD__SCHEDULE__MAX_ITER": [2],
    "SSOD__INFERENCE_BATCH_SIZE": 1,
    "DATASETS__TEST": [runs.TEST],
}


def start_faulty(data, output, fault, monkeypatch, **keys):
    monkeypatch.setenv("FAULT", fault)
    return start(data, output, "--num-gpus", "2", launcher=(FAULTY,), **keys)


def start_machines(data, outputs, fault, monkeypatch, own=({}, {}), **keys):
    """Start a launcher for each of two machines, with a folder and keys of its own."""
    monkeypatch.setenv("FAULT", fault)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    flags = ("--num-gpus", "1", "--num-machines", "2", "--dist-url", url, "--machine-rank")
    return [
        start(data, output, *flags, str(rank), launcher=(FAULTY,), **{**keys, **own[rank]})
        for rank, output in enumerate(outputs)
    ]


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("raises", "error: rank 1: ValueError: rank 1 has enough (traceback in "),
        ("killed", "was killed (SIGKILL), as the system does where memory is short"),
    ],
)
def test_the_fault_of_a_rank_is_what_is_said(data, tmp_path, monkeypatch, fault, line):
    run = start_faulty(data, tmp_path, fault, monkeypatch)
    wait_for(tmp_path / "log.txt", "Starting training")
    begin = time.monotonic()
    stdout, stderr = run.communicate(timeout=90)
    assert time.monotonic() - begin < 60
    assert run.returncode == 1
    (error,) = [found for found in stderr.splitlines() if found.startswith("error: ")]
    assert error.startswith("error: rank 1")
    assert line in error
    assert "Traceback" not in stdout + stderr
    assert ("has\nenough" in runs.log_of(tmp_path)) == (fault == "raises")
    assert_none_left(run)


def test_a_users_error_that_a_rank_has_alone_is_said(data, tmp_path, monkeypatch):
    run = start_faulty(data, tmp_path, "has a user's error", monkeypatch)
    stdout, stderr = run.communicate(timeout=120)
    assert run.returncode == USER_ERROR
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert errors == ["error: rank 1: its disk is full; free some space"]
    assert "Traceback" not in stdout + stderr
    assert_none_left(run)


def test_a_second_signal_ends_ranks_that_wait_outside_of_python(data, tmp_path, monkeypatch):
    run = start_faulty(data, tmp_path, "waits outside of Python", monkeypatch)
    wait_for(tmp_path / "log.txt", "this rank waits")
    run.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(3)
    run.send_signal(signal.SIGTERM)
    assert_stopped(run, PREEMPTED, "SIGTERM")
    assert_none_left(run)


@pytest.mark.parametrize("fault", ["", "waits outside of Python"])
def test_the_processes_end_if_their_launcher_is_killed(data, tmp_path, monkeypatch, fault):
    long = {"SSOD__SCHEDULE__MAX_ITER": [1000]}
    run = start_faulty(data, tmp_path, fault, monkeypatch, **long)
    wait_for(tmp_path / "log.txt", "this rank waits" if fault else "iter: 9")
    run.kill()
    run.communicate(timeout=30)  # returns when all have closed the streams
    assert_none_left(run)
    is_said = "the launcher was killed" in runs.log_of(tmp_path)
    assert is_said == bool(fault)  # what trains has written a checkpoint long before
    assert len(list(tmp_path.glob("phase_0/model_0*.pth"))) == (0 if fault else 1)


def test_files_that_a_rank_has_not_seen_before_they_were_written_are_there(
    data, tmp_path, monkeypatch
):
    """A network file system remembers for a while that a file was missing."""
    keys = {
        **EVALUATING,
        **PREDICTING,
        "DATASETS__VAL": [runs.TEST],
        "SSOD__TEACHER__ENABLED": True,
        "SSOD__AVERAGE__DECAY": 0.9,
        "MODEL__PROPOSAL_GENERATOR__NAME": "UncertaintyRPN",
    }
    monkeypatch.setenv("FAULT", "remembers what was missing")
    for flags in ([], ["--resume"]):
        run = start(data, tmp_path, "--num-gpus", "2", *flags, launcher=(FAULTY,), **keys)
        _, stderr = run.communicate(timeout=120)
        assert run.returncode == 0, stderr
        shutil.rmtree(tmp_path / "phase_1")  # to be made anew


def test_a_signal_ends_prediction_where_one_rank_waits_for_another(data, tmp_path, monkeypatch):
    run = start_faulty(data, tmp_path, "is slow", monkeypatch, **PREDICTING)
    kept = tmp_path / "phase_0" / "partial_predictions" / "rank_1.jsonl"
    wait_for(kept, "image_id")
    run.send_signal(signal.SIGTERM)
    assert_stopped(run, PREEMPTED, "SIGTERM")
    assert kept.read_text().count("image_id") >= 1
    assert_none_left(run)


@pytest.mark.parametrize(
    ("fault", "rank", "keys", "activity"),
    [
        ("hangs before it trains", 0, {}, "checking pictures"),
        ("hangs", 1, PREDICTING, "Phase 0's model on the unlabeled images"),
        ("hangs", 1, EVALUATING, "evaluating"),
    ],
    ids=["checking", "predicting", "evaluating"],
)
def test_a_rank_that_hangs_is_named_by_one_that_waits(
    data, tmp_path, monkeypatch, fault, rank, keys, activity
):
    monkeypatch.setenv("SHORT_SILENCE", "1")
    run = start_faulty(data, tmp_path, fault, monkeypatch, **keys)
    stdout, stderr = run.communicate(timeout=90)
    assert run.returncode == 1
    (error,) = [found for found in stderr.splitlines() if found.startswith("error: ")]
    assert error.startswith(f"error: rank {1 - rank}: TimeoutError: rank {rank} on ")
    assert f" is alive, but has made no progress for 8 s, while rank {1 - rank} on " in error
    assert f" waits for it ({activity}); see what that machine is doing" in error
    assert "Traceback" not in stdout + stderr
    assert_none_left(run)


@pytest.mark.parametrize(
    ("rank", "words"),
    [
        (1, " has shown no sign of life for 5 s, while rank 0 on "),
        (
            0,
            ", whose machine keeps the store of the process group, has not answered for 5 s, while",
        ),
    ],
    ids=["another", "that of the store"],
)
def test_a_machine_that_hangs_is_named_by_the_other(data, tmp_path, monkeypatch, rank, words):
    monkeypatch.setenv("FAULTY_RANK", str(rank))
    monkeypatch.setenv("SHORT_SILENCE", "1")
    outputs = [tmp_path, tmp_path]
    machines = start_machines(data, outputs, "is slow", monkeypatch, **PREDICTING)
    wait_for(tmp_path / "phase_0" / "partial_predictions" / f"rank_{rank}.jsonl", "image_id")
    os.killpg(machines[rank].pid, signal.SIGSTOP)
    try:
        _, stderr = machines[1 - rank].communicate(timeout=90)
    finally:
        os.killpg(machines[rank].pid, signal.SIGKILL)
        machines[rank].communicate()
    assert machines[1 - rank].returncode == 1
    (error,) = [found for found in stderr.splitlines() if found.startswith("error: ")]
    assert error.startswith(f"error: rank {1 - rank}: TimeoutError: rank {rank} on ")
    assert words in error


# Without processes


def end(capsys, tmp_path, code, asked=None, name=None):
    error = ProcessExitedException("", 1, 77, code, name)
    with pytest.raises(SystemExit) as info:
        end_of_group(error, 8, asked, tmp_path / "log.txt")
    return info.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "asked", "expected", "name"),
    [
        (PREEMPTED, signal.SIGUSR1, PREEMPTED, "SIGUSR1"),
        (INTERRUPTED, signal.SIGINT, INTERRUPTED, "SIGINT"),
        (-signal.SIGUSR1, signal.SIGUSR1, PREEMPTED, "SIGUSR1"),  # before it had a handler
        (1, signal.SIGTERM, PREEMPTED, "SIGTERM"),  # it lost the others
        (PREEMPTED, None, PREEMPTED, "SIGTERM"),  # sent to a process alone
    ],
)
def test_a_group_that_was_asked_to_stop_has_stopped(capsys, tmp_path, code, asked, expected, name):
    found, line = end(capsys, tmp_path, code, asked)
    assert found == expected
    assert line == f"stopped by {name}: what was done is kept, go on with --resume\n"


def test_a_users_error_has_been_said(capsys, tmp_path):
    assert end(capsys, tmp_path, USER_ERROR, signal.SIGTERM) == (USER_ERROR, "")


def test_ranks_are_those_of_all_machines(capsys, tmp_path):
    line = end(capsys, tmp_path, -signal.SIGBUS, name="SIGBUS")[1]
    assert line == "error: rank 9 (process 77) ended by SIGBUS; go on with --resume\n"
    line = end(capsys, tmp_path, 3)[1]
    assert line == "error: rank 9 (process 77) ended with exit code 3; go on with --resume\n"


def test_a_traceback_is_shown_where_there_is_no_log_yet(capsys, tmp_path):
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nOops: no\n'
    with pytest.raises(SystemExit):
        end_of_group(ProcessRaisedException(trace, 0, 77), 0, None, tmp_path / "log.txt")
    assert capsys.readouterr().err == f"error: rank 0: Oops: no\n{trace}\n"


@pytest.mark.parametrize(
    ("end", "code", "line"),
    [
        (None, 0, ""),
        (SystemExit(), 0, ""),
        (SystemExit(PREEMPTED), PREEMPTED, ""),
        (SystemExit("no data"), 1, "no data\n"),
    ],
)
def test_a_process_of_a_group_ends_as_its_work_did(monkeypatch, capsys, end, code, line):
    def work():
        done.append("work")
        if end is not None:
            raise end

    done = []
    monkeypatch.setattr(group.atexit, "_run_exitfuncs", lambda: done.append("exit functions"))
    monkeypatch.setattr(group.os, "_exit", done.append)
    run_to_the_end(work)
    assert done == ["work", "exit functions", code]
    assert capsys.readouterr().err == line


def test_another_error_of_a_process_is_its_callers(monkeypatch):
    done = []
    monkeypatch.setattr(group.os, "_exit", pytest.fail)
    monkeypatch.setattr(group.atexit, "_run_exitfuncs", lambda: done.append("exit functions"))
    monkeypatch.setattr(group.atexit, "register", done.append)
    with pytest.raises(ZeroDivisionError):
        run_to_the_end(lambda: 1 / 0)
    assert done == ["exit functions", group._end_at_once]  # once it has been handed on


def test_streams_that_nobody_reads_do_not_change_the_exit_code():
    program = (
        "import sys; from d2_ssod.engine.processes.group import flush_streams\n"
        "sys.stdin.read(); print('said'); flush_streams(); sys.exit(75)"
    )
    reader, writer = os.pipe()
    command = [sys.executable, "-W", "ignore", "-c", program]
    streams = {"stdin": subprocess.PIPE, "stdout": writer, "stderr": writer}
    run = subprocess.Popen(command, **streams, env={**os.environ, "PYTHONUNBUFFERED": ""})
    os.close(writer)
    os.close(reader)
    run.communicate()
    assert run.returncode == 75
