"""The training run.

launch.py        processes, and errors in one line
processes/       ... how they agree, are interrupted and end
setup.py         from the command line to a checked config, output folder and log
configs/         ... as files give them, as they must be, and that of each phase
output_folder.py ... the folder of a run
data_checks/     what the data sets of a run must agree with
run_data.py      the data sets of a run, loaded
multi_phase.py   the loop over the phases (Algorithm 1)
starting.py      ... and what is checked before it
resuming.py      ... when it goes on
pausing.py       ... and where it ends for a person to look at labels
adoption.py      models and labels that were made elsewhere
training/        the training of a phase
hooks.py         what happens when it ends: new pseudo-labels
labeling/        ... predict, threshold, consensus, selection, and their files
validation.py    what the validation images say of each phase's model
"""

from detectron2.engine import default_argument_parser

import d2_ssod.demo  # noqa: F401  its data sets and backbone have names in configs

from .configs.checks import check_config, check_registered_names
from .configs.files import read_run_config
from .configs.schedule import phase_config
from .data_checks import check_judging_sets, check_run_data
from .hooks import PseudoLabelHook
from .labeling.next_phase import label_next_phase
from .launch import launch
from .multi_phase import train_phases
from .resuming import as_it_was_trained
from .run_data import RunData, load_run_data
from .setup import build_config, setup
from .training.phase_trainer import PhaseTrainer

__all__ = [
    "PhaseTrainer",
    "PseudoLabelHook",
    "RunData",
    "as_it_was_trained",
    "build_config",
    "check_config",
    "check_judging_sets",
    "check_registered_names",
    "check_run_data",
    "default_argument_parser",
    "label_next_phase",
    "launch",
    "load_run_data",
    "phase_config",
    "read_run_config",
    "setup",
    "train_phases",
]
