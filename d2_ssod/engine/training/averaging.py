"""The running average of a model's weights, which often finds more than the last weights do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from d2_ssod.modeling import named_as

from ..processes.interruption import signals_wait


class AverageWeights(HookBase):
    """Keeps an exponential moving average of the weights; the model ends with it.

        average <- d average + (1 - d) weights

    after iteration t = 0, 1, ... BatchNorm's statistics are averaged, too; whole numbers are taken
    as they are. After the last iteration the average becomes the model's weights, so that it is
    what is saved, labels and is evaluated.

    With a ramp, d = min(decay, (1 + t) / (10 + t)): the first weights are soon forgotten, as random
    ones should be, and the average is of about the last ninth of the iterations until these are
    9 / (1 - decay). Without, d = decay: good ones are kept until there are others.
    """

    def __init__(self, model: nn.Module, decay: float, *, ramp: bool = True) -> None:
        """Begin with the model's weights.

        Args:
            model: without a distributed wrapper.
            decay: 0..1; 0.999 is an average of about the last 1000 iterations.
            ramp: of d.
        """
        self._model, self._decay, self._ramp = model, decay, ramp
        self.average: dict[str, Tensor] | None = None

    def before_train(self) -> None:
        """Begin anew, unless a checkpoint has brought the average."""
        if self.average is None:
            self.average = {k: v.detach().clone() for k, v in self._model.state_dict().items()}

    def after_step(self) -> None:
        """Average, and after the last iteration hand over."""
        decay = self._decay
        if self._ramp:
            decay = min(decay, (1 + self.trainer.iter) / (10 + self.trainer.iter))
        pairs = [(self.average[name], value) for name, value in self._model.state_dict().items()]
        floating = [pair for pair in pairs if pair[1].is_floating_point()]
        # All at once: there are hundreds of small ones.
        get_ema_multi_avg_fn(decay)(*map(list, zip(*floating, strict=True)), None)
        for average, value in pairs:
            if not value.is_floating_point():
                average.copy_(value)
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self.hand_over()

    def hand_over(self) -> None:
        """Make the average the model's weights."""
        self._model.load_state_dict(self.average)

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Give the model the average for its weights within the block, as at the end."""
        own = {name: value.clone() for name, value in self._model.state_dict().items()}
        try:
            with signals_wait():
                self._model.load_state_dict(self.average)
            yield
        finally:
            with signals_wait():
                self._model.load_state_dict(own)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Give what a checkpoint keeps; Detectron2's trainers save it with their hooks."""
        return {"average": self.average} if self.average is not None else {}

    def load_state_dict(self, state_dict: dict[str, dict[str, Tensor]]) -> None:
        """Go on from a checkpoint."""
        device = next(self._model.parameters()).device
        average = named_as(state_dict["average"], self._model)
        self.average = {name: value.to(device) for name, value in average.items()}
