"""What all processes of a run must have in common: config, output folder, images.

On several machines each has its own command and its own disks. Where they differ, processes would
wait for each other in different places, for ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from d2_ssod.artifacts import digest_of
from d2_ssod.config import flat_keys
from d2_ssod.errors import ConfigError, one_line
from d2_ssod.json_files import atomic_open

_Result = TypeVar("_Result")

_PATIENCE = 30.0  # seconds; by default NFS looks at a folder anew after as many
_AGAIN_AFTER = 0.2  # seconds
_MOST_NAMED = 3  # keys or places in a line


def agree_on_config(cfg: CfgNode, **flags: Any) -> None:
    """Check that all ranks were given the same config; to be called on every rank.

    ``OUTPUT_DIR`` may have another name on each machine (:func:`agree_on_folder`).

    Args:
        cfg: of this rank.
        flags: of the command line, which must be the same, too.

    Raises:
        ConfigError: on all ranks; it names the keys that differ.
    """
    own = {f"--{name.replace('_', '-')}": repr(value) for name, value in flags.items()}
    own |= {key: repr(value) for key, value in flat_keys(cfg) if key != "OUTPUT_DIR"}
    if differences := _differences(own):
        raise ConfigError(
            f"the processes of this run have different configs: {_first_ones(differences)}; "
            "start all machines with the same config file, flags and KEY VALUE pairs"
        )


def agree_on_folder(output_dir: str | os.PathLike) -> None:
    """Check that all ranks see the same output folder; to be called on every rank.

    The main process writes a file with a random name, which every rank looks for. The folder is
    made if it does not exist.

    Args:
        output_dir: ``OUTPUT_DIR`` of this rank.

    Raises:
        ConfigError: on all ranks; it names those that do not see the main process's folder.
    """
    if comm.get_world_size() == 1:
        return
    folder = Path(os.path.abspath(output_dir))
    name = comm.all_gather(f".seen_by_all_{secrets.token_hex(8)}")[0]
    try:
        on_main_process(lambda: _write_token(folder / name))
        views = comm.all_gather((platform.node(), str(folder), _appears(folder, name)))
    finally:
        if comm.is_main_process():
            (folder / name).unlink(missing_ok=True)
    blind: dict[str, list[int]] = {}
    for rank, (host, place, sees) in enumerate(views):
        if not sees:
            blind.setdefault(f"{host} (in {place})", []).append(rank)
    if blind:
        who = [f"{_ranks(ranks)} on {place}" for place, ranks in blind.items()]
        raise ConfigError(
            f"OUTPUT_DIR is not one folder: {_first_ones(who)} cannot see what rank 0 on "
            f"{views[0][0]} writes into {views[0][1]}; put OUTPUT_DIR on a file system that all "
            "machines share, and name it with its whole path"
        )


def agree_on_images(sets: Mapping[str, Sequence[dict]]) -> None:
    """Check that all ranks have read the same images; to be called on every rank.

    Predictions are kept by image id, which a missing file may have shifted on one machine.

    Args:
        sets: Detectron2 dicts by what names them.

    Raises:
        ConfigError: on all ranks; it names the first data set that differs, and where.
    """
    if comm.get_world_size() == 1:
        return
    own = {place: _fingerprint(images) for place, images in sets.items()}
    if differences := _differences(own):
        raise ConfigError(
            "the images, their names, order or objects are not the same on all machines: "
            f"{_first_ones(differences)}; copy the data set whole to every machine"
        )


def agree_on_weights(model: nn.Module) -> None:
    """Check that all ranks have loaded the same weights; to be called on every rank.

    Raises:
        ConfigError: on all ranks; it names the machines whose weights differ.
    """
    if comm.get_world_size() == 1:
        return
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    if differences := _differences({"their digest": digest.hexdigest()[:8]}):
        raise ConfigError(
            "the weights that training starts from (MODEL.WEIGHTS, MODEL.TIMM.WEIGHTS) are not the "
            f"same on all machines: {_first_ones(differences)}; copy the same file to every one"
        )


def on_main_process(function: Callable[[], _Result]) -> _Result:
    """Call ``function`` on the main process alone; all ranks wait for its result, and have it.

    Also for asking whether a file exists, where the answer decides what all ranks do: on a network
    file system another machine may remember an older one.

    Raises:
        ConfigError: on the others, where it fails there; the main process has the error itself.
    """
    result, error = None, None
    if comm.is_main_process():
        try:
            result = function()
        except Exception as caught:
            error = caught
    result, said = comm.all_gather((result, None if error is None else _said(error)))[0]
    if error is not None:
        raise error
    if said is not None:
        raise ConfigError(f"rank 0: {said}")
    return result


def _said(error: Exception) -> str:
    if isinstance(error, (ConfigError, OSError)):
        return str(error)
    return f"{type(error).__name__}: {one_line(error)}"


def on_all_ranks(
    function: Callable[[], _Result], error: type[ConfigError] = ConfigError
) -> _Result:
    """Call ``function`` on every rank; where it fails on any by such an error, it does on all.

    Raises:
        ConfigError: ``error``, on every rank the same: that of the first rank that has one.
    """
    result, own = None, None
    try:
        result = function()
    except error as caught:
        own = caught
    problems = list(filter(None, comm.all_gather(own and str(own))))
    if problems:
        raise error(problems[0]) from (own and own.__cause__)
    return result


def _differences(own: Mapping[str, str]) -> list[str]:
    """Say what of these is another on the first rank that has not all as rank 0; on every rank."""
    (first_host, first), *others = comm.all_gather((platform.node(), dict(own)))
    for rank, (host, other) in enumerate(others, 1):
        if first != other:
            return [
                f"{key} is {first.get(key)} on rank 0 ({first_host}) and {other.get(key)} on rank "
                f"{rank} ({host})"
                for key in first | other
                if first.get(key) != other.get(key)
            ]
    return []


def _fingerprint(images: Sequence[dict]) -> str:
    """Say how many images there are, with a digest of their ids, names and objects."""
    ids = repr([image["image_id"] for image in images]).encode(errors="surrogateescape")
    digest = hashlib.sha256(ids + digest_of(images, crowds=True).encode()).hexdigest()
    return f"{len(images)} images ({digest[:8]})"


def _write_token(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path, encoding="utf-8") as file:
        file.write("Checks that all machines see this folder; may be deleted.\n")


def _appears(folder: Path, name: str) -> bool:
    """Tell whether the folder has a file of that name, by and by."""
    end = time.monotonic() + _PATIENCE
    while True:
        # Of a list, not by its name, whose absence a network file system would remember.
        with contextlib.suppress(OSError):
            if name in os.listdir(folder):
                return True
        if time.monotonic() >= end:
            return False
        time.sleep(_AGAIN_AFTER)


def _ranks(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def _first_ones(texts: list[str]) -> str:
    more = f"; and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return "; ".join(texts[:_MOST_NAMED]) + more
