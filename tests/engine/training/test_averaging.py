"""The moving average of the weights."""

import signal
from types import SimpleNamespace

import pytest
import runs
import torch
from torch import nn

import d2_ssod.demo  # noqa: F401
from d2_ssod.engine import PhaseTrainer
from d2_ssod.engine.processes.interruption import Stopped, handled_signals
from d2_ssod.engine.training.averaging import AverageWeights


class Model(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(weight)))
        self.register_buffer("batches", torch.tensor(0))


def run(hook, model, values, max_iter=100):
    """Have the weight these values after the iterations 0, 1, ..."""
    hook.before_train()
    for iteration, value in enumerate(values):
        hook.trainer = SimpleNamespace(iter=iteration, max_iter=max_iter)
        with torch.no_grad():
            model.weight.fill_(value)
            model.batches += 1
        hook.after_step()


def test_a_good_beginning_is_kept_as_long_as_any_weights():
    model = Model(8)
    hook = AverageWeights(model, 0.75, ramp=False)
    run(hook, model, [0, 4])
    # 8 -> 3/4 8 = 6 -> 3/4 6 + 1/4 4
    assert hook.average["weight"].item() == pytest.approx(5.5)
    assert hook.average["batches"].item() == 2  # whole numbers are not averaged
    assert model.weight.item() == 4


def test_random_weights_are_soon_forgotten():
    model = Model(8)
    hook = AverageWeights(model, 0.999)
    run(hook, model, [0, 0])
    # d = 1/10, then 2/11
    assert hook.average["weight"].item() == pytest.approx(8 * 1 / 10 * 2 / 11)


def test_the_average_becomes_the_model_at_the_end():
    model = Model(8)
    hook = AverageWeights(model, 0.75, ramp=False)
    run(hook, model, [0, 4], max_iter=2)
    assert model.weight.item() == pytest.approx(5.5)


@pytest.mark.parametrize(
    ("phase", "starts_from", "ramp", "forgets"),
    [
        (0, "previous", False, True),
        (1, "pretrained", False, True),  # heads at random, too
        (1, "previous", False, False),
        (1, "supervised", False, False),
        (1, "previous", True, True),
    ],
)
def test_weights_of_no_detector_are_always_forgotten(tmp_path, phase, starts_from, ramp, forgets):
    cfg = runs.bare_config(tmp_path)
    cfg.merge_from_file(str(runs.CONFIG_FILE))
    cfg.MODEL.DEVICE = "cpu"
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.SSOD.AVERAGE.DECAY, cfg.SSOD.AVERAGE.RAMP = 0.9, ramp
    cfg.SSOD.PHASE_INIT = starts_from
    trainer = PhaseTrainer(cfg, phase, [{"file_name": "none"}])
    assert trainer.averaging._ramp == forgets


def test_the_weights_are_back_after_an_error():
    model = Model(8)
    hook = AverageWeights(model, 0.75)
    hook.before_train()
    with torch.no_grad():
        model.weight.fill_(1.0)
    with pytest.raises(OSError, match="full"), hook.in_place_of_weights():
        raise OSError("full")
    assert model.weight.item() == 1.0


def test_a_signal_leaves_no_half_of_the_average():
    """One that comes while the average is put in place of the weights, or they are put back."""
    model, loaded = Model(8), []
    hook = AverageWeights(model, 0.75)
    hook.before_train()
    with torch.no_grad():
        model.weight.fill_(1.0)
    load = model.load_state_dict

    def load_with_a_signal(state):
        signal.raise_signal(signal.SIGTERM)
        loaded.append(load(state))

    model.load_state_dict = load_with_a_signal
    with handled_signals(), pytest.raises(Stopped), hook.in_place_of_weights():
        pytest.fail("the evaluation began")
    assert len(loaded) == 2
    assert model.weight.item() == 1.0


def test_before_training_there_is_nothing_to_keep():
    assert AverageWeights(Model(8), 0.9).state_dict() == {}


@pytest.mark.parametrize("was_compiled", [False, True])
def test_an_average_goes_on_whether_parts_were_compiled_or_are(was_compiled):
    plain = nn.Sequential(Model(1.0))
    compiled = nn.Sequential(torch.compile(Model(1.0), backend="eager"))
    before, after = (compiled, plain) if was_compiled else (plain, compiled)
    hook = AverageWeights(before, decay=0.5, ramp=False)
    hook.before_train()
    resumed = AverageWeights(after, decay=0.5, ramp=False)
    resumed.load_state_dict(hook.state_dict())
    assert resumed.average.keys() == after.state_dict().keys()
