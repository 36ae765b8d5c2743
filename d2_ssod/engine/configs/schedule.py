"""What a phase's config is: the run's, with the phase's own values where Detectron2 reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm

from d2_ssod.artifacts import RunFolder
from d2_ssod.config import value_of
from d2_ssod.errors import ConfigError

WARM_UP_REMEDY = "set it to a tenth of the iterations of the shortest phase, or train longer"
# Where the value for all phases stands, of each key of SSOD.SCHEDULE that has one.
_FOR_ALL_PHASES = {
    "MAX_ITER": "SOLVER.MAX_ITER",
    "STEPS": "SOLVER.STEPS",
    "BASE_LR": "SOLVER.BASE_LR",
    "LABELED_REPEAT": "SSOD.LABELED_REPEAT",
}


def phase_config(cfg: CfgNode, phase: int, num_labeled: int, num_pseudo: int) -> CfgNode:
    """Derive the config that a phase trains with, as an ordinary Detectron2 training.

    ``SOLVER.MAX_ITER``, ``STEPS`` and ``BASE_LR``, ``SSOD.LABELED_REPEAT``, ``MODEL.WEIGHTS`` (what
    the phase starts from) and ``OUTPUT_DIR`` (its folder) are the phase's own;
    ``SSOD.TEACHER.ENABLED`` is for the last one. With ``SOLVER.REFERENCE_WORLD_SIZE``, batch size,
    schedule and learning rate are scaled to the number of processes by Detectron2's linear rule,
    ``SSOD.TEACHER.START`` and ``SSOD.AVERAGE.DECAY`` with them.

    Args:
        cfg: the run's config.
        phase: 0..N.
        num_labeled: labeled images that it trains on.
        num_pseudo: other images that it trains on, pseudo-labeled ones from phase 1 on.
    """
    folder = RunFolder(cfg.OUTPUT_DIR)
    own = cfg.clone()
    own.defrost()
    own.SSOD.LABELED_REPEAT = value_of_phase(cfg, "LABELED_REPEAT", phase) if phase > 0 else 1
    own.SOLVER.BASE_LR = float(value_of_phase(cfg, "BASE_LR", phase))
    images = num_labeled * own.SSOD.LABELED_REPEAT + num_pseudo
    own.SOLVER.MAX_ITER, steps = _iterations(cfg, phase, images)
    # One at the end or beyond, as short phases have by rounding, has no effect and is an error.
    own.SOLVER.STEPS = tuple(step for step in steps if step < own.SOLVER.MAX_ITER)
    if phase > 0 and cfg.SSOD.PHASE_INIT != "pretrained":
        start = 0 if cfg.SSOD.PHASE_INIT == "supervised" else phase - 1
        own.MODEL.WEIGHTS = str(folder.phase(start).model)
    own.SSOD.TEACHER.ENABLED = cfg.SSOD.TEACHER.ENABLED and 0 < phase == cfg.SSOD.NUM_PHASES
    own.VIS_PERIOD = 0  # Detectron2's pictures of training need OpenCV
    own.OUTPUT_DIR = str(folder.phase(phase).folder)
    own.freeze()
    return _scaled(own)


def _scaled(own: CfgNode) -> CfgNode:
    """Scale what was written for ``SOLVER.REFERENCE_WORLD_SIZE`` processes to those there are."""
    reference, processes = own.SOLVER.REFERENCE_WORLD_SIZE, comm.get_world_size()
    scaled = DefaultTrainer.auto_scale_workers(own, processes)
    if reference in (0, processes):
        return scaled
    scaled.defrost()
    solver = scaled.SOLVER
    # Detectron2 rounds; short ones become 0, and neighbors one.
    solver.MAX_ITER = max(1, solver.MAX_ITER)
    solver.CHECKPOINT_PERIOD = max(1, solver.CHECKPOINT_PERIOD)
    scaled.TEST.EVAL_PERIOD = max(min(1, own.TEST.EVAL_PERIOD), scaled.TEST.EVAL_PERIOD)
    solver.STEPS = tuple(sorted({step for step in solver.STEPS if 0 < step < solver.MAX_ITER}))
    # Keys that it does not know. An average is to forget as much by each image.
    scaled.SSOD.TEACHER.START = round(own.SSOD.TEACHER.START * reference / processes)
    scaled.SSOD.AVERAGE.DECAY = own.SSOD.AVERAGE.DECAY ** (processes / reference)
    scaled.freeze()
    return scaled


def _iterations(cfg: CfgNode, phase: int, images: int) -> tuple[int, tuple[int, ...]]:
    """``MAX_ITER`` and ``STEPS`` of a phase in which an epoch has so many images."""
    if not cfg.SSOD.SCHEDULE.EPOCHS:
        return value_of_phase(cfg, "MAX_ITER", phase), _tuple(value_of_phase(cfg, "STEPS", phase))

    def iterations(epochs: float) -> int:
        return max(1, math.floor(epochs * images / cfg.SOLVER.IMS_PER_BATCH + 0.5))

    drops = value_of_phase(cfg, "STEP_EPOCHS", phase) if cfg.SSOD.SCHEDULE.STEP_EPOCHS else ()
    epochs = value_of_phase(cfg, "EPOCHS", phase)
    return iterations(epochs), tuple(map(iterations, _tuple(drops)))


def describe_schedule(
    own: CfgNode, num_labeled: int, num_others: int, kind: str = "pseudo-labeled"
) -> str:
    """Say in one line what a phase trains on, and how long.

    Args:
        own: of :func:`phase_config`.
        num_labeled: labeled images that it trains on.
        num_others: further images that it trains on.
        kind: of these.
    """
    repeat = own.SSOD.LABELED_REPEAT
    solver, images = own.SOLVER, num_labeled * repeat + num_others
    epochs = solver.MAX_ITER * solver.IMS_PER_BATCH / images
    drops = solver.STEPS
    return (
        f"{num_labeled} labeled{f' x {repeat}' if repeat > 1 else ''}"
        f"{f' + {num_others} {kind}' if num_others else ''} images, {solver.MAX_ITER} "
        f"iterations of {solver.IMS_PER_BATCH} images ({epochs:.3g} epochs), learning rate "
        f"{solver.BASE_LR:g}"
        + (f", drops at {', '.join(map(str, drops))}" if drops and has_steps(own) else "")
    )


def has_steps(cfg: CfgNode) -> bool:
    """Tell whether the learning rate drops at ``STEPS``."""
    return "MultiStep" in cfg.SOLVER.LR_SCHEDULER_NAME


def phases_without_drop(cfg: CfgNode) -> list[int]:
    """List the phases in which no step comes before the end, or of which there are none."""
    ends = {p: _iterations(cfg, p, images=0) for p in range(cfg.SSOD.NUM_PHASES + 1)}
    return [phase for phase, (lasts, steps) in ends.items() if min(steps, default=lasts) >= lasts]


def warm_up_problem(own: CfgNode, phase: int) -> str | None:
    """Say, in a sentence, if most of a phase is warm-up."""
    solver = own.SOLVER
    if solver.MAX_ITER >= 2 * solver.WARMUP_ITERS:
        return None
    return (
        f"Phase {phase} has {solver.MAX_ITER} iterations, but SOLVER.WARMUP_ITERS is "
        f"{solver.WARMUP_ITERS}: most of it is warm-up, with a learning rate of at most "
        f"{max(_learning_rates(own)):.2g} (BASE_LR is {solver.BASE_LR:g})"
    )


def _learning_rates(own: CfgNode) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], own.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(own, optimizer)
    rates = []
    for _ in range(own.SOLVER.MAX_ITER):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def check_schedule(cfg: CfgNode) -> None:
    """Check that every phase has a schedule.

    Raises:
        ConfigError: naming the key that has another number of values than there are phases, or two
            that exclude each other.
    """
    schedule, phases = cfg.SSOD.SCHEDULE, cfg.SSOD.NUM_PHASES
    for key, values in schedule.items():
        if values and len(values) != phases + 1:
            raise ConfigError(
                f"SSOD.SCHEDULE.{key} has {len(values)} values, {tuple(values)}, but "
                f"SSOD.NUM_PHASES = {phases} needs {phases + 1}, one for each of the phases "
                f"0..{phases}; or leave it empty"
            )
    for other, key in (("MAX_ITER", "EPOCHS"), ("STEPS", "STEP_EPOCHS"), ("STEPS", "EPOCHS")):
        if schedule[other] and schedule[key]:
            raise ConfigError(
                f"SSOD.SCHEDULE.{other} ({schedule[other]}) and .{key} ({schedule[key]}) are both "
                f"given; schedules are in iterations or in epochs: set one of them to ()"
            )
    if schedule.STEP_EPOCHS and not schedule.EPOCHS:
        raise ConfigError(
            "SSOD.SCHEDULE.STEP_EPOCHS is given without SSOD.SCHEDULE.EPOCHS; give both, or "
            "SSOD.SCHEDULE.MAX_ITER and STEPS"
        )
    if not schedule.EPOCHS and not schedule.MAX_ITER and cfg.SOLVER.MAX_ITER < 1:
        raise ConfigError(f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}; it must be at least 1")


def value_of_phase(cfg: CfgNode, key: str, phase: int) -> Any:
    """Get the value of a key of ``SSOD.SCHEDULE`` in a phase, or that of all phases."""
    values = cfg.SSOD.SCHEDULE[key]
    return values[phase] if values else value_of(cfg, _FOR_ALL_PHASES[key])


def _tuple(steps: float | Sequence) -> tuple:
    """One step may stand without a list around it."""
    return tuple(steps) if isinstance(steps, (list, tuple)) else (steps,)
