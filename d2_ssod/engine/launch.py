"""Start one process per GPU (or CPU worker), and end on a user's error with one line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable

import torch
from detectron2.engine import launch as detectron2_launch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm

from d2_ssod.errors import ConfigError

from .interruption import INTERRUPTED, PREEMPTED, Stopped, handled_signals
from .logs import record_traceback
from .setup import build_config

_USER_ERROR = 2  # exit code


def launch(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run ``main(args)`` in every process of the run.

    Args:
        main: a module-level function.
        args: from Detectron2's ``default_argument_parser``. ``--num-gpus 0`` is one process on the
            CPU; without a CUDA device, ``--num-gpus N`` is N processes on the CPU. Under
            ``torchrun`` its processes are used and ``--num-gpus`` does not matter.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _join_torchrun()
        _run(main, args)
        return
    processes = max(args.num_gpus, 1)
    _or_exit(lambda: build_config(args, processes * args.num_machines))
    alone = processes * args.num_machines == 1
    try:
        with handled_signals(of_launcher=not alone):
            detectron2_launch(
                _run, processes, args.num_machines, args.machine_rank, args.dist_url, (main, args)
            )
    except torch.multiprocessing.ProcessExitedException as error:
        if error.exit_code not in (_USER_ERROR, PREEMPTED, INTERRUPTED):
            raise
        sys.exit(error.exit_code)


def _run(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    with handled_signals():
        _or_exit(lambda: main(args))


def _or_exit(function: Callable[[], object]) -> None:
    """Call ``function``; a user's error, or one of files, ends the process with one line."""
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_no_user_error)
    try:
        function()
    except Stopped as stopped:
        if comm.is_main_process():
            print(
                f"stopped by {stopped.signal}: what was done is kept, go on with --resume",
                file=sys.stderr,
            )
        raise
    except ConfigError as error:
        if comm.is_main_process():
            print(f"error: {error}", file=sys.stderr)
        sys.exit(_USER_ERROR)
    except OSError as error:
        if error.strerror is None:  # not of the system's
            raise
        record_traceback()
        # Whichever process it happens in: it may be a disk of that machine.
        place = f"{error.filename}: " if error.filename else ""
        print(
            f"error: {place}{error.strerror}; correct the path, its rights or free space on the "
            "disk, then go on with --resume",
            file=sys.stderr,
        )
        sys.exit(_USER_ERROR)


def _is_no_user_error(record: logging.LogRecord) -> bool:
    """Refuse the traceback that Detectron2 logs when training ends with a user's error."""
    return not (record.exc_info and isinstance(record.exc_info[1], (ConfigError, OSError)))


def _join_torchrun() -> None:
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, timeout=DEFAULT_TIMEOUT)
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    comm.synchronize()
