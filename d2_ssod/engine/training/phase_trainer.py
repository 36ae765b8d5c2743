"""The trainer of one phase: Detectron2's, on batches that are a function of the iteration."""

from __future__ import annotations

import functools
import logging
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    hooks,
)
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from torch import nn

from d2_ssod.artifacts import AtomicCheckpointer, DamagedCheckpoint, PhaseFolder
from d2_ssod.data.loader import PhaseImages, build_phase_loader
from d2_ssod.data.mapper import PseudoLabelMapper
from d2_ssod.errors import ConfigError, one_line
from d2_ssod.evaluation import validate
from d2_ssod.modeling import running_attributes
from d2_ssod.randomness import Purpose, derive_seed, seed_generators, with_drawn_seed

from ..processes.agreement import agree_on_weights, on_all_ranks, on_main_process
from ..processes.interruption import InterruptibleEvaluation, StopOnSignal
from .averaging import AverageWeights
from .building import odd_parts, said_in_one_line
from .on_cpu import autocast_in_training, avoid_compiled_losses
from .rank_averages import AverageOverRanks
from .teacher import Teacher

logger = logging.getLogger(__name__)


class PhaseTrainer(DefaultTrainer):
    """An ordinary :class:`DefaultTrainer` for the images of one phase.

    Its own are the optimizer, the loader, checkpoints that are written whole, and randomness that
    is derived from seed, phase and iteration. A run that is resumed from any of its checkpoints
    ends with the same weights as one that was not interrupted (bit for bit on the CPU).
    """

    def __init__(
        self, cfg: CfgNode, phase: int, labeled: list[dict], pseudo: list[dict] = ()
    ) -> None:
        """Build model, optimizer and schedule.

        Args:
            cfg: of the phase (:func:`phase_config`).
            phase: 0..N.
            labeled: dicts of the labeled images.
            pseudo: dicts of the selected pseudo-labeled images; of unlabeled ones in phase 0, for
                detectors that learn from these.
        """
        # Not DefaultTrainer.__init__, whose distributed model is for GPUs only.
        TrainerBase.__init__(self)
        cfg = with_drawn_seed(cfg)  # a run has drawn it already
        self.cfg, self.phase = cfg, phase
        self.images = PhaseImages.merge(
            labeled,
            list(pseudo),
            sampling=cfg.SSOD.SAMPLING,
            labeled_repeat=cfg.SSOD.LABELED_REPEAT,
        )
        seed_generators(derive_seed(cfg.SEED, phase, Purpose.WEIGHTS))
        model, self._mapper = self.build_parts(cfg)
        for line in odd_parts(cfg, model):
            logger.warning("%s", line)
        on_gpu = next(model.parameters()).is_cuda
        if not on_gpu:
            avoid_compiled_losses()
        distributed = create_ddp_model(
            model,
            broadcast_buffers=False,
            device_ids=[comm.get_local_rank()] if on_gpu else None,
        )
        with said_in_one_line("the optimizer or its schedule", "SOLVER.*"):
            optimizer = self.build_optimizer(cfg, model)
            self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        if cfg.SOLVER.AMP.ENABLED and not on_gpu:
            autocast_in_training(distributed)
        trainer = AMPTrainer if cfg.SOLVER.AMP.ENABLED and on_gpu else SimpleTrainer
        self._trainer = trainer(distributed, None, optimizer)
        self.checkpointer = AtomicCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.averaging = self._build_averaging()
        self.teacher: Teacher | None = None
        self.register_hooks(self.build_hooks())
        if self.averaging is not None and self.averaging not in self._hooks:
            self.register_first(self.averaging)  # hooks of one's own, without those of super()

    @classmethod
    def build_parts(cls, cfg: CfgNode) -> tuple[nn.Module, PseudoLabelMapper]:
        """Build the model and the mapper of its images.

        Raises:
            ConfigError: the config does not allow for one of them.
        """
        with said_in_one_line("the model", "MODEL.*"):
            model = cls.build_model(cfg)
        with said_in_one_line("the mapper of the images", "INPUT.*"):
            return model, cls.build_mapper(cfg)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """``SSOD.OPTIMIZER`` with Detectron2's parameter groups and gradient clipping."""
        if cfg.SSOD.OPTIMIZER == "SGD":
            return super().build_optimizer(cfg, model)
        groups = get_default_optimizer_params(
            model,
            base_lr=cfg.SOLVER.BASE_LR,
            weight_decay=cfg.SOLVER.WEIGHT_DECAY,
            weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
            bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
            weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        )
        return maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(groups, lr=cfg.SOLVER.BASE_LR)

    @classmethod
    def build_mapper(cls, cfg: CfgNode) -> PseudoLabelMapper:
        """Build what turns a data set dict into a training input; override for your own."""
        return PseudoLabelMapper(cfg, is_train=True)

    def build_hooks(self) -> list[hooks.HookBase]:
        """Detectron2's hooks for time, learning rate, checkpoints and metrics."""
        period = self.cfg.SOLVER.CHECKPOINT_PERIOD
        evaluation_period = self.cfg.TEST.EVAL_PERIOD if self.cfg.DATASETS.VAL else 0
        saves, writes, evaluation = [], [], []
        if comm.is_main_process():
            saves = [hooks.PeriodicCheckpointer(self.checkpointer, period)]
            writes = [hooks.PeriodicWriter(self.build_writers(), period=20)]
        if evaluation_period > 0:
            evaluation = [InterruptibleEvaluation(evaluation_period, self._validate, False)]
        return [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            *([] if self.averaging is None else [self.averaging]),
            AverageOverRanks([period, evaluation_period]),
            *saves,
            StopOnSignal(),
            *evaluation,
            *writes,
        ]

    def _build_averaging(self) -> AverageWeights | None:
        """Build what averages the weights, if they are averaged."""
        keys = self.cfg.SSOD.AVERAGE
        if keys.DECAY == 0:
            return None
        # Without a phase before it, the weights that it begins with are those of no detector.
        ramp = keys.RAMP or not _is_of_a_phase(self.cfg, self.phase)
        return AverageWeights(self.bare_model, keys.DECAY, ramp=ramp)

    def register_first(self, hook: hooks.HookBase) -> None:
        """Have a hook called before all that there are, as they may end training."""
        others, self._hooks = self._hooks, []
        self.register_hooks([hook])
        self._hooks += others

    def learn_from_teacher(self, objects_per_image: np.ndarray) -> None:
        """Have the average of the weights label the pseudo-labeled images anew, batch by batch.

        ``SSOD.AVERAGE.DECAY`` must be above 0.

        Args:
            objects_per_image: float64 [C], objects of each class per labeled image with objects.
        """
        self.teacher = Teacher.from_config(
            self.cfg, self.bare_model, self.averaging, objects_per_image
        )
        self.register_hooks([self.teacher])

    def resume_or_load(self, resume: bool = True) -> None:
        """Load the last checkpoint that is whole, or else what the phase starts from.

        Raises:
            ConfigError: there is no such file, none of the checkpoints is whole, or it is beyond
                the schedule's end.
        """
        # Those that the main process sees: all ranks go on from the same one. By their names alone,
        # as the folder may have another one on each machine.
        usable = self.checkpointer.usable_checkpoints() if resume else []
        names = comm.all_gather([os.path.basename(path) for path in usable])[0]
        checkpoints = [os.path.join(self.checkpointer.save_dir, name) for name in names]
        resume = bool(checkpoints)
        if not resume:
            check_weights(self.cfg.MODEL.WEIGHTS, self.phase)
        # What this run has made fits, all of it; weights from elsewhere may be of another head.
        self.checkpointer.must_fit = resume or _is_of_a_phase(self.cfg, self.phase)
        if resume:
            self._load_first_whole(checkpoints)
        else:
            super().resume_or_load(False)
            agree_on_weights(self.bare_model)
        if self.start_iter > self.max_iter:
            raise ConfigError(
                f"phase {self.phase} has been trained for {self.start_iter} iterations, but its "
                f"schedule (SSOD.SCHEDULE.MAX_ITER or .EPOCHS, or SOLVER.MAX_ITER) now ends after "
                f"{self.max_iter}: set it back, or start anew without --resume"
            )
        if resume:
            logger.info(
                "Phase %d: resuming at iteration %d of %d",
                *(self.phase, self.start_iter, self.max_iter),
            )

    def _load_first_whole(self, checkpoints: Sequence[str]) -> None:
        """Load the first that every rank can read."""
        for number, path in enumerate(checkpoints):
            try:
                on_all_ranks(functools.partial(self.checkpointer.load, path), DamagedCheckpoint)
            except DamagedCheckpoint as error:
                if number == len(checkpoints) - 1:
                    raise
                logger.warning("%s. Going on from the checkpoint before it", error)
            else:
                self.start_iter = self.iter + 1
                return

    def train(self) -> None:
        """Train from ``start_iter`` to the end of the phase."""
        self._trainer.reset_data_loader(self._build_batches)
        self._trainer.model.train()
        if self.start_iter >= self.max_iter:
            self._end_as_trained()
        # Not DefaultTrainer's, which then looks for results to compare with TEST.EXPECTED_RESULTS.
        TrainerBase.train(self, self.start_iter, self.max_iter)
        # Which all read from now on. No other rank may look for it before: a network file system
        # would remember that it was not there.
        on_main_process(self._save_final_if_missing)

    def _build_batches(self) -> Iterator[list[dict]]:
        """Build the batches from ``start_iter`` on."""
        batches = build_phase_loader(
            self.cfg,
            self._mapper,
            self.images,
            phase=self.phase,
            start=self.start_iter,
        )
        if self.phase > 0:
            batches = _checked(batches)
        if self.teacher is not None:
            batches = self.teacher.relabel(batches, self.start_iter)
        return batches

    def after_train(self) -> None:
        """Let go of the loader, whose workers end, before hooks start others to label images."""
        self._trainer.reset_data_loader(tuple)
        super().after_train()

    def _end_as_trained(self) -> None:
        """Do what was left to do when training was interrupted after its last iteration."""
        if self.averaging is not None:
            self.averaging.hand_over()
        self._save_final()

    def _save_final_if_missing(self) -> None:
        """Save the model where hooks of one's own, in place of those of build_hooks, have not."""
        if not PhaseFolder(Path(self.cfg.OUTPUT_DIR)).model.exists():
            self._save_final()

    def _save_final(self) -> None:
        if comm.is_main_process():
            self.checkpointer.save("model_final", iteration=self.max_iter - 1)

    def run_step(self) -> None:
        """Train on one batch.

        Raises:
            ConfigError: the loss is not finite.
        """
        try:
            super().run_step()
        except FloatingPointError as error:
            raise ConfigError(
                f"phase {self.phase}, iteration {self.iter}: training has diverged "
                f"({one_line(error)[:300]}); lower SOLVER.BASE_LR, lengthen "
                "SOLVER.WARMUP_ITERS or set SOLVER.CLIP_GRADIENTS.ENABLED, then start anew, or go "
                "on from the last checkpoint with --resume and SSOD.RESUME_ANYWAY True"
            ) from error

    def state_dict(self) -> dict:
        """Add what a checkpoint keeps besides the model's own ``state_dict``."""
        return {
            **super().state_dict(),
            "running_attributes": running_attributes(self.cfg, self.bare_model),
        }

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue from a checkpoint's state, at the rates and decays of the config."""
        if isinstance(self._trainer, AMPTrainer):  # a checkpoint without mixed precision has none
            scaler = self._trainer.grad_scaler.state_dict()
            state_dict["_trainer"].setdefault("grad_scaler", scaler)
        with _own_settings(self.optimizer, self.scheduler):
            super().load_state_dict(state_dict)
        for name, value in state_dict.get("running_attributes", {}).items():
            setattr(self.bare_model, name, value)

    @property
    def bare_model(self) -> nn.Module:
        """The model without its distributed wrapper."""
        return self.checkpointer.model

    def _validate(self) -> dict[str, dict]:
        """Evaluate what would be kept now on ``DATASETS.VAL``; metrics by data set."""
        average = nullcontext() if self.averaging is None else self.averaging.in_place_of_weights()
        with average:
            return {
                name: validate(self.cfg, name, self.bare_model) for name in self.cfg.DATASETS.VAL
            }


@contextmanager
def _own_settings(
    optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler
) -> Iterator[None]:
    """Have both keep what the config asks for, whatever is loaded into them in this block.

    It is the same, unless ``SSOD.RESUME_ANYWAY`` allowed for something else.
    """
    settings = [
        {key: value for key, value in group.items() if key not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
    yield
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group["lr"] *= own["initial_lr"] / (group["initial_lr"] or 1)  # 0: of a frozen group
        group.update(own)
    scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]


def _checked(batches: Iterator[list[dict]]) -> Iterator[list[dict]]:
    """Say of the first batch if labels do not tell whether they are pseudo-labels."""
    for number, batch in enumerate(batches):
        labeled = [sample["instances"] for sample in batch if "instances" in sample]
        if number == 0 and labeled and not any(own.has("gt_is_pseudo") for own in labeled):
            logger.warning(
                "the mapper gives no gt_is_pseudo, so that all labels are learned as a person's, "
                "and SSOD.ROI_WEIGHTING and tiers have no effect: derive it from PseudoLabelMapper"
            )
        yield batch


def _is_of_a_phase(cfg: CfgNode, phase: int) -> bool:
    """Tell whether the phase starts from the model of an earlier one."""
    return phase > 0 and cfg.SSOD.PHASE_INIT != "pretrained"


def check_weights(weights: str, phase: int) -> None:
    """Check that what a phase starts from exists, unless it is an address.

    Raises:
        ConfigError: there is no such file.
    """
    # Detectron2 takes options after a question mark.
    if weights and "://" not in weights and not Path(weights.split("?")[0]).is_file():
        raise ConfigError(
            f"phase {phase} starts from {weights}, which is not a file: correct MODEL.WEIGHTS "
            "(empty for random weights) or SSOD.PHASE_INIT, which name it"
        )
