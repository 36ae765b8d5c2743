"""The trainer of all phases: one training run, one model object, restarted in every phase."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, TrainerBase, hooks
from detectron2.modeling import build_model
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from d2_ssod.data.loader import build_phase_loader
from d2_ssod.data.mapper import PseudoLabelMapper
from d2_ssod.errors import ConfigError
from d2_ssod.modeling import UncertaintyOutputLayers

from .checkpoints import WholeCheckpointer
from .data import RunData
from .hooks import PhaseHook
from .phases import phase_config, phase_files, phase_seed, phase_starts
from .provenance import check_predictions
from .pseudo_labeling import prepare_pseudo_labels
from .resume import check_starts, finished_phases
from .so_far import discard_so_far

logger = logging.getLogger(__name__)


class MultiPhaseTrainer(DefaultTrainer):
    """Trains phases 0..N one after another (Algorithm 1).

    Model, optimizer and their distributed wrapper stay the same objects throughout; entering a
    phase gives them a new start, and the trainer a new loader and schedule.
    """

    def __init__(self, cfg: CfgNode, data: RunData) -> None:
        # DefaultTrainer.__init__ would build one loader and schedule for the whole run.
        TrainerBase.__init__(self)
        self.cfg = cfg
        self.data = data
        self.starts = phase_starts(cfg)
        self.seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        model = self.build_model(cfg)
        _warn_if_nothing_weighs(cfg, model)
        optimizer = self.build_optimizer(cfg, model)
        trainer = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer(distribute(model), None, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = WholeCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = self.starts[-1]
        self.register_hooks(self.build_hooks())

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
        """What turns a data set dict into a training input; override for your own."""
        return PseudoLabelMapper(cfg, is_train=True)

    def build_hooks(self) -> list:
        """Detectron2's hooks, without evaluation, and the one that leads through the phases."""
        periodic = [
            hooks.PeriodicCheckpointer(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD),
            hooks.PeriodicWriter(self.build_writers(), period=20),
        ]
        return [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            PhaseHook(self.starts, self.enter_phase, self.finish_phase),
            *(periodic if comm.is_main_process() else []),
        ]

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue if asked to, from the last checkpoint, or else after the last finished phase.

        Each phase loads its own start.

        Raises:
            ConfigError: what is in ``OUTPUT_DIR`` was made with another config.
        """
        if not resume:
            return
        if Path(self.checkpointer.get_checkpoint_file()).is_file():
            self.checkpointer.resume_or_load("", resume=True)
            self.start_iter = self.iter + 1
        else:
            finished = finished_phases(self.cfg.OUTPUT_DIR, self.cfg.SSOD.NUM_PHASES)
            self.start_iter = self.starts[finished]
        if self.start_iter > 0:
            logger.info("Resuming at iteration %d of %d", self.start_iter, self.max_iter)
        if not phase_files(self.cfg.OUTPUT_DIR, self.cfg.SSOD.NUM_PHASES).pseudo_labels.exists():
            # Now, not hours later at the start of the phase that uses them.
            for phase in range(self.cfg.SSOD.NUM_PHASES):
                check_predictions(self.cfg, phase, self.data.unlabeled)

    def state_dict(self) -> dict:
        """What a checkpoint keeps besides the model."""
        return {**super().state_dict(), "starts": list(self.starts), "seed": int(self.seed)}

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue from a checkpoint's state.

        Raises:
            ConfigError: it is of a run with another schedule.
        """
        super().load_state_dict(state_dict)
        check_starts(state_dict.get("starts", self.starts), self.starts, self.iter + 1)
        if self.cfg.SEED < 0:
            self.seed = state_dict.get("seed", self.seed)

    def enter_phase(self, phase: int, iterations_done: int) -> None:
        """Give the trainer the loader, model start, optimizer state and schedule of a phase.

        Args:
            phase: 0..N.
            iterations_done: iterations of the phase trained before an interruption; only a phase
                at its beginning gets a fresh model and optimizer.
        """
        cfg, seed = phase_config(self.cfg, phase), phase_seed(self.seed, phase)
        pseudo = prepare_pseudo_labels(self.cfg, phase, self.data) if phase > 0 else []
        if iterations_done == 0:
            load_phase_start(cfg, phase, self._model, seed)
        self._restart_optimizer(cfg, iterations_done)
        self._trainer.reset_data_loader(
            lambda: build_phase_loader(
                cfg,
                self.build_mapper(cfg),
                self.data.labeled,
                pseudo,
                labeled_repeat=cfg.SSOD.LABELED_REPEAT,
                seed=seed,
                iterations_done=iterations_done,
            )
        )
        self._trainer.model.train()
        # Augmentation and the sampling of anchors and RoIs: not what an interruption left them at.
        seed_all_rng(phase_seed(self.seed, phase, 1 + comm.get_rank(), 1 + iterations_done))
        logger.info(
            "Phase %d: %d labeled + %d pseudo-labeled images, iterations %d to %d",
            *(phase, len(self.data.labeled), len(pseudo)),
            *(self.starts[phase] + iterations_done, self.starts[phase + 1] - 1),
        )

    def finish_phase(self, phase: int) -> None:
        """Save the phase's model, and a checkpoint from which the next phase can start."""
        average_running_statistics(self._model)
        files = phase_files(self.cfg.OUTPUT_DIR, phase)
        files.folder.mkdir(parents=True, exist_ok=True)
        if comm.is_main_process():
            discard_so_far(files.predictions_so_far)  # It is of another model.
        WholeCheckpointer(self._model, str(files.folder)).save(files.model.stem)
        self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
        comm.synchronize()

    @property
    def _model(self) -> nn.Module:
        """The model without its distributed wrapper."""
        model = self._trainer.model
        return model.module if isinstance(model, DistributedDataParallel) else model

    def _restart_optimizer(self, cfg: CfgNode, iterations_done: int) -> None:
        """Learning rates and schedule of the phase; at its beginning also fresh optimizer state."""
        fresh = self.build_optimizer(cfg, self._model)
        optimizer = self._trainer.optimizer
        if iterations_done == 0:
            optimizer.load_state_dict(fresh.state_dict())
        for group, fresh_group in zip(optimizer.param_groups, fresh.param_groups, strict=True):
            group["lr"] = group["initial_lr"] = fresh_group["lr"]
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        if iterations_done > 0:
            self.scheduler.last_epoch = iterations_done
            for group, rate in zip(optimizer.param_groups, self.scheduler.get_lr(), strict=True):
                group["lr"] = rate


def _warn_if_nothing_weighs(cfg: CfgNode, model: nn.Module) -> None:
    weighs = any(isinstance(module, UncertaintyOutputLayers) for module in model.modules())
    if cfg.SSOD.ROI_WEIGHTING.NAME != "none" and not weighs:
        logger.warning(
            "SSOD.ROI_WEIGHTING.NAME is %r, but MODEL.ROI_HEADS.NAME %r weighs no RoIs: choose "
            "heads whose name starts with Uncertainty, or set it to 'none'",
            *(cfg.SSOD.ROI_WEIGHTING.NAME, cfg.MODEL.ROI_HEADS.NAME),
        )


def distribute(model: nn.Module) -> nn.Module:
    """``model`` wrapped for the processes of this run, on GPUs or CPUs."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    device_ids = [comm.get_local_rank()] if on_gpu else None
    return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)


def load_phase_start(cfg: CfgNode, phase: int, model: nn.Module, seed: int) -> None:
    """Put the weights that ``SSOD.PHASE_INIT`` names into ``model``, the same on all ranks.

    Raises:
        ConfigError: there is no such file.
    """
    source = cfg.MODEL.WEIGHTS
    if phase > 0 and cfg.SSOD.PHASE_INIT != "pretrained":
        start = 0 if cfg.SSOD.PHASE_INIT == "supervised" else phase - 1
        source = str(phase_files(cfg.OUTPUT_DIR, start).model)
    # Detectron2 takes options after a question mark.
    if source and "://" not in source and not Path(source.split("?")[0]).is_file():
        key = "MODEL.WEIGHTS" if source == cfg.MODEL.WEIGHTS else "SSOD.PHASE_INIT"
        raise ConfigError(
            f"{key}: phase {phase} starts from {source}, which is not a file; correct the path "
            "(an empty MODEL.WEIGHTS starts from random weights)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        fresh = build_model(cfg)
    DetectionCheckpointer(fresh).load(source)
    model.load_state_dict(fresh.state_dict())


def average_running_statistics(model: nn.Module) -> None:
    """Average the floating-point buffers over the ranks, each of which saw its own images."""
    if comm.get_world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            torch.distributed.all_reduce(buffer)
            buffer /= comm.get_world_size()
