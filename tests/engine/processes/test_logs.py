"""What a run says at its start."""

import argparse
import logging
import os

import pytest
import runs
import torch
from detectron2.utils import comm
from runs import bare_config

from d2_ssod.engine.processes import logs


@pytest.fixture
def start(tmp_path, monkeypatch, caplog):
    """Warnings of a start with these flags, on a machine with or without GPUs."""
    monkeypatch.setattr(logs, "collect_env_info", lambda: "")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    cfg = bare_config(tmp_path)
    cfg.MODEL.DEVICE = "cpu"

    def started(num_gpus, processes, *, has_cuda=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
        monkeypatch.setattr(comm, "get_world_size", lambda: processes)
        logs.log_start(cfg, argparse.Namespace(num_gpus=num_gpus))
        return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]

    return started


@pytest.mark.parametrize(("count", "what"), [(8, "8 processes"), (1, "1 process")])
def test_gpus_that_are_not_there_are_one_warning(start, count, what):
    (line,) = start(count, count)
    assert line.startswith(f"no CUDA device: {what} on the CPU; ")
    assert line.endswith("--num-gpus 0")


def test_what_was_meant_is_no_warning(start, monkeypatch):
    assert start(0, 1) == []
    assert start(8, 8, has_cuda=True) == []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    assert start(1, 2) == []  # torchrun says how many


@pytest.fixture
def unlogged():
    """Loggers as they are in a new process, before and after."""
    runs.forget_log_files()
    yield
    runs.forget_log_files()


def test_each_run_of_a_process_has_its_own_log(tmp_path, unlogged, capsys):
    """Also where the folder of the one before was set aside, which has its name no more."""
    logger = logging.getLogger("d2_ssod.engine.processes.logs")
    for number, name in enumerate(("one", "one", "two"), start=1):
        folder = tmp_path / name
        if folder.exists():
            folder.rename(tmp_path / "aside")
        folder.mkdir()
        logs.setup_logs(str(folder))
        logger.info("run %d in \udcff", number)
    lines = {name: (tmp_path / name / "log.txt").read_text() for name in ("aside", "one", "two")}
    assert [text.count("\n") for text in lines.values()] == [1, 1, 1]
    assert "run 1 in \\udcff" in lines["aside"]
    assert "run 2" in lines["one"]
    assert "run 3" in lines["two"]
    logs.close_log_file()
    logger.info("no run")
    assert "no run" not in (tmp_path / "two" / "log.txt").read_text()
    assert capsys.readouterr().out.count("run ") == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
def test_a_log_that_cannot_be_written_is_said_once(tmp_path, capsys):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    logger = logging.getLogger("d2_ssod.engine.processes.logs")
    logs.setup_logs(str(tmp_path))
    for text in ("one", "two"):
        logger.info(text)
    logs.close_log_file()
    _, errors = capsys.readouterr()
    assert "Traceback" not in errors
    assert errors.count(f"{tmp_path}/log.txt: No space left on device: it lacks what follows") == 1
