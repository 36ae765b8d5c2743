"""Signals that ask a run to end."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from unittest.mock import Mock

import pytest
import runs
import torch

from d2_ssod.artifacts import RunFolder, read_history
from d2_ssod.engine.processes import interruption
from d2_ssod.engine.processes.interruption import (
    INTERRUPTED,
    PREEMPTED,
    Stopped,
    handled_signals,
)
from d2_ssod.engine.training import phase_trainer

FAULTY = str(runs.ROOT / "tests" / "helpers" / "faulty_run.py")
KEYS = {
    "SSOD__NUM_PHASES": 0,
    "SSOD__SCHEDULE__MAX_ITER": [400],
    "SOLVER__CHECKPOINT_PERIOD": 1000,
    "DATASETS__TEST": [],
}


def start(data, output, *flags, launcher=("train_net.py",), **keys):
    argv = runs.arguments(data, output, *flags, **{**KEYS, **keys})
    return subprocess.Popen(
        [sys.executable, *launcher, *argv],
        cwd=runs.ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, words, seconds=120):
    """Wait until the run's log has these words."""
    end = time.monotonic() + seconds
    while not (path.exists() and words in path.read_text()):
        assert time.monotonic() < end, path
        time.sleep(0.1)


def iteration_of(output):
    (checkpoint,) = (output / "phase_0").glob("model_0*.pth")
    return torch.load(checkpoint, weights_only=True)["iteration"]


def assert_stopped(run, code, name):
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == code, stderr
    assert f"stopped by {name}: what was done is kept, go on with --resume" in stderr
    assert "Traceback" not in stderr
    return stderr


def assert_same_models(*outputs):
    """Bit for bit, weights and statistics."""
    one, other = (
        torch.load(output / "phase_0" / "model_final.pth", weights_only=True)["model"]
        for output in outputs
    )
    assert all(torch.equal(one[name], value) for name, value in other.items())


def assert_none_left(run, seconds=20):
    """Of the session in which the run was started; a loader's worker misses its process soon."""
    end = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.killpg(run.pid, 0)
            assert time.monotonic() < end
            time.sleep(0.2)


@pytest.fixture
def no_nohup():
    """Tests may be started by it, which their processes would respect."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGHUP, PREEMPTED), (signal.SIGINT, INTERRUPTED)]
)
def test_a_stopped_run_ends_bit_for_bit_as_one_that_was_not(
    data, tmp_path, number, code, one_thread, no_nohup
):
    length = {**KEYS, "SSOD__SCHEDULE__MAX_ITER": [50]}
    run = start(data, tmp_path / "stopped", **length)
    wait_for(tmp_path / "stopped" / "log.txt", "iter: 19")
    run.send_signal(number)
    stderr = assert_stopped(run, code, number.name)
    assert f"{number.name}: writing a checkpoint after this iteration" in stderr
    assert 19 <= iteration_of(tmp_path / "stopped") < 49
    assert not (tmp_path / "stopped" / "phase_0" / "model_final.pth").exists()
    runs.run_here(runs.arguments(data, tmp_path / "stopped", "--resume", **length))
    history = read_history(RunFolder(tmp_path / "stopped"))
    assert sum(event["iterations"] for event in history if event["event"] == "trained") == 50
    runs.run_here(runs.arguments(data, tmp_path / "whole", **length))
    assert_same_models(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize(
    ("flags", "number", "code"),
    [
        ((), signal.SIGTERM, PREEMPTED),
        (("--num-gpus", "2"), signal.SIGINT, INTERRUPTED),
        (("--num-gpus", "2"), signal.SIGHUP, PREEMPTED),
    ],
)
def test_a_signal_to_all_processes_leaves_the_loaders_workers_alive(
    data, tmp_path, flags, number, code, no_nohup
):
    """As a scheduler or a terminal sends it. Training would die of their death, unsaved."""
    run = start(data, tmp_path, *flags, DATALOADER__NUM_WORKERS=1)
    wait_for(tmp_path / "log.txt", "iter: 19")
    os.killpg(run.pid, number)
    assert_stopped(run, code, number.name)
    assert iteration_of(tmp_path) >= 19
    assert_none_left(run)


def test_processes_of_a_launcher_stop_after_the_same_iteration(data, tmp_path):
    """Only the launcher has the signal; the time-out of a minute would tell a rank that waits."""
    length = {"SSOD__SCHEDULE__MAX_ITER": [60]}
    run = start(data, tmp_path / "stopped", "--num-gpus", "2", **length)
    wait_for(tmp_path / "stopped" / "log.txt", "iter: 19")
    run.send_signal(signal.SIGTERM)
    assert_stopped(run, PREEMPTED, "SIGTERM")
    assert (iteration_of(tmp_path / "stopped") + 1) % 10 == 0
    for name, flags in [("stopped", ["--resume"]), ("whole", [])]:
        run = start(data, tmp_path / name, "--num-gpus", "2", *flags, **length)
        stderr = run.communicate(timeout=120)[1]
        assert run.returncode == 0, stderr
    assert_same_models(tmp_path / "stopped", tmp_path / "whole")


def test_processes_of_torchrun_stop_with_a_checkpoint(data, tmp_path):
    """Its exit code is its own, and so is the traceback that it prints."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    port = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    run = start(data, tmp_path, launcher=(*torchrun, *port, "train_net.py"))
    wait_for(tmp_path / "log.txt", "iter: 19")
    run.send_signal(signal.SIGTERM)
    _, stderr = run.communicate(timeout=60)
    assert stderr.count("stopped by SIGTERM: what was done is kept, go on with --resume") == 1
    assert (iteration_of(tmp_path) + 1) % 10 == 0


EVALUATES = {
    **KEYS,
    "SSOD__SCHEDULE__MAX_ITER": [24],
    "DATASETS__VAL": [runs.TEST],
    "TEST__EVAL_PERIOD": 7,
    "SSOD__INFERENCE_BATCH_SIZE": 1,  # so that each of two ranks has some
}


def test_no_evaluation_between_iterations_outlasts_a_signal(data, tmp_path, one_thread):
    """It may take longer than a scheduler waits; what was trained before it is kept."""

    def evaluation_with_a_signal(*args):
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the evaluation went on")

    argv = runs.arguments(data, tmp_path / "stopped", **EVALUATES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phase_trainer, "validate", evaluation_with_a_signal)
        with pytest.raises(SystemExit) as info:
            runs.run_here(argv)
    assert info.value.code == PREEMPTED
    assert iteration_of(tmp_path / "stopped") == 6
    history = read_history(RunFolder(tmp_path / "stopped"))
    assert [event["iterations"] for event in history if event["event"] == "trained"] == [7]
    runs.run_here(runs.arguments(data, tmp_path / "stopped", "--resume", **EVALUATES))
    runs.run_here(runs.arguments(data, tmp_path / "whole", **EVALUATES))
    assert_same_models(tmp_path / "stopped", tmp_path / "whole")


def test_training_whose_last_iteration_has_a_signal_is_noted(data, tmp_path, monkeypatch):
    step = phase_trainer.PhaseTrainer.run_step

    def step_with_a_signal(trainer):
        if trainer.iter == trainer.max_iter - 1:
            signal.raise_signal(signal.SIGTERM)
        step(trainer)

    monkeypatch.setattr(phase_trainer.PhaseTrainer, "run_step", step_with_a_signal)
    length = {**KEYS, "SSOD__SCHEDULE__MAX_ITER": [4]}
    with pytest.raises(SystemExit) as info:
        runs.run_here(runs.arguments(data, tmp_path, **length))
    assert info.value.code == PREEMPTED
    assert (tmp_path / "phase_0" / "model_final.pth").exists()
    (event,) = (e for e in read_history(RunFolder(tmp_path)) if e["event"] == "trained")
    assert (event["iterations"], event["ended"]) == (4, True)


def test_an_evaluation_that_fails_loses_no_iteration(data, tmp_path, monkeypatch):
    monkeypatch.setattr(phase_trainer, "validate", Mock(side_effect=OSError("disk is gone")))
    with pytest.raises((OSError, SystemExit)):
        runs.run_here(runs.arguments(data, tmp_path, **EVALUATES))
    assert iteration_of(tmp_path) == 6


def test_processes_leave_an_evaluation_after_the_same_iteration(data, tmp_path, monkeypatch):
    """Rank 1 hangs in it, and the other one waits; seven is not of the iterations that may end."""
    monkeypatch.setenv("FAULT", "hangs")  # of this launcher; the others know no faults
    run = start(data, tmp_path / "stopped", "--num-gpus", "2", launcher=(FAULTY,), **EVALUATES)
    wait_for(tmp_path / "stopped" / "log.txt.rank1", "this rank hangs")
    run.send_signal(signal.SIGTERM)
    assert_stopped(run, PREEMPTED, "SIGTERM")
    assert iteration_of(tmp_path / "stopped") == 6
    for name, flags in [("stopped", ["--resume"]), ("whole", [])]:
        run = start(data, tmp_path / name, "--num-gpus", "2", *flags, **EVALUATES)
        stderr = run.communicate(timeout=120)[1]
        assert run.returncode == 0, stderr
    assert_same_models(tmp_path / "stopped", tmp_path / "whole")


# Within a process


@pytest.fixture(autouse=True)
def restored():
    yield
    interruption._requests.number = None
    interruption._requests.finishes_iterations = False


def test_what_is_no_training_ends_at_once():
    with handled_signals(), pytest.raises(Stopped) as info:
        signal.raise_signal(signal.SIGTERM)
    assert info.value.code == PREEMPTED


def test_a_second_signal_ends_training_at_once(monkeypatch):
    with handled_signals():
        interruption._requests.finishes_iterations = True
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)  # the same one, by another way
        monkeypatch.setattr(interruption, "_SAME", 0.0)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGUSR1)


class Interrupted(interruption._Requests):
    """Has a second signal come at one place, before or after an attribute is given a value."""

    place = ""

    def __setattr__(self, name, value):
        self.come(f"before {name}")
        super().__setattr__(name, value)
        self.come(f"after {name}")

    def come(self, place):
        if self.place == place:
            self.__dict__["place"] = ""
            self.handle(signal.SIGINT, None)


@pytest.mark.parametrize("place", ["before since", "after since", "before number", "after number"])
@pytest.mark.parametrize("of_launcher", [True, False])
def test_a_signal_that_comes_twice_at_once_is_one(monkeypatch, place, of_launcher):
    """By the process group and by the launcher, even while the first one is being noted."""
    child = Mock(daemon=False, pid=os.getpid())
    children = [child] if of_launcher else []
    monkeypatch.setattr(interruption.multiprocessing, "active_children", lambda: children)
    monkeypatch.setattr(interruption.os, "kill", Mock())
    requests = Interrupted()
    requests.process, requests.only_hands_on = os.getpid(), of_launcher
    requests.finishes_iterations = True
    requests.__dict__["place"] = place
    requests.handle(signal.SIGINT, None)
    assert requests.number == signal.SIGINT
    assert not requests.place
    child.kill.assert_not_called()


def test_no_signal_comes_between_what_a_process_does_as_it_ends():
    with handled_signals():
        interruption.hold_signals()
        signal.raise_signal(signal.SIGTERM)
    with handled_signals(), pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)


def end_as_a_process():
    with handled_signals():
        interruption.hold_signals()


def end_together():
    with interruption.signals_wait():
        pass


@pytest.mark.parametrize("work", [end_as_a_process, end_together])
def test_what_another_thread_does_neither_holds_signals_nor_lets_them_go(work):
    def elsewhere():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    with handled_signals():
        elsewhere()
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
    with handled_signals():
        interruption.hold_signals()
        elsewhere()
        signal.raise_signal(signal.SIGTERM)


def in_two_halves(done):
    with interruption.signals_wait():
        done.append("first")
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        done.append("second")


@pytest.mark.parametrize("finishes", [False, True])
def test_no_signal_comes_between_what_belongs_together(monkeypatch, finishes):
    done = []
    monkeypatch.setattr(interruption, "_SAME", 0.0)
    with handled_signals():
        interruption._requests.finishes_iterations = finishes
        with pytest.raises(Stopped):
            in_two_halves(done)
    assert done == ["first", "second"]
    with handled_signals():
        interruption._requests.finishes_iterations = True
        with interruption.signals_wait():
            signal.raise_signal(signal.SIGUSR1)  # the first one waits for the iteration, too


def test_signals_do_afterwards_what_they_did_before():
    before = [signal.getsignal(number) for number in interruption._SIGNALS]
    with handled_signals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in interruption._SIGNALS] == before


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled_signals() as requests:
            signal.raise_signal(signal.SIGHUP)
        assert requests.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_request_does_not_outlive_the_run_that_it_ended():
    interruption._requests.finishes_iterations = False
    with handled_signals():
        interruption._requests.finishes_iterations = True
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption._requests.number == signal.SIGINT
    assert interruption._requests.number is None
    assert not interruption._requests.finishes_iterations


def test_a_signal_is_noted_where_nobody_reads_that(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as unread:
        monkeypatch.setattr(sys, "__stderr__", unread)
        with handled_signals() as requests:
            requests.finishes_iterations = True
            os.kill(os.getpid(), signal.SIGINT)
            assert requests.number == signal.SIGINT


def test_other_threads_than_the_main_one_handle_no_signals():
    noted = []

    def run():
        with handled_signals() as requests:
            noted.append(requests.number)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert noted == [None]
