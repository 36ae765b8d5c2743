"""Checkpoints that are whole, whenever training is killed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import IO, Any

from detectron2.checkpoint import DetectionCheckpointer

from d2_ssod.files import replacing


class WholeCheckpointer(DetectionCheckpointer):
    """:class:`DetectionCheckpointer` that writes each file under another name first.

    So neither a checkpoint nor ``last_checkpoint`` is ever found half written.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.path_manager = _WholeFiles(self.path_manager)


class _WholeFiles:
    """A path manager, but for files that are opened to be written."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def open(self, path: str, mode: str = "r") -> AbstractContextManager[IO[Any]]:
        if mode in ("w", "wb"):
            return replacing(path, mode)
        return self._manager.open(path, mode)
