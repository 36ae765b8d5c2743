"""What a run says on the terminal, for people, and what goes into ``log.txt`` only."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import platform
import re
import sys

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.logger import setup_logger

from d2_ssod import __version__
from d2_ssod.artifacts import RunFolder, record_event

logger = logging.getLogger(__name__)
_record = logging.getLogger(f"{__name__}.record")

# Loggers whose INFO messages tell how, not what: whole models, environments, configs, loaders.
_FILE_ONLY = (
    _record.name,
    "detectron2.engine.defaults",
    "detectron2.engine.hooks",
    "detectron2.engine.train_loop",
    "detectron2.checkpoint",
    "detectron2.data",
    "detectron2.evaluation",
    "fvcore",
)


_LOGGERS = ("detectron2", "fvcore", "d2_ssod")


def setup_logs(output_dir: str) -> None:
    """Log to stdout (main process, in color on a terminal) and to files in the output folder.

    Not to Detectron2's log files, which a process keeps by their name, also after the run and where
    its folder was set aside.
    """
    close_log_file()
    rank = comm.get_rank()
    file = _LogFile(str(RunFolder(output_dir).log) + (f".rank{rank}" if rank > 0 else ""))
    for name in _LOGGERS:
        own = setup_logger(None, distributed_rank=rank, name=name, color=sys.stdout.isatty())
        for handler in own.handlers:
            if getattr(handler, "stream", None) is sys.stdout:
                handler.addFilter(_is_for_people)
        own.addHandler(file)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def close_log_file() -> None:
    """End the log of a run, where this process writes one."""
    for name in _LOGGERS:
        own = logging.getLogger(name)
        for handler in own.handlers[:]:
            if isinstance(handler, _LogFile):
                own.removeHandler(handler)
                handler.close()


class _LogFile(logging.FileHandler):
    """A run's log, with lines as Detectron2 writes them."""

    def __init__(self, path: str) -> None:
        # File names need not be in the locale's encoding, nor in any.
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        layout = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
        self.setFormatter(logging.Formatter(layout, datefmt="%m/%d %H:%M:%S"))
        self._is_whole = True

    def handleError(self, record: logging.LogRecord) -> None:
        """Say once that the log cannot be written, as on a full disk; the run goes on."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif self._is_whole:
            self._is_whole = False
            print(f"{self.baseFilename}: {error.strerror}: it lacks what follows", file=sys.stderr)

    def close(self) -> None:
        """End it; what could not be written was said."""
        with contextlib.suppress(OSError):
            super().close()


def _is_for_people(record: logging.LogRecord) -> bool:
    is_detail = any(record.name == n or record.name.startswith(f"{n}.") for n in _FILE_ONLY)
    return record.levelno >= logging.WARNING or not is_detail


def has_logs() -> bool:
    """Tell whether this process writes a log yet."""
    return any(isinstance(own, _LogFile) for own in logging.getLogger("d2_ssod").handlers)


def record_traceback() -> None:
    """Keep the traceback of the error that is handled, in the file only."""
    _record.info("Traceback of what is said in one line:", exc_info=True)


def log_start(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Say in two lines what runs where; the environment and the whole config go to the file."""
    processes = comm.get_world_size()
    place = "CPU" if cfg.MODEL.DEVICE == "cpu" else f"{torch.cuda.get_device_name()} (CUDA)"
    logger.info(
        "d2_ssod %s, Detectron2 %s, torch %s, Python %s; %s, %d process%s",
        *(__version__, detectron2.__version__, torch.__version__, platform.python_version()),
        *(place, processes, "" if processes == 1 else "es"),
    )
    if _lacks_gpus(args):
        logger.warning(
            "no CUDA device: %d process%s on the CPU; if that is not meant, check the GPU's driver "
            "and that torch has CUDA (torch.version.cuda is %s); for one process on the CPU: "
            "--num-gpus 0",
            *(processes, "" if processes == 1 else "es", torch.version.cuda),
        )
    place_of_run = os.path.abspath(cfg.OUTPUT_DIR)
    logger.info("Output: %s (environment: log.txt, all keys: config.yaml)", place_of_run)
    record_event(
        RunFolder(cfg.OUTPUT_DIR),
        "started",
        d2_ssod=__version__,
        detectron2=detectron2.__version__,
        torch=torch.__version__,
        python=platform.python_version(),
        device=place,
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        processes=processes,
    )
    _record.info("Rank of current process: %d. World size: %d", comm.get_rank(), processes)
    # Detectron2's compiled part is not needed here, whatever its absence is called.
    environment = re.sub(r"(?m)^.*not built correctly.*\n", "", collect_env_info())
    _record.info("Environment:\n%s", environment)
    _record.info("Command line arguments: %s", args)
    _record.info("Config:\n%s", cfg.dump())


def _lacks_gpus(args: argparse.Namespace) -> bool:
    """Tell whether GPUs are asked for that are not there; torchrun does not read the flag."""
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    return args.num_gpus > 0 and not torch.cuda.is_available() and not by_torchrun
