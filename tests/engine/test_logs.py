"""What a run says at its start."""

import argparse

import pytest
import torch
from detectron2.utils import comm
from runs import bare_config

from d2_ssod.engine import logs


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
