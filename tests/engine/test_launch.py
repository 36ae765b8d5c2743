"""By what the processes of a run find each other; that they do: test_end_to_end.py."""

import fcntl
import importlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from detectron2.utils import comm
from runs import bare_config

from d2_ssod import commands
from d2_ssod.artifacts import lock_folder
from d2_ssod.engine import default_argument_parser, launch
from d2_ssod.engine.processes import group
from d2_ssod.errors import ConfigError

ROOT = Path(__file__).parents[2]
MODULE = importlib.import_module("d2_ssod.engine.launch")  # the package has a function of this name


@pytest.mark.parametrize(
    ("num_gpus", "expected"), [("0", ["gloo"]), ("1", ["nccl", "GPU 1"]), ("8", ["nccl", "GPU 1"])]
)
def test_processes_of_torchrun_that_want_no_gpu_join_by_gloo(monkeypatch, num_gpus, expected):
    used = []
    variables = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(MODULE, "run_to_the_end", lambda function: function())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: used.append(f"GPU {number}"))
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, **_: used.append(backend)
    )
    monkeypatch.setattr(comm, "create_local_process_group", lambda size: None)
    monkeypatch.setattr(comm, "synchronize", lambda: None)

    class Ended(Exception):
        """Of the run, once the processes have joined."""

    def main(args):
        raise Ended

    with pytest.raises(Ended):
        launch(main, default_argument_parser().parse_args(["--num-gpus", num_gpus]))
    assert used == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "auto"),
        (["--dist-url", "tcp://127.0.0.1:7"], "tcp://127.0.0.1:7"),
        (["--num-machines", "2", "--dist-url", "tcp://node1:7"], "tcp://node1:7"),
    ],
)
def test_runs_of_one_machine_meet_at_ports_of_their_own(given, expected):
    assert MODULE._meeting_place(default_argument_parser().parse_args(given)) == expected


def test_several_machines_need_an_address(capsys):
    args = ["--num-machines", "2", "--config-file", str(ROOT / "configs/digits_two_phase.yaml")]
    with pytest.raises(SystemExit, match="2"):
        launch(None, default_argument_parser().parse_args(args))
    assert "--num-machines is 2, but --dist-url is not given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-gpus", "-1"], "--num-gpus is -1; it must be 0, for the CPU, or more"),
        (["--num-gpus", "3"], "--num-gpus is 3, but 2 can be seen"),
        (["--num-machines", "0"], "--num-machines is 0 and --machine-rank 0"),
        (
            ["--num-machines", "2", "--machine-rank", "2"],
            "--num-machines is 2 and --machine-rank 2",
        ),
        (["--machine-rank", "-1"], "--num-machines is 1 and --machine-rank -1"),
    ],
)
def test_processes_that_there_cannot_be_are_refused(flags, message, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SystemExit, match="2"):
        launch(None, default_argument_parser().parse_args(flags))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


def test_a_signal_while_the_config_is_read_ends_as_later(monkeypatch, capsys):
    monkeypatch.setattr(MODULE, "build_config", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit, match="75"):
        launch(None, default_argument_parser().parse_args(["--num-gpus", "0"]))
    assert "stopped by SIGTERM" in capsys.readouterr().err


def test_a_signal_when_all_is_done_leaves_it_so(monkeypatch):
    def close():
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(MODULE, "close_log_file", close)
    done = []
    MODULE._run(done.append, "given")
    assert done == ["given"]


def test_a_pipe_is_read_as_long_as_its_other_end_is_open(capsys):
    reader, writer = os.pipe()
    with open(writer, "w") as stream:
        assert group.is_read(stream)
        os.close(reader)
        assert not group.is_read(stream)
    assert group.is_read(stream)  # who closes it here says so
    assert group.is_read(None)
    assert group.is_read(sys.stdout)  # a test's, which is no file


@pytest.mark.parametrize("is_read", [False, True])
def test_a_pipe_that_breaks_elsewhere_is_an_error(monkeypatch, is_read):
    """Such as that of a worker."""
    monkeypatch.setattr(commands, "is_read", lambda stream: is_read or stream is sys.stderr)
    monkeypatch.setattr(commands.split, "run", Mock(side_effect=BrokenPipeError))
    expected = pytest.raises(BrokenPipeError) if is_read else pytest.raises(SystemExit, match="2")
    with expected:
        commands.main(["split", "a.json", "--percent", "10"])


@pytest.mark.parametrize("is_buffered", [False, True])
def test_exit_codes_do_not_depend_on_who_reads(is_buffered):
    """Nobody reads, from before the config is found not to be there."""
    reader, writer = os.pipe()
    run = subprocess.Popen(
        [sys.executable, "-W", "ignore", "train_net.py", "--config-file", "none.yaml"],
        cwd=ROOT,
        stdout=writer,
        stderr=writer,
        env={**os.environ, "PYTHONUNBUFFERED": "" if is_buffered else "1"},
    )
    os.close(writer)
    os.close(reader)
    assert run.wait() == 2


def test_a_process_that_lives_on_gives_the_folder_back(monkeypatch, tmp_path):
    cfg = bare_config(tmp_path / "run")
    monkeypatch.setattr(MODULE, "build_config", lambda *_: cfg)
    launch(
        lambda args: lock_folder(cfg.OUTPUT_DIR),
        default_argument_parser().parse_args(["--num-gpus", "0"]),
    )
    with open(tmp_path / "run" / "run.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("before", [None, "0,1"])
def test_gpus_that_a_run_on_the_cpu_has_no_use_for_are_hidden(monkeypatch, tmp_path, before):
    """Or its processes would meet by NCCL."""
    name = "CUDA_VISIBLE_DEVICES"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    cfg = bare_config(tmp_path)
    for device, inside in (("cpu", ""), ("cuda", before)):
        cfg.MODEL.DEVICE = device
        with MODULE._without_unused_gpus(cfg):
            assert os.environ.get(name) == inside
        assert os.environ.get(name) == before


@pytest.mark.parametrize(
    ("error", "is_users"),
    [
        (OSError(28, "No space left on device"), True),
        (FileNotFoundError(2, "No such file or directory", "a.png"), True),
        (PermissionError(13, "Permission denied", "out"), True),
        (FileNotFoundError(2, "No such file or directory"), False),  # a killed worker's socket
        (ConnectionResetError(104, "Connection reset by peer"), False),
    ],
)
def test_only_errors_of_files_are_the_users_to_mend(error, is_users, capsys):
    def fails():
        raise error

    launching = importlib.import_module("d2_ssod.engine.launch")
    with pytest.raises(SystemExit if is_users else type(error)):
        launching._or_exit(fails)
    assert ("correct the path" in capsys.readouterr().err) == is_users


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("a.json: is empty"), False),
        (PermissionError(13, "Permission denied", "/a"), False),
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (ValueError("a fault"), True),
        (None, True),
    ],
)
def test_tracebacks_of_what_is_said_in_a_line_are_left_out(error, expected):
    info = error and (type(error), error, None)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "Exception", (), info)
    assert MODULE._is_said_here(record) == expected
