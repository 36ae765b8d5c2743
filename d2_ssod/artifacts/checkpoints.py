"""Models on disk: written whole or not at all, and loaded by phase."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import IO, Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import atomic_open

from .layout import RunFolder


class AtomicCheckpointer(DetectionCheckpointer):
    """:class:`DetectionCheckpointer` that writes each file under another name first.

    So neither a checkpoint nor ``last_checkpoint`` is ever found half written.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.path_manager = _AtomicFiles(self.path_manager)


class _AtomicFiles:
    """A path manager, but for files that are opened to be written."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def open(self, path: str, mode: str = "r") -> AbstractContextManager[IO[Any]]:
        if mode in ("w", "wb"):
            return atomic_open(path, mode)
        return self._manager.open(path, mode)


def load_phase_model(cfg: CfgNode, phase: int) -> nn.Module:
    """Load the model at the end of a phase, in evaluation mode.

    Raises:
        ConfigError: the phase has not been trained to its end in ``OUTPUT_DIR``.
    """
    path = RunFolder(cfg.OUTPUT_DIR).phase(phase).model
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file, phase {phase} has not been trained to its end there; train "
            "(with --resume to continue), or correct OUTPUT_DIR or SSOD.NUM_PHASES"
        )
    model = build_model(cfg)
    DetectionCheckpointer(model).load(str(path))
    return model.eval()
