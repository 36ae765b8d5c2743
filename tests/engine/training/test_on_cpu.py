"""bfloat16 in training on the CPU."""

import pytest
import torch
from torch import nn

from d2_ssod.engine.training.on_cpu import autocast_in_training


class Watching(nn.Module):
    """A layer that notes the precision of its result, or fails."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen = []

    def forward(self, x):
        if x is None:
            raise RuntimeError("no input")
        result = self.layer(x)
        self.seen.append(result.dtype)
        return result.float()


def test_training_alone_is_in_bfloat16():
    model = Watching()
    autocast_in_training(model)
    x = torch.ones(2, 4)
    model(x).sum().backward()
    assert not torch.is_autocast_enabled("cpu")
    assert model.layer.weight.grad.dtype == torch.float32
    model.eval()
    model(x)
    assert model.seen == [torch.bfloat16, torch.float32]


def test_an_error_leaves_no_autocast_behind():
    model = Watching()
    autocast_in_training(model)
    with pytest.raises(RuntimeError, match="no input"):
        model(None)
    assert not torch.is_autocast_enabled("cpu")
