"""What each process has of its own images, averaged over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from d2_ssod.modeling import running_attributes

from ..processes.interruption import may_stop_after


class AverageOverRanks(HookBase):
    """Averages statistics over all ranks of a ``PhaseTrainer`` wherever a checkpoint may be.

    A checkpoint has one of each. Where there is none they are averaged as well, so that a run that
    is stopped and resumed goes the same way as one that is not.
    """

    def __init__(self, periods: Sequence[int]) -> None:
        """Average on every rank.

        Args:
            periods: of checkpoints and of evaluations, which one may end; 0: there are none.
        """
        self._periods = [period for period in periods if period > 0]

    def after_step(self) -> None:
        """Average where a checkpoint is or may be written: also where a signal may end training."""
        done = self.trainer.iter + 1
        is_due = any(done % period == 0 for period in self._periods)
        if is_due or done >= self.trainer.max_iter or may_stop_after(done):
            self.average()

    def average(self) -> None:
        """Average now: statistics of batch normalization, and numbers beside the weights."""
        if comm.get_world_size() == 1:
            return
        model, averaging = self.trainer.bare_model, self.trainer.averaging
        states = [dict(model.named_buffers())]
        if averaging is not None:
            states.append(averaging.average)
        _average_in_place(list(_statistics(model, states)))
        _average_attributes(self.trainer.cfg, model)


def _statistics(model: nn.Module, states: Iterable[dict[str, Tensor]]) -> Iterator[Tensor]:
    """Yield what batch normalization has seen, of each of these states of the model."""
    for prefix, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            for state in states:
                yield state[f"{prefix}.running_mean"]
                yield state[f"{prefix}.running_var"]


def _average_in_place(tensors: Sequence[Tensor]) -> None:
    """Average tensors over all ranks, in one message."""
    if not tensors:
        return
    together = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(together)
    together /= comm.get_world_size()
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, average in zip(tensors, together.split(sizes), strict=True):
        tensor.copy_(average.view_as(tensor))


def _average_attributes(cfg: CfgNode, model: nn.Module) -> None:
    for name in running_attributes(cfg, model):
        values = comm.all_gather(getattr(model, name))
        setattr(model, name, sum(values) / len(values))
