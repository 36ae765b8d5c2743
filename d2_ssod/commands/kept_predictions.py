"""What a prediction has found until it is written: in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode

import d2_ssod
from d2_ssod.artifacts import (
    RunFolder,
    discard_partial_predictions,
    keep_partial_predictions,
)
from d2_ssod.data.seen_pictures import FileState, cache_folder
from d2_ssod.structures import Predictions

_KEPT_FOR = 30 * 86_400.0  # seconds since something was added


def folder_of(images: Sequence[dict], models: Sequence[tuple[CfgNode, int]]) -> Path:
    """Name the folder for what these models find in these pictures.

    It is another one for other pictures, models, settings or versions, and for any of them that has
    changed since.

    Args:
        images: dicts of the pictures.
        models: config and phase of each, in their order.
    """
    digest = hashlib.sha256(f"{d2_ssod.__version__}\0{torch.__version__}".encode())
    for cfg, phase in models:
        model = FileState.of(str(RunFolder(cfg.OUTPUT_DIR).phase(phase).model))
        digest.update(f"\0{model}\0{cfg.dump()}".encode(errors="surrogateescape"))
    for image in images:
        state = FileState.of(image["file_name"])
        digest.update(f"\0{image['image_id']}\0{state}".encode(errors="surrogateescape"))
    return _all_folders() / digest.hexdigest()[:32]


@contextlib.contextmanager
def keeping(folder: Path) -> Iterator[Callable[[Predictions], None]]:
    """Give a function that adds to the folder; where it cannot any more, it says so once."""
    kept = _Kept(folder)
    try:
        yield kept.add
    finally:
        kept.close()


class _Kept:
    """What is in the folder, as long as that can be written."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, contextlib.ExitStack()
        self._is_written = True
        with self._or_say():  # also where another process has just deleted it
            folder.mkdir(parents=True, exist_ok=True)
            self._keep = self._stack.enter_context(keep_partial_predictions(folder))

    def add(self, predictions: Predictions) -> None:
        if self._is_written:
            with self._or_say(before="\n"):  # which ends the line of the progress bar
                self._keep(predictions)

    def close(self) -> None:
        with self._or_say():
            self._stack.close()

    @contextlib.contextmanager
    def _or_say(self, before: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._is_written:  # which was said
                return
            self._is_written = False
            print(
                f"{before}what is found is not kept in case of an interruption: {self._folder}: "
                f"{error.strerror}; set XDG_CACHE_HOME to a folder that can be written",
                file=sys.stderr,
            )


def discard(folder: Path) -> None:
    """Delete the folder, unless another process has it, too."""
    with contextlib.suppress(OSError):
        discard_partial_predictions(folder)


def discard_old() -> None:
    """Delete what interrupted predictions left that nobody has gone on with for a month."""
    for folder in _all_folders().glob("*"):
        # Another process may just have written what it found.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if _last_added(folder) < time.time() - _KEPT_FOR:
                discard_partial_predictions(folder)


def _all_folders() -> Path:
    return cache_folder() / "predictions"


def _last_added(folder: Path) -> float:
    return max(os.stat(path).st_mtime for path in (folder, *folder.iterdir()))
