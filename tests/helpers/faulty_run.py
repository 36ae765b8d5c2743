"""``train_net.py`` one of whose ranks has a fault, which the variable ``FAULT`` names.

It is rank 1, or the one of the variable ``FAULTY_RANK``.
"""

import atexit
import logging
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # not a package that is installed elsewhere

import d2_ssod.quiet  # noqa: F401  before what it silences

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.utils import comm

import train_net
from d2_ssod import heartbeat
from d2_ssod.engine import PhaseTrainer, default_argument_parser, launch, run_data
from d2_ssod.engine.processes import agreement, group
from d2_ssod.errors import ConfigError

FAULT, RANK = os.environ["FAULT"], int(os.environ.get("FAULTY_RANK", "1"))
_step, _inference = PhaseTrainer.run_step, GeneralizedRCNN.inference


def faulty_step(self):
    """Train on a batch, until the fault."""
    if comm.get_rank() == RANK and self.iter == 5:
        if FAULT == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if FAULT == "raises":
            raise ValueError("rank 1 has\nenough")
        if FAULT == "has a user's error":
            raise ConfigError("its disk is full; free some space")
    if self.iter == 5 and FAULT == "waits outside of Python":
        wait_for_each_other()
    _step(self)


def wait_for_each_other():
    """Have two ranks wait in different places for ever, outside of Python."""
    logging.getLogger("d2_ssod").info("this rank waits")
    torch.distributed.recv(torch.zeros(1), src=1 - comm.get_rank())


def remembering(look):
    """Say on one rank for 30 s that a file is missing that once was, as NFS may."""
    missing = {}

    def answer(path):
        if comm.get_rank() != RANK:
            return look(path)
        name = os.fspath(path)
        if time.monotonic() < missing.get(name, 0):
            return False
        found = look(path)
        if not found:
            missing[name] = time.monotonic() + 30
        return found

    return answer


def faulty_inference(self, *args, **kwargs):
    """Find objects, slowly or never on one rank, for which the other then waits."""
    if FAULT in ("is slow", "hangs") and comm.get_rank() == RANK:
        logging.getLogger("d2_ssod").info("this rank %s", FAULT)
        time.sleep(2 if FAULT == "is slow" else 1000)
    return _inference(self, *args, **kwargs)


def endless_check(*args):
    """Look at pictures, which only the first rank does, for ever."""
    time.sleep(1000)


class WhenFinalized:
    """Aborts or waits then, as threads of gloo and NCCL may, in the processes of the group."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __del__(self):
        self.function(*self.args)


if __name__ == "__mp_main__":
    if FAULT == "aborts when finalized":
        sys.when_finalized = WhenFinalized(os.abort)
        atexit.register(lambda: print(f"exit functions of {os.getpid()}"))
    if FAULT == "raises":
        sys.when_finalized = WhenFinalized(time.sleep, 1000)
if FAULT == "remembers what was missing":
    Path.exists, os.path.exists = remembering(Path.exists), remembering(os.path.exists)
    os.path.isfile, Path.is_file = remembering(os.path.isfile), remembering(Path.is_file)
agreement._PATIENCE = 1.0  # seconds, of disks that are this machine's own
group._ENDS_WITH_LAUNCHER = 5.0
if FAULT == "hangs before it trains":
    run_data.check_pictures = endless_check
if "SHORT_SILENCE" in os.environ:
    heartbeat._EVERY, heartbeat.NO_SIGN, heartbeat.NO_PROGRESS = 0.5, 5.0, 8.0
PhaseTrainer.run_step, GeneralizedRCNN.inference = faulty_step, faulty_inference

if __name__ == "__main__":
    launch(train_net.main, default_argument_parser().parse_args())
