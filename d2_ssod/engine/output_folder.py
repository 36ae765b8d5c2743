"""The folder of a run: its own, and of one run at a time."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from detectron2.config import CfgNode

from d2_ssod.artifacts import RunFolder, half_written_files, lock_folder, release_folder
from d2_ssod.errors import ConfigError

from .configs.named_files import named_within


def check_output_dir(output_dir: str) -> None:
    """Check that ``OUTPUT_DIR`` can name the folder of a run.

    Raises:
        ConfigError: otherwise.
    """
    if not output_dir:
        raise ConfigError("OUTPUT_DIR is empty: name the folder of the run")
    if output_dir.startswith("~"):
        raise ConfigError(
            f"OUTPUT_DIR is {output_dir!r}, in which ~ is not replaced here: write the path in full"
        )
    try:
        os.path.abspath(output_dir).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"OUTPUT_DIR is {os.path.abspath(output_dir)!r}, which is no text in UTF-8 here, as "
            "TensorBoard wants it: choose another folder, or set LC_ALL=C.UTF-8"
        ) from None
    # What follows ? in the path of a checkpoint are options of Detectron2's, and it takes out tabs
    # and line breaks.
    if found := set("?\t\r\n").intersection(os.path.abspath(output_dir)):
        raise ConfigError(
            f"OUTPUT_DIR is {os.path.abspath(output_dir)!r}; checkpoints cannot be read from paths "
            f"with {' or '.join(map(repr, sorted(found)))}: choose another folder"
        )


def take_folder(cfg: CfgNode, *, resume: bool) -> None:
    """Take ``OUTPUT_DIR`` for this run alone; a new run has one without another's files.

    Raises:
        ConfigError: another process has it; or it holds a run that cannot be set aside.
    """
    output_dir = cfg.OUTPUT_DIR
    lock_folder(output_dir)
    if not resume and _set_previous_run_aside(cfg):
        release_folder(output_dir)
        lock_folder(output_dir)
    for path in half_written_files(output_dir):
        path.unlink(missing_ok=True)


def check_is_there(output_dir: str) -> None:
    """Check that there is such a folder, whose models are to be evaluated.

    Raises:
        ConfigError: otherwise; nothing is written there then, such as a log among pictures.
    """
    if not os.path.isdir(output_dir):
        raise ConfigError(
            f"OUTPUT_DIR {output_dir}: no such folder, of whose phase_0, ... --eval-only could "
            "evaluate the models; correct it, or train first"
        )
    first = RunFolder(output_dir).phase(0).model
    if not first.exists():
        raise ConfigError(
            f"OUTPUT_DIR {output_dir}: {first}: no such file, so that no model is to be evaluated; "
            "correct it, or train first"
        )


def _set_previous_run_aside(cfg: CfgNode) -> bool:
    """Rename the folder of an earlier run, so that a new one neither reads nor overwrites it.

    Returns:
        whether there was one.
    """
    output_dir = Path(os.path.realpath(cfg.OUTPUT_DIR))  # a link to it stays one
    traces = ("last_checkpoint", "phase_0", "phase_1", "summary.json")
    if not any((output_dir / name).exists() for name in traces):
        return False
    if Path.cwd().is_relative_to(output_dir):
        raise ConfigError(
            f"OUTPUT_DIR {output_dir} holds a run and is where this command is run, so that it "
            "cannot be set aside; choose another folder, or continue the run with --resume"
        )
    for key, path in named_within(cfg, cfg.OUTPUT_DIR):
        raise ConfigError(
            f"OUTPUT_DIR {output_dir} holds a run, which cannot be set aside with {path} ({key}) "
            "in it; choose another folder, or continue the run with --resume"
        )
    number = 1
    while (aside := output_dir.with_name(f"{output_dir.name}.previous_{number}")).exists():
        number += 1
    try:
        output_dir.rename(aside)
    except OSError as error:
        raise ConfigError(
            f"OUTPUT_DIR {output_dir} holds a run and cannot be renamed to {aside} "
            f"({error.strerror}); choose another folder, or continue the run with --resume"
        ) from error
    output_dir.mkdir(exist_ok=True)
    logging.getLogger(__name__).warning(
        "OUTPUT_DIR %s held a run; it is now %s. Use --resume to continue a run.",
        *(output_dir, aside),
    )
    return True
