"""Models on disk: written whole or not at all, and loaded by phase."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from d2_ssod.config import with_values
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import atomic_open
from d2_ssod.modeling import named_as

from .architecture import check_architecture
from .checkpoint_files import RESTORE, DamagedCheckpoint, check_sums, reading_checkpoint
from .layout import RunFolder

logger = logging.getLogger(__name__)

_SHOWN = 3  # names of tensors in a message


class AtomicCheckpointer(DetectionCheckpointer):
    """:class:`DetectionCheckpointer` that writes each file whole, and loads one whole or says so.

    Each file is written under another name first, so neither a checkpoint nor ``last_checkpoint``
    is ever found half written. What of a loaded file does not fit the model is an error where
    ``must_fit``, and one line of the log otherwise.
    """

    def __init__(self, *args: Any, must_fit: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.path_manager = _AtomicFiles(self.path_manager)
        self.must_fit = must_fit

    def save(self, name: str, **kwargs: Any) -> None:
        """Write a checkpoint, and note that it is the last one.

        Raises:
            ConfigError: the model has values that are not finite; nothing is written then.
            OSError: the file cannot be written; what there was is as it was.
        """
        wrong = _not_finite(self.model)
        if wrong:
            raise ConfigError(
                f"{self.save_dir}/{name}.pth is not written: {_some(wrong)} has values that are "
                "not finite, so that training has diverged; lower SOLVER.BASE_LR, lengthen "
                "SOLVER.WARMUP_ITERS or set SOLVER.CLIP_GRADIENTS.ENABLED, then start anew, or go "
                "on from the last checkpoint with --resume and SSOD.RESUME_ANYWAY True"
            )
        try:
            super().save(name, **kwargs)
        except RuntimeError as error:
            # PyTorch says where in the file it was, not that the disk is full.
            if isinstance(error.__context__, OSError):
                failed = error.__context__
                if failed.errno and not failed.filename:
                    failed.filename = f"{self.save_dir}/{name}.pth"
                raise failed from error
            raise

    def usable_checkpoints(self) -> list[str]:
        """List what can be gone on from: the last checkpoint, and those before it, newest first.

        Without ``last_checkpoint`` there is none; where that names none, there are all.
        """
        folder = Path(self.save_dir)
        numbers = {path: _iteration(path) for path in folder.glob("model_*.pth")}
        numbered = sorted((p for p in numbers if numbers[p] is not None), key=numbers.get)[::-1]
        tag = folder / "last_checkpoint"
        if not tag.exists():
            if numbered:
                logger.warning(
                    "%s: no such file, so that %s and those before it are not gone on from; they "
                    "will be written over",
                    *(tag, numbered[0]),
                )
            return []
        last = _named_in(tag)
        if last is None:
            then = f"going on from {numbered[0]}" if numbered else "the phase begins anew"
            logger.warning("%s is damaged: %s", tag, then)
            return list(map(str, numbered))
        limit = _iteration(last)
        before = [p for p in numbered if p != last and (limit is None or numbers[p] < limit)]
        return [str(path) for path in [last, *before] if path.is_file()]

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a file, as Detectron2 does.

        Raises:
            ConfigError: it is none, does not fit the model, or cannot be downloaded.
        """
        self._path = path
        try:
            return super().load(path, *args, **kwargs)
        except (OSError, AssertionError) as error:
            if "://" not in path:
                raise
            raise ConfigError(
                f"{path}: cannot be downloaded ({error}); correct the address, or download it "
                "elsewhere and name the file"
            ) from error
        finally:
            self._parsed_url_during_load = None  # An error leaves it, and no load may follow then.

    def _load_file(self, filename: str) -> dict[str, Any]:
        remedy = RESTORE if self.must_fit else "name a file of weights alone"
        with reading_checkpoint(self._path, remedy):
            loaded = super()._load_file(filename)
            check_sums(filename)
        inner = loaded["model"].get("state_dict")  # as MMDetection, Lightning and timm write it
        return {**loaded, "model": inner} if isinstance(inner, dict) else loaded

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        checkpoint["model"] = named_as(checkpoint["model"], self.model)
        given: set[str] = set()
        hook = self.model._register_load_state_dict_pre_hook(
            lambda state, prefix, *_: given.update(state)
        )
        try:
            incompatible = super()._load_model(checkpoint)
        finally:
            hook.remove()
        shapes = {name: (file, model) for name, file, model in incompatible.incorrect_shapes}
        missing = [name for name in incompatible.missing_keys if name not in shapes]
        if self.must_fit:
            _check_fit(self._path, self.model, shapes, missing, incompatible.unexpected_keys)
        else:
            # Not counted by what is missing, of which normalization layers make up a part.
            loaded = len(given & self.model.state_dict().keys())
            _report_start(
                self._path, self.model, loaded, shapes, missing, incompatible.unexpected_keys
            )
        return incompatible


Shapes = dict[str, tuple[Sequence[int], Sequence[int]]]  # in the file, in the model


def _check_fit(
    path: str, model: nn.Module, shapes: Shapes, missing: Sequence[str], unused: Sequence[str]
) -> None:
    """Check that every parameter was loaded, and nothing else, and that all are finite."""
    other = [
        f"{name} is {tuple(found)} in the file and {tuple(wanted)} in the model"
        for name, (found, wanted) in shapes.items()
    ]
    other += [f"{name} is missing" for name in missing]
    other += [f"{name} is not of the model" for name in unused]
    if other:
        raise ConfigError(
            f"{path} does not fit the config's model: {_some(other)}; set MODEL.* (such as the "
            "number of classes) to what it was trained with, or choose another OUTPUT_DIR"
        )
    wrong = _not_finite(model)
    if wrong:
        raise DamagedCheckpoint(
            f"{path}: {_some(wrong)} has values that are not finite, so that training diverged; "
            "delete the file, and train again with a lower SOLVER.BASE_LR"
        )


def _not_finite(model: nn.Module) -> list[str]:
    """List what training has spoilt; other buffers, such as masks, may have infinities."""
    statistics = ("running_mean", "running_var")
    values = dict(model.named_parameters())
    values |= {name: v for name, v in model.named_buffers() if name.endswith(statistics)}
    return [name for name, value in values.items() if not torch.isfinite(value).all()]


def _named_in(tag: Path) -> Path | None:
    """Give the checkpoint that a ``last_checkpoint`` names; None where that is no name of one."""
    try:
        path = tag.parent / tag.read_text(encoding="utf-8").strip()
        return path if re.fullmatch(r"model_\w+\.pth", path.name) or path.is_file() else None
    except ValueError:  # no text, or no path
        return None


def _iteration(path: Path) -> int | None:
    """Read the iteration in the name of a checkpoint within a phase; None for another name."""
    found = re.fullmatch(r"model_(\d+)\.pth", path.name)
    return int(found[1]) if found else None


def _report_start(
    path: str,
    model: nn.Module,
    loaded: int,
    shapes: Shapes,
    missing: Sequence[str],
    unused: Sequence[str],
) -> None:
    """Say how much of the model comes from the file, and what does not."""
    total = len(model.state_dict())
    if wrong := _not_finite(model):  # what is at random is finite
        raise ConfigError(
            f"{path}: {_some(wrong)} has values that are not finite; name another file of weights"
        )
    if loaded == 0:
        raise ConfigError(
            f"{path} has nothing of the config's model, whose parameters are "
            f"{_some(list(model.state_dict()))}, but {_some(unused) or 'nothing at all'}; correct "
            "MODEL.WEIGHTS (empty for random weights), or the names in the file"
        )
    logger.info(
        "Start from %s: %d of %d tensors%s%s%s",
        *(path, loaded, total),
        f"; of another shape, so at random: {_some(list(shapes))}" if shapes else "",
        f"; not in the file, so at random: {_some(missing)}" if missing else "",
        f"; not used: {_some(unused)}" if unused else "",
    )


def _some(items: Sequence[str]) -> str:
    """List the first items, and how many more there are."""
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


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


def half_written_files(output_dir: str | os.PathLike) -> list[Path]:
    """List what kills have left of checkpoints and predictions, each as large as a whole one."""
    names = (".model_*.pth.*.tmp", "phase_*/.model_*.pth.*.tmp", "phase_*/.*.json.*.tmp")
    return sorted(path for name in names for path in Path(output_dir).glob(name))


def load_phase_model(cfg: CfgNode, phase: int) -> nn.Module:
    """Load the model at the end of a phase, in evaluation mode.

    Raises:
        ConfigError: the phase has not been trained to its end in ``OUTPUT_DIR``, or its model is
            another one than the config's.
    """
    folder = RunFolder(cfg.OUTPUT_DIR)
    path = folder.phase(phase).model
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file, phase {phase} has not been trained to its end there; train "
            "(with --resume to continue), or correct OUTPUT_DIR or SSOD.NUM_PHASES"
        )
    check_architecture(cfg, phase, folder)
    return load_model(cfg, path)


def load_model(cfg: CfgNode, path: str | os.PathLike) -> nn.Module:
    """Build the config's model with the weights of a file, in evaluation mode.

    Raises:
        ConfigError: the file does not fit the model.
    """
    model = build_model(with_values(cfg, {"MODEL.TIMM.WEIGHTS": ""}))  # the file has all of them
    AtomicCheckpointer(model, must_fit=True).load(os.fspath(path))
    return model.eval()
