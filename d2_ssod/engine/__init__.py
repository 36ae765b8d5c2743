"""The training run.

launch.py          processes, and errors in one line
group.py           how processes of a group end, in one line
interruption.py    signals that ask a run to end
setup.py           from the command line to a checked config, output folder and log
agreement.py       what all processes of a run must have in common
config_files.py    configs as files and command lines give them
config_checks.py   what a config must agree with
config_warnings.py what is said of odd keys
output_folder.py   the folder of a run
named_files.py     what a config names outside of it
logs.py            what is said, and where
data_checks.py     what the data sets of a run must agree with
run_data.py        the data sets of a run, loaded
multi_phase.py     the loop over the phases (Algorithm 1)
starting.py        ... and what is checked before it
resuming.py        ... when it goes on
schedule.py        the config of a phase: its length, learning rate and start
mixed_precision.py bfloat16 on the CPU
building.py        what is said while its parts are built
phase_trainer.py   the training of a phase
adoption.py        models and labels that were made elsewhere
validation.py      what the validation images say of each phase's model
diagnostics.py     what is said about pseudo-labels before they are trained on
averaging.py       the running average of the weights
rank_averages.py   what each process has of its own images, averaged
teacher.py         ... which labels each batch of the last phase anew
hooks.py           what happens when it ends: new pseudo-labels
labeling.py        predict, threshold, consensus, selection, and their files
predicting.py      ... what the models see on the images
corrections.py     ... what a person says instead
"""

from detectron2.engine import default_argument_parser

import d2_ssod.demo  # noqa: F401  its data sets and backbone have names in configs

from .config_checks import check_config, check_registered_names
from .config_files import read_run_config
from .data_checks import check_judging_sets, check_run_data
from .hooks import PseudoLabelHook
from .labeling import label_next_phase
from .launch import launch
from .multi_phase import train_phases
from .phase_trainer import PhaseTrainer
from .run_data import RunData, load_run_data
from .schedule import phase_config
from .setup import build_config, setup

__all__ = [
    "PhaseTrainer",
    "PseudoLabelHook",
    "RunData",
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
