"""Modules around a detector."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import DataParallel

from d2_ssod.modeling import named_as, unwrapped


class Versioned(nn.Module):
    _version = 2

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(1)), None

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        self.seen = local_metadata.get("version")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def of_parts(*, compiled=()):
    parts = [Versioned(), Versioned()]
    return nn.Sequential(
        *(torch.compile(p, backend="eager") if n in compiled else p for n, p in enumerate(parts))
    )


@pytest.mark.parametrize("in_file", [(), (0,), (0, 1)])
@pytest.mark.parametrize("in_model", [(), (1,), (0, 1)])
def test_weights_are_named_as_those_of_the_model(in_file, in_model):
    """With the versions of modules, which say how they are read."""
    model = of_parts(compiled=in_model)
    found = named_as(of_parts(compiled=in_file).state_dict(), model)
    model.load_state_dict(found)
    assert [unwrapped(part).seen for part in model] == [2, 2]


def test_weights_that_fit_stay_as_they_are():
    weights = of_parts().state_dict()
    assert named_as(weights, of_parts()) is weights
    both = OrderedDict({"0.weight": 1, "0._orig_mod.weight": 2})
    assert named_as(both, of_parts()) is both


def test_weights_of_a_parallel_model_are_named_as_those_of_the_model():
    parallel = DataParallel(of_parts(compiled=(0,)))
    for model in (parallel, torch.compile(parallel, backend="eager")):
        assert list(named_as(model.state_dict(), of_parts())) == ["0.weight", "1.weight"]


def test_all_wrappers_are_taken_off():
    model = nn.Linear(1, 1)
    compiled = torch.compile(DataParallel(model), backend="eager")
    assert unwrapped(DataParallel(compiled)) is model
    assert unwrapped(model) is model
