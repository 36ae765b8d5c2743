"""Reading JSON files, and writing files so that no interruption leaves half of one behind."""

import errno
import gc
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

import numpy as np

from d2_ssod.errors import ConfigError

_LINES = 20_000  # of a list that are read at a time
# Errors of a file that is written, which the system does not name; others may be of what is read.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def atomic_open(
    path: str | os.PathLike, mode: str = "w", encoding: str | None = None, *, durable: bool = True
) -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``, and rename it to that once it is written.

    Whenever the process is killed, ``path`` is what it was before or whole. An exception in the
    block leaves it as it was.

    Args:
        path: the file to write, in a folder that exists.
        mode: ``w`` or ``wb``.
        encoding: of a text file.
        durable: have the disk keep it before it is renamed, so that also after a loss of power it
            is whole; which takes its time for each of thousands of files.
    """
    path = Path(path)
    # The whole name, if it is long, would leave no room.
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, encoding=encoding) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        is_nameless = not error.filename and error.errno in _NO_ROOM
        if is_nameless or error.filename == str(temporary):
            error.filename, error.filename2 = os.fspath(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def atomic_copy(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Copy a file's content to another one (:func:`atomic_open`)."""
    with open(source, "rb") as given, atomic_open(target, "wb") as file:
        shutil.copyfileobj(given, file)


def write_json(path: str | os.PathLike, obj: Any) -> Path:
    """Write ``obj`` as JSON (:func:`atomic_open`).

    The layout suits both people and large files: every key of a mapping and every item of a list of
    records starts a line of its own, a record itself stays on one line. An iterator is written as a
    list, item by item, so a large list need not exist in memory.

    Args:
        path: the file to write; its folder is created if it does not exist.
        obj: mappings, lists, iterators, strings, numbers, numpy scalars and arrays. NaN and
            infinities, which JSON does not have, are written as null.

    Returns:
        ``path`` as a ``Path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path, encoding="utf-8") as file:
        _write(file, obj, indent=0)
        file.write("\n")
    return path


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Make no search for garbage while millions of records are made, none of which is any."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_json(path: str | os.PathLike, remedy: str = "correct the file or delete it") -> Any:
    """Read a JSON file.

    Args:
        path: the file to read.
        remedy: what to do if it is no JSON.

    Raises:
        ConfigError: the file does not exist, cannot be read or is not valid JSON; the message names
            it, and for invalid JSON the line.
    """
    try:
        # Some editors begin a file with a mark.
        with open(path, encoding="utf-8-sig") as file, no_garbage_collection():
            return json.load(file)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}: not valid JSON ({error.msg} in line {error.lineno}, column {error.colno}); "
            f"{remedy}"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not a UTF-8 text file ({error.reason}, byte {error.start}); save it as UTF-8"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path}: lists in lists without end; expected COCO's layout") from None
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"{path}: not valid JSON ({error}); correct the file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def read_json_list(path: str | os.PathLike, expected: str, remedy: str) -> Iterator[list]:
    """Read a JSON file that is a list, some thousand items at a time.

    Of one that has a line for each item, as :func:`write_json` writes it, no more are in memory:
    millions of items of Python's are gigabytes. Any other is read whole.

    Args:
        path: the file to read.
        expected: what it should be, for the error.
        remedy: what to do if it is something else.

    Raises:
        ConfigError: as :func:`read_json`, or it is no list.
    """
    done = 0
    for items in _items_by_lines(path):
        if items is None:
            break
        done += len(items)
        yield items
    else:
        return
    whole = read_json(path, remedy)  # or what is wrong with it
    if not isinstance(whole, list):
        raise ConfigError(f"{path}: expected {expected}, found a {type(whole).__name__}; {remedy}")
    yield whole[done:]


def _items_by_lines(path: str | os.PathLike) -> Iterator[list | None]:
    """Yield the items of a list that has a line for each; None where that ends to be so."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            if file.readline() != "[\n":
                yield None
                return
            has_more = None  # by the comma of the last item; not known before the first
            while lines := list(itertools.islice(file, _LINES)):
                is_end = lines[-1].strip() == "]"
                text = "".join(lines[:-1] if is_end else lines).rstrip()
                items = json.loads(f"[{text if is_end else text.removesuffix(',')}]")
                if has_more not in (None, bool(items)) or (text == "," and not is_end):
                    break
                yield items
                has_more = text.endswith(",")
                if is_end:
                    if file.read().strip():
                        break
                    return
    except (OSError, ValueError, RecursionError):  # ValueError: no JSON, or no text
        pass
    yield None


def read_record(
    path: str | os.PathLike,
    types: Mapping[str, type],
    optional: Mapping[str, type] | None = None,
    *,
    remedy: str = "delete the file",
) -> dict[str, Any]:
    """Read a JSON file that this program has written as one mapping.

    Args:
        path: the file to read.
        types: of each key's value.
        optional: the same, of keys that may be missing.
        remedy: what to do if it is something else.

    Raises:
        ConfigError: as :func:`read_json`, or there is another content.
    """
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping, found {_shortened(content)}; {remedy}")
    for key, kind in {**types, **(optional or {})}.items():
        if key in types and key not in content:
            raise ConfigError(f"{path}: {key!r} is missing; {remedy}")
        if key in content and not isinstance(content[key], kind):
            raise ConfigError(
                f"{path}: {key!r} is {_shortened(content[key])}, expected a {kind.__name__}; "
                f"{remedy}"
            )
    return content


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def write_json_line(file: TextIO, obj: Any) -> None:
    """Add ``obj`` as a line of JSON to a file that an interruption may end anywhere.

    Args:
        file: opened for appending.
        obj: as for :func:`write_json`.
    """
    # The line break comes first: what was cut off before does not spoil this line.
    file.write("\n" + _dumps(obj))


def read_json_lines(path: str | os.PathLike) -> Iterator[Any]:
    """Read what :func:`write_json_line` added, without the lines that an interruption cut off."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(json.JSONDecodeError):
                yield json.loads(line)


def _write(file: TextIO, obj: Any, indent: int) -> None:
    """Write ``obj`` with its outer structure over several lines."""
    margin = "\n" + "  " * (indent + 1)
    separator = margin
    if isinstance(obj, Mapping) and obj:
        file.write("{")
        for key, value in obj.items():
            file.write(separator + json.dumps(str(key)) + ": ")
            _write(file, value, indent + 1)
            separator = "," + margin
        file.write("\n" + "  " * indent + "}")
    elif isinstance(obj, Iterator) or _is_list_of_records(obj):
        file.write("[")
        for item in obj:
            file.write(separator + _dumps(item))
            separator = "," + margin
        file.write("\n" + "  " * indent + "]")
    else:
        file.write(_dumps(obj))


def _is_list_of_records(obj: Any) -> bool:
    return isinstance(obj, list | tuple) and any(isinstance(item, Mapping) for item in obj)


def _dumps(obj: Any) -> str:
    try:
        return _ENCODER.encode(obj)
    except ValueError:  # a NaN or an infinity somewhere: rare, so only then look at every number
        return json.dumps(_without_nan(obj), allow_nan=False)


def _plain(obj: Any) -> Any:
    """Give the plain Python value of what ``json`` does not know."""
    if isinstance(obj, np.generic | np.ndarray):
        return obj.tolist()
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    raise TypeError(f"cannot write a {type(obj).__name__} as JSON: {obj!r}")


_ENCODER = json.JSONEncoder(allow_nan=False, default=_plain)


def _without_nan(obj: Any) -> Any:
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {key: _without_nan(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_without_nan(item) for item in obj]
    if obj is None or isinstance(obj, str | int):
        return obj
    return _without_nan(_plain(obj))
