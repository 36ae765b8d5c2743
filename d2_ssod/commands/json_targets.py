"""JSON files that a command is to write: whether it can, and what it would overwrite."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import read_json


def check_json_target(path: str, is_ours: Callable[[Any], bool]) -> None:
    """Check that ``--json`` can be written, before the work of which it is to hold the result.

    Args:
        path: what it names.
        is_ours: tells of the content of a file that is there whether this command has written it.

    Raises:
        ConfigError: it cannot, or would overwrite something else.
    """
    if os.path.isdir(path):
        raise ConfigError(f"--json {path} is a folder; name a file")
    try:
        with tempfile.TemporaryFile(dir=os.path.dirname(path) or "."):
            pass
    except OSError as error:
        raise ConfigError(
            f"--json {path} cannot be written ({error.strerror}); name a file in a folder that "
            "exists and may be written"
        ) from error
    if os.path.exists(path) and not _is_written_by(is_ours, path):
        raise ConfigError(
            f"--json {path} would overwrite a file that is none of this command's; name another"
        )


def _is_written_by(is_ours: Callable[[Any], bool], path: str) -> bool:
    try:
        return is_ours(read_json(path))
    except ConfigError:  # no JSON
        return False


def has_metrics(content: Any) -> bool:
    """Tell whether it is tables of metrics, by data set."""
    return isinstance(content, dict) and all(isinstance(of, dict) for of in content.values())
