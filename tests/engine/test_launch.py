"""By what the processes of a run find each other; that they do: test_end_to_end.py."""

import importlib

import pytest
import torch
from detectron2.utils import comm

from d2_ssod.engine import default_argument_parser, launch

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
