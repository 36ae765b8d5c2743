"""The trainer's way from phase to phase, with models that are not really trained."""

import numpy as np
import pytest
import runs
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from runs import CONFIG_FILE

from d2_ssod.config import add_ssod_config
from d2_ssod.engine import MultiPhaseTrainer, RunData, phase_config, trainer
from d2_ssod.artifacts.partial_predictions import keeping_so_far
from d2_ssod.engine.trainer import average_running_statistics, load_phase_start
from d2_ssod.errors import ConfigError
from d2_ssod.structures import Detections

LENGTHS = (5, 6, 4)
ADAMW = {"LR_SCHEDULER_NAME": "WarmupCosineLR", "WARMUP_ITERS": 2}
SGD = {"LR_SCHEDULER_NAME": "WarmupMultiStepLR", "WARMUP_ITERS": 2, "BIAS_LR_FACTOR": 2.0}


def make_config(output, optimizer="AdamW", **solver):
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.merge_from_file(str(CONFIG_FILE))
    cfg.MODEL.DEVICE = "cpu"
    cfg.OUTPUT_DIR = str(output)
    cfg.SOLVER.CHECKPOINT_PERIOD = 1
    cfg.SSOD.OPTIMIZER = optimizer
    cfg.SSOD.SCHEDULE.MAX_ITER = LENGTHS
    cfg.SSOD.SCHEDULE.STEPS = ((3,), (2, 4), (3,))
    cfg.SSOD.SCHEDULE.BASE_LR = (0.1, 0.2, 0.3)
    for key, value in solver.items():
        cfg.SOLVER[key] = value
    output.mkdir(parents=True, exist_ok=True)
    return cfg


class RecordingTrainer(MultiPhaseTrainer):
    """Notes the learning rates of every iteration in place of a training step."""

    def __init__(self, cfg):
        super().__init__(cfg, RunData([], [], np.zeros(0), [], []))
        self.rates = {}

    def run_step(self):
        self.rates[self.iter] = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()

    def build_writers(self):
        return []


@pytest.fixture(autouse=True)
def without_data(monkeypatch):
    monkeypatch.setattr(trainer, "prepare_pseudo_labels", lambda *arguments: [])
    monkeypatch.setattr(trainer, "build_phase_loader", lambda *arguments, **keys: [])
    yield
    runs.forget_log_files()


def train(cfg, resume=False):
    recording = RecordingTrainer(cfg)
    recording.resume_or_load(resume=resume)
    recording.train()
    return recording


def test_schedule_restarts_in_each_phase_golden(tmp_path):
    """5 iterations at 0.1, a tenth from 3 on; 6 at 0.2, dropping at 2 and 4; 4 at 0.3, at 3."""
    found = train(make_config(tmp_path, "SGD", **{**SGD, "WARMUP_ITERS": 0})).rates
    expected = [0.1, 0.1, 0.1, 0.01, 0.01, 0.2, 0.2, 0.02, 0.02, 0.002, 0.002, 0.3, 0.3, 0.3, 0.03]
    assert [rates[0] for _, rates in sorted(found.items())] == pytest.approx(expected)


@pytest.mark.parametrize(("optimizer", "solver"), [("AdamW", ADAMW), ("SGD", SGD)])
def test_schedule_of_each_phase_is_detectron2s(tmp_path, optimizer, solver):
    cfg = make_config(tmp_path, optimizer, **solver)
    found = train(cfg).rates
    expected = []
    for phase, length in enumerate(LENGTHS):
        own = phase_config(cfg, phase)
        fresh = MultiPhaseTrainer.build_optimizer(own, build_model(own))
        scheduler = build_lr_scheduler(own, fresh)
        for _ in range(length):
            expected.append([group["lr"] for group in fresh.param_groups])
            fresh.step()
            scheduler.step()
    assert len(found) == len(expected)
    for iteration, rates in enumerate(expected):
        assert found[iteration] == pytest.approx(rates), iteration


@pytest.mark.parametrize(("optimizer", "solver"), [("AdamW", ADAMW), ("SGD", SGD)])
def test_schedule_is_the_same_after_resuming_anywhere(tmp_path, optimizer, solver):
    cfg = make_config(tmp_path, optimizer, **solver)
    whole = train(cfg).rates
    # Within each phase, at its start, before its last iteration.
    for done in (1, 4, 5, 7, 10, 11, 14):
        (tmp_path / "last_checkpoint").write_text(f"model_{done - 1:07d}.pth")
        resumed = train(cfg, resume=True).rates
        assert sorted(resumed) == list(range(done, sum(LENGTHS)))
        for iteration, rates in resumed.items():
            assert rates == pytest.approx(whole[iteration], rel=1e-9), (done, iteration)


@pytest.mark.filterwarnings("error:.*lr_scheduler.step.*")
def test_resuming_warns_of_nothing(tmp_path):
    cfg = make_config(tmp_path, **ADAMW)
    train(cfg)
    (tmp_path / "last_checkpoint").write_text("model_0000006.pth")
    train(cfg, resume=True)


def steps_seen(recording):
    """How many steps the optimizer's state is of."""
    parameter = recording.optimizer.param_groups[0]["params"][0]
    return recording.optimizer.state[parameter]["step"].item()


def test_optimizer_state_is_forgotten_between_phases_and_kept_within(tmp_path):
    cfg = make_config(tmp_path, **ADAMW)
    assert steps_seen(train(cfg)) == LENGTHS[2]
    (tmp_path / "last_checkpoint").write_text("model_0000012.pth")  # the second of phase 2
    assert steps_seen(train(cfg, resume=True)) == LENGTHS[2]
    (tmp_path / "last_checkpoint").write_text("model_0000010.pth")  # the last of phase 1
    assert steps_seen(train(cfg, resume=True)) == LENGTHS[2]


def test_every_phase_leaves_its_model_and_a_checkpoint(tmp_path):
    cfg = make_config(tmp_path, CHECKPOINT_PERIOD=100)
    train(cfg)
    for phase, last in enumerate((4, 10, 14)):
        model = torch.load(tmp_path / f"phase_{phase}" / "model_final.pth", weights_only=True)
        checkpoint = torch.load(tmp_path / f"model_{last:07d}.pth", weights_only=True)
        assert checkpoint["iteration"] == last
        for name, value in model["model"].items():
            assert torch.equal(value, checkpoint["model"][name])


def test_what_another_model_predicted_is_not_completed_by_a_new_one(tmp_path):
    with keeping_so_far(tmp_path / "phase_0" / "predictions_so_far") as keep:
        keep({1: Detections.empty()})
    train(make_config(tmp_path))
    assert not (tmp_path / "phase_0" / "predictions_so_far").exists()


def test_finished_run_is_not_trained_on(tmp_path):
    cfg = make_config(tmp_path)
    train(cfg)
    assert train(cfg, resume=True).rates == {}


def test_resume_without_a_checkpoint_starts_at_the_beginning(tmp_path):
    assert min(train(make_config(tmp_path), resume=True).rates) == 0


def test_later_phases_may_change_in_length(tmp_path):
    cfg = make_config(tmp_path)
    train(cfg)
    (tmp_path / "last_checkpoint").write_text("model_0000006.pth")  # the second of phase 1
    cfg.SSOD.SCHEDULE.MAX_ITER = (LENGTHS[0], 8, 2)
    assert sorted(train(cfg, resume=True).rates) == list(range(7, 15))
    cfg.SSOD.SCHEDULE.MAX_ITER = (LENGTHS[0] + 1, 8, 2)
    with pytest.raises(ConfigError, match=r"SSOD\.SCHEDULE\.MAX_ITER .*\[6, 8, 2\].*\[5, 8, 2\]"):
        train(cfg, resume=True)


@pytest.mark.parametrize(("seed", "kept"), [(-1, True), (3, False)])
def test_a_drawn_seed_is_kept_and_a_given_one_is_that_of_the_config(tmp_path, seed, kept):
    cfg = make_config(tmp_path)
    cfg.SEED = seed
    drawn = train(cfg).seed
    if not kept:
        cfg.SEED = 4
    resumed = RecordingTrainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.seed == (drawn if kept else 4)


def test_unknown_weights_end_training_with_one_line(tmp_path):
    cfg = make_config(tmp_path)
    cfg.MODEL.WEIGHTS = "/no/such/model.pth"
    with pytest.raises(ConfigError, match=r"^MODEL\.WEIGHTS: .*/no/such/model\.pth") as info:
        train(cfg)
    assert "\n" not in str(info.value)


# What a phase starts from


@pytest.fixture
def cfg(tmp_path):
    return make_config(tmp_path)


def random_model(cfg, seed):
    torch.manual_seed(seed)
    return build_model(cfg)


def save_phase(cfg, phase, seed):
    """A model as the phase leaves it."""
    model = random_model(cfg, seed)
    DetectionCheckpointer(model, f"{cfg.OUTPUT_DIR}/phase_{phase}").save("model_final")
    return model


def same_weights(one, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize(("init", "expected"), [("supervised", 0), ("previous", 1)])
def test_phase_starts_from_the_model_of_another(cfg, tmp_path, init, expected):
    for phase in range(2):
        (tmp_path / f"phase_{phase}").mkdir()
    saved = [save_phase(cfg, phase, seed=phase) for phase in range(2)]
    cfg.SSOD.PHASE_INIT = init
    model = random_model(cfg, 7)
    load_phase_start(cfg, 2, model, seed=3)
    assert same_weights(model, saved[expected])


@pytest.mark.parametrize("init", ["pretrained", "supervised", "previous"])
def test_phase_0_starts_from_the_pretrained_weights(cfg, tmp_path, init):
    (tmp_path / "phase_9").mkdir()
    pretrained = save_phase(cfg, 9, seed=5)
    cfg.MODEL.WEIGHTS = f"{cfg.OUTPUT_DIR}/phase_9/model_final.pth"
    cfg.SSOD.PHASE_INIT = init
    model = random_model(cfg, 7)
    load_phase_start(cfg, 0, model, seed=3)
    assert same_weights(model, pretrained)


def test_later_phases_start_from_the_pretrained_weights_by_default(cfg, tmp_path):
    (tmp_path / "phase_0").mkdir()
    save_phase(cfg, 0, seed=5)
    model, other = random_model(cfg, 7), random_model(cfg, 8)
    load_phase_start(cfg, 1, model, seed=3)
    load_phase_start(cfg, 2, other, seed=3)
    assert same_weights(model, other)


def test_random_start_is_the_seeds(cfg):
    models = [random_model(cfg, seed) for seed in (1, 2, 3)]
    for model, seed in zip(models, (10, 10, 11), strict=True):
        load_phase_start(cfg, 0, model, seed=seed)
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])


def test_start_of_a_phase_leaves_the_random_state_alone(cfg):
    model = random_model(cfg, 0)
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    load_phase_start(cfg, 0, model, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_running_statistics_are_averaged_over_ranks(cfg, monkeypatch):
    model = random_model(cfg, 0)
    before = {name: value.clone() for name, value in model.named_buffers()}
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    # The other rank has twice this one's statistics.
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda buffer: buffer.mul_(3))
    average_running_statistics(model)
    for name, value in model.named_buffers():
        factor = 1.5 if value.is_floating_point() else 1
        assert torch.allclose(value, factor * before[name]), name


def test_running_statistics_of_one_process_stay(cfg):
    model = random_model(cfg, 0)
    before = {name: value.clone() for name, value in model.named_buffers()}
    average_running_statistics(model)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize(
    ("heads", "weighting", "warned"),
    [
        ("StandardROIHeads", "uncertainty", True),
        ("StandardROIHeads", "none", False),
        ("UncertaintyROIHeads", "uncertainty", False),
    ],
)
def test_heads_that_weigh_nothing_are_warned_of(tmp_path, caplog, heads, weighting, warned):
    cfg = make_config(tmp_path)
    cfg.MODEL.ROI_HEADS.NAME = heads
    cfg.SSOD.ROI_WEIGHTING.NAME = weighting
    RecordingTrainer(cfg)
    assert ("weighs no RoIs" in caplog.text) == warned
