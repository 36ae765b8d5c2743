"""Start one process per GPU (or CPU worker), and end on a user's error with one line."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser
from detectron2.engine import launch as detectron2_launch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from d2_ssod.artifacts import RunFolder, release_folder
from d2_ssod.errors import ConfigError, described

from .processes.group import (
    USER_ERROR,
    end_of_group,
    end_of_rank,
    end_with_launcher,
    flush_streams,
    run_to_the_end,
    say,
    say_once,
    say_stopped,
)
from .processes.interruption import Stopped, handled_signals, hold_signals
from .processes.logs import close_log_file, has_logs, record_traceback
from .setup import build_config

_Result = TypeVar("_Result")


def launch(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run ``main(args)`` in every process of the run.

    Args:
        main: a module-level function.
        args: from Detectron2's ``default_argument_parser``. ``--num-gpus 0`` is one process on the
            CPU; without a CUDA device, ``--num-gpus N`` is N processes on the CPU, with a warning.
            Under ``torchrun`` its processes are used, which end here, and of ``--num-gpus`` it
            only matters whether it is 0.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _join_torchrun(on_gpus=args.num_gpus > 0 and torch.cuda.is_available())
        with handled_signals():
            run_to_the_end(lambda: _run(main, args))
    try:
        _launch(main, args)
    finally:
        flush_streams()


def _launch(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Start the processes, or run in this one, and say how that ended."""
    _or_exit(lambda: _check_numbers(args))
    processes = max(args.num_gpus, 1)
    cfg = _read_config(args, processes * args.num_machines)
    if processes * args.num_machines == 1:
        try:
            _run(main, args)
        finally:
            release_folder(cfg.OUTPUT_DIR)  # this process may live on, as that of a notebook
        return
    url = _or_exit(lambda: _meeting_place(args))
    with handled_signals(of_launcher=True) as requests, _without_unused_gpus(cfg):
        try:
            detectron2_launch(
                _run_in_group,
                *(processes, args.num_machines, args.machine_rank, url, (main, args)),
            )
        except (ProcessExitedException, ProcessRaisedException) as error:
            first = args.machine_rank * processes
            end_of_group(error, first, requests.number, RunFolder(cfg.OUTPUT_DIR).log)


@contextmanager
def _without_unused_gpus(cfg: CfgNode) -> Iterator[None]:
    """Hide GPUs that a run on the CPU has no use for from the processes that start in this block.

    Where there are any, Detectron2 would have processes meet by NCCL, which has none of the CPU.
    """
    key, before = "CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.device(cfg.MODEL.DEVICE).type == "cpu":
        os.environ[key] = ""
    try:
        yield
    finally:
        os.environ.pop(key, None)
        if before is not None:
            os.environ[key] = before


def _read_config(args: argparse.Namespace, world_size: int) -> CfgNode:
    """Build the config, which imports what it names; a signal that comes meanwhile is answered."""
    with handled_signals():
        try:
            return _or_exit(lambda: build_config(args, world_size))
        except Stopped as stopped:
            say_stopped(stopped.number)
            raise


def _check_numbers(args: argparse.Namespace) -> None:
    """Check how many processes and machines there are to be; wrong ones would wait for each other.

    Raises:
        ConfigError: otherwise.
    """
    if args.num_gpus < 0:
        raise ConfigError(f"--num-gpus is {args.num_gpus}; it must be 0, for the CPU, or more")
    if torch.cuda.is_available() and args.num_gpus > torch.cuda.device_count():
        raise ConfigError(
            f"--num-gpus is {args.num_gpus}, but {torch.cuda.device_count()} can be seen; give no "
            "more than that, or set CUDA_VISIBLE_DEVICES to those that are there"
        )
    if args.num_machines < 1 or not 0 <= args.machine_rank < args.num_machines:
        raise ConfigError(
            f"--num-machines is {args.num_machines} and --machine-rank {args.machine_rank}; there "
            "must be at least one machine, and its rank is from 0 to their number - 1"
        )


def _meeting_place(args: argparse.Namespace) -> str:
    """Where the processes of a run meet; by default those of one machine at a port of their own.

    Detectron2's default is the same for all runs of a user, who would meet those of another run.
    """
    if args.dist_url != default_argument_parser().get_default("dist_url"):
        return args.dist_url
    if args.num_machines > 1:
        raise ConfigError(
            f"--num-machines is {args.num_machines}, but --dist-url is not given: name an address "
            "of the first machine and a free port of it, as tcp://node1:29500, on all machines"
        )
    return "auto"


def _run(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run ``main`` in a process that says itself how it ends."""
    with handled_signals():
        try:
            _or_exit(lambda: main(args))
            hold_signals()  # all is done
        except Stopped as stopped:
            if comm.is_main_process():
                say_stopped(stopped.number)
            raise
        except Exception as error:
            if comm.get_world_size() == 1 or not has_logs():
                raise
            end_of_rank(error)
        finally:
            close_log_file()


def _run_in_group(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run ``main`` in one of the processes for which the launcher speaks."""
    end_with_launcher()
    # The platform's: that by which this process was started, spawn, would be its loaders', whose
    # workers would take long to start, and die of signals that the others leave to their process.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    with handled_signals():
        run_to_the_end(lambda: _or_exit(lambda: main(args)))


def _or_exit(function: Callable[[], _Result]) -> _Result:
    """Call ``function``; a user's error, or one of files, ends the process with one line."""
    loop = logging.getLogger("detectron2.engine.train_loop")
    loop.addFilter(_is_said_here)
    try:
        return function()
    except ConfigError as error:
        if error.__cause__ is not None:
            record_traceback()
        say_once(str(error))
        sys.exit(USER_ERROR)
    except OSError as error:
        if not _is_of_files(error):
            raise
        record_traceback()
        # Whichever process it happens in: it may be a disk of that machine.
        say(
            f"error: {described(error)}; correct the path, its rights or free space on the disk, "
            "then go on with --resume"
        )
        sys.exit(USER_ERROR)
    finally:
        loop.removeFilter(_is_said_here)


def _is_of_files(error: OSError) -> bool:
    """Tell whether an error is of files and disks, which a user can mend, not of processes."""
    is_of_others = isinstance(error, (ConnectionError, FileNotFoundError)) and not error.filename
    return error.strerror is not None and not is_of_others


def _is_said_here(record: logging.LogRecord) -> bool:
    """Refuse the traceback that Detectron2 logs when training ends with an error said in a line."""
    error = record.exc_info and record.exc_info[1]
    if error and comm.get_world_size() > 1:
        return False
    is_of_files = isinstance(error, OSError) and _is_of_files(error)
    return not (is_of_files or isinstance(error, ConfigError))


def _join_torchrun(*, on_gpus: bool) -> None:
    torch.distributed.init_process_group("nccl" if on_gpus else "gloo", timeout=DEFAULT_TIMEOUT)
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    comm.synchronize()
