"""Loads the compiled module, which registers the operators with torch, or says how to build it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import torch

from ._source_hash import source_hash

_CSRC = Path(__file__).resolve().parents[2] / "csrc"


def _error(problem: str) -> ImportError:
    root = _CSRC.parent if _CSRC.is_dir() else "the folder of d2_ssod's sources"
    return ImportError(
        f"{problem}. Build it: run `python setup.py build_ext --inplace` in {root} "
        "(or `pip install --no-build-isolation .` there), with the Python and torch in use now"
    )


def check_build(info: dict[str, object], csrc: Path = _CSRC) -> None:
    """Raise ImportError if a compiled module does not fit the torch or the sources in use.

    Args:
        info: What the module's ``build_info`` returned.
        csrc: The sources; nothing is compared where they are not installed.
    """
    if info["torch"] != torch.__version__:
        raise _error(
            f"d2_ssod._C was built for torch {info['torch']}, and this is torch {torch.__version__}"
        )
    if csrc.is_dir() and info["source_hash"] != source_hash(
        csrc, with_cuda=info["cuda"] is not None
    ):
        raise _error(f"d2_ssod._C is older than the sources in {csrc}")


def load() -> ModuleType:
    """Import ``d2_ssod._C`` and check it."""
    try:
        from d2_ssod import _C
    except ImportError as error:
        raise _error(f"d2_ssod._C, the compiled operators, cannot be imported ({error})") from error
    check_build(_C.build_info())
    return _C
