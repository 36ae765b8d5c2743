"""Whole training runs on a dozen images, as commands or in this process."""

import contextlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from detectron2.config import get_cfg
from detectron2.utils import logger as detectron2_logger

from d2_ssod.config import add_ssod_config
from d2_ssod.demo import digit_scenes
from d2_ssod.engine import default_argument_parser, launch

ROOT = Path(__file__).parents[2]
CONFIG_FILE = ROOT / "configs" / "digits_two_phase.yaml"
LABELED, UNLABELED, TEST = "tiny_labeled", "tiny_unlabeled", "tiny_test"
SIZES = {"labeled": 12, "unlabeled": 12, "test": 8}
PHASE_LENGTHS = [24, 6, 6]


def make_data(root):
    """Entries of SSOD.REGISTER for a small digit_scenes; the unlabeled images are only a folder."""
    digit_scenes.generate(root, sizes=SIZES)

    def entry(name, split):
        return {
            "NAME": name,
            "IMAGES": str(digit_scenes.image_folder(root, split)),
            "JSON": str(digit_scenes.annotation_file(root, split)),
        }

    unlabeled = {"NAME": UNLABELED, "IMAGES": str(digit_scenes.image_folder(root, "unlabeled"))}
    return [entry(LABELED, "labeled"), unlabeled, entry(TEST, "test")]


def arguments(data, output, *flags, **keys):
    """Command-line arguments of a run. ``keys``: config keys with ``__`` for the dot."""
    options = {
        "OUTPUT_DIR": output,
        "SSOD.REGISTER": data,
        "DATASETS.TRAIN": [LABELED],
        "DATASETS.UNLABELED": [UNLABELED],
        "DATASETS.TEST": [TEST],
        "SSOD.SCHEDULE.MAX_ITER": PHASE_LENGTHS,
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.WARMUP_ITERS": 2,
        # Neither is looked at but in tests of its own.
        "SSOD.REPORT": False,
        "SSOD.CHECK_LABELED": False,
        # Models of a few iterations agree on nothing.
        "SSOD.CONSENSUS.MIN_VOTES": 1,
        **{key.replace("__", "."): value for key, value in keys.items()},
    }
    if "--num-gpus" not in flags:
        flags = (*flags, "--num-gpus", "0")
    pairs = [str(part) for pair in options.items() for part in pair]
    return ["--config-file", str(CONFIG_FILE), *flags, *pairs]


def bare_config(output):
    """Detectron2's and this project's default config, of a run in ``output``."""
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.OUTPUT_DIR = str(output)
    return cfg


def run_command(argv, *, launcher=("train_net.py",), check=True, environment=(), cwd=ROOT):
    """Run train_net.py (or another launcher) as a user does."""
    result = subprocess.run(
        [sys.executable, *launcher, *argv],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **dict(environment)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert not check or result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def run_here(argv):
    """The same in this process, which has imported everything already."""
    try:
        launch(train_net().main, default_argument_parser().parse_args(argv))
    finally:
        forget_log_files()


def train_net():
    """The module train_net.py."""
    spec = importlib.util.spec_from_file_location("train_net", ROOT / "train_net.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def forget_log_files():
    """Let the next run in this process set its log up anew."""
    for name in ("detectron2", "fvcore", "d2_ssod"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            with contextlib.suppress(ValueError):
                handler.close()
        logger.propagate = True
    detectron2_logger.setup_logger.cache_clear()


def read(path):
    return json.loads(Path(path).read_text())


def summary_of(output):
    return read(Path(output) / "summary.json")


def log_of(output):
    return (Path(output) / "log.txt").read_text()
