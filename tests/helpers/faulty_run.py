"""``train_net.py`` whose rank 1 has a fault, which the variable ``FAULT`` names."""

import os
import signal
import sys
import time
from pathlib import Path

import d2_ssod.quiet  # noqa: F401  before what it silences

from detectron2.modeling import GeneralizedRCNN
from detectron2.utils import comm

from d2_ssod.engine import PhaseTrainer, agreement, default_argument_parser, launch

sys.path.insert(0, str(Path(__file__).parents[2]))

import train_net

FAULT = os.environ["FAULT"]
_step, _inference = PhaseTrainer.run_step, GeneralizedRCNN.inference


def faulty_step(self):
    """Train on a batch, until the fault."""
    if comm.get_rank() == 1 and self.iter == 5:
        if FAULT == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if FAULT == "raises":
            raise ValueError("rank 1 has\nenough")
    _step(self)


def faulty_inference(self, *args, **kwargs):
    """Find objects, slowly on rank 1, for which rank 0 then waits."""
    if FAULT == "is slow" and comm.get_rank() == 1:
        time.sleep(2)
    return _inference(self, *args, **kwargs)


agreement._PATIENCE = 1.0  # seconds, of disks that are this machine's own
PhaseTrainer.run_step, GeneralizedRCNN.inference = faulty_step, faulty_inference

if __name__ == "__main__":
    launch(train_net.main, default_argument_parser().parse_args())
