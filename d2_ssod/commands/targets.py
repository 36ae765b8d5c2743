"""What a command is to write: whether it can, and what it would overwrite."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import read_json
from d2_ssod.limits import is_number


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
    _try_to_write("json", path, os.path.dirname(path), "a file in a folder that exists and")
    if os.path.exists(path) and not _is_written_by(is_ours, path):
        raise ConfigError(
            f"--json {path} would overwrite a file that is none of this command's; name another"
        )


def check_folder_target(option: str, path: str) -> None:
    """Check that files can be written into a folder, which may have to be made.

    Raises:
        ConfigError: they cannot.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise ConfigError(f"--{option} {path} is a file; name a folder")
    there = os.path.abspath(path)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    _try_to_write(option, path, there, "a folder that")


def _try_to_write(option: str, path: str, folder: str, instead: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder or "."):
            pass
    except OSError as error:
        raise ConfigError(
            f"--{option} {path} cannot be written ({error.strerror}); name {instead} may be written"
        ) from error


def _is_written_by(is_ours: Callable[[Any], bool], path: str) -> bool:
    try:
        return is_ours(read_json(path))
    except ConfigError:  # no JSON
        return False


def has_metrics(content: Any) -> bool:
    """Tell whether it is tables of metrics: of each data set, of each row, numbers."""
    tables = list(content.values()) if isinstance(content, dict) else []
    if not tables or not all(isinstance(table, dict) and table for table in tables):
        return False
    rows = [row for table in tables for row in table.values()]
    return all(isinstance(row, dict) and all(map(_is_metric, row.values())) for row in rows)


def _is_metric(value: Any) -> bool:
    return value is None or is_number(value)
