"""What a file must be to be read as a checkpoint: plain data, and all of it as it was written."""

from __future__ import annotations

import argparse
import os
import re
import textwrap
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch

from d2_ssod.errors import ConfigError

from .layout import PhaseFolder, RunFolder

RESTORE = "restore the file, or delete it, and what was made with it, to have it made again"
# What files hold beside tensors, and torch.load refuses though it is no code: numbers and arrays
# of NumPy, under the names of its versions 1 and 2, and options of a command line.
_PLAIN_DATA = [
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    *(getattr(np.dtypes, name) for name in np.dtypes.__all__),
    *(
        (part.__reduce__()[0], f"numpy.{core}.multiarray.{part.__reduce__()[0].__name__}")
        for part in (np.float64(0), np.zeros(1))
        for core in ("core", "_core")
    ),
]
# What reading a file raises that is no checkpoint, or a part of one.
_UNREADABLE = (
    *(RuntimeError, OSError, EOFError, ValueError, LookupError),
    *(UnpicklingError, zipfile.BadZipFile),
)


class DamagedCheckpoint(ConfigError):
    """A checkpoint that cannot be used, whatever the config is."""


@contextmanager
def reading_checkpoint(path: str | os.PathLike, remedy: str) -> Iterator[None]:
    """Have ``torch.load`` read data that is no code, and say of which file it cannot.

    Args:
        path: of the file.
        remedy: what to do then.

    Raises:
        DamagedCheckpoint: the block could not read it.
    """
    try:
        with torch.serialization.safe_globals(_PLAIN_DATA):
            yield
    except _UNREADABLE as error:
        if "allocate" in str(error):  # of the memory: the file may be whole
            raise
        raise DamagedCheckpoint(
            f"{path}: cannot be read as a checkpoint ({_reason(error)}); {remedy}{_copy_of(path)}"
        ) from error


def check_sums(path: str | os.PathLike) -> None:
    """Check that each part of a file is as it was written; PyTorch takes what is there.

    Files that are no archives, and parts without a checksum, pass.

    Raises:
        zipfile.BadZipFile: otherwise.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.CRC:  # PyTorch may be told to write none
                with archive.open(part) as file:
                    while file.read(1 << 20):
                        pass


def check_readable(path: str | os.PathLike) -> None:
    """Check that a file is a checkpoint, of whatever model.

    Raises:
        DamagedCheckpoint: otherwise.
    """
    with reading_checkpoint(path, RESTORE):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        # Detectron2 takes weights alone for a model's, too.
        has_model = isinstance(loaded, dict) and (
            "model" in loaded or any(isinstance(value, torch.Tensor) for value in loaded.values())
        )
        if not has_model:
            raise ValueError("it has no model")
        check_sums(path)


def _reason(error: Exception) -> str:
    if isinstance(error, (UnpicklingError, LookupError)):
        code = re.search(r"GLOBAL (\S+)", str(error))
        return f"it has code in it, {code[1]}, which is not run" if code else "it is none"
    return textwrap.shorten(str(error), 200, placeholder=" ...") or repr(error)


def _copy_of(path: str | os.PathLike) -> str:
    """Say where a copy of a phase's model is, if it is one, which the log tells."""
    folder = Path(path).parent
    best = RunFolder(folder.parent).best
    number = re.fullmatch(r"phase_(\d+)", folder.name)
    if not (number and Path(path) == PhaseFolder(folder).model and best.exists()):
        return ""
    return (
        f" ({best} is a copy, if what log.txt last says is best on the validation images is "
        f"phase {number[1]})"
    )
