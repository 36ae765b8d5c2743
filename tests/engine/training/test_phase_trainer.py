"""The trainer of a phase, with steps that train nothing."""

import contextlib
import json

import pytest
import runs
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import AMPTrainer, HookBase
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import retinanet
from detectron2.solver import build_lr_scheduler
from detectron2.structures import Instances
from detectron2.utils import comm
from runs import CONFIG_FILE
from torch.amp import GradScaler

import d2_ssod.demo  # noqa: F401
from d2_ssod.config import add_ssod_config
from d2_ssod.engine import PhaseTrainer
from d2_ssod.engine.training import phase_trainer
from d2_ssod.engine.training.rank_averages import AverageOverRanks
from d2_ssod.errors import ConfigError

LENGTH = 6
ADAMW = {"LR_SCHEDULER_NAME": "WarmupCosineLR", "WARMUP_ITERS": 2}
SGD = {"LR_SCHEDULER_NAME": "WarmupMultiStepLR", "WARMUP_ITERS": 2, "BIAS_LR_FACTOR": 2.0}


def make_config(output, optimizer="AdamW", **solver):
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.merge_from_file(str(CONFIG_FILE))
    cfg.MODEL.DEVICE = "cpu"
    cfg.OUTPUT_DIR = str(output)
    cfg.SOLVER.CHECKPOINT_PERIOD = 1
    cfg.SOLVER.MAX_ITER = LENGTH
    cfg.SOLVER.STEPS = (2, 4)
    cfg.SOLVER.BASE_LR = 0.2
    cfg.SSOD.OPTIMIZER = optimizer
    for key, value in solver.items():
        cfg.SOLVER[key] = value
    output.mkdir(parents=True, exist_ok=True)
    return cfg


class RecordingTrainer(PhaseTrainer):
    """Notes the learning rates of every iteration in place of a training step."""

    def __init__(self, cfg):
        super().__init__(cfg, 1, [{"file_name": "none"}])
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
def restored_logs():
    yield
    runs.forget_log_files()


def train(cfg, resume=False):
    recording = RecordingTrainer(cfg)
    recording.resume_or_load(resume=resume)
    recording.train()
    return recording


def resume_after(cfg, done):
    """Resume from the checkpoint after so many iterations."""
    with open(f"{cfg.OUTPUT_DIR}/last_checkpoint", "w") as file:
        file.write(f"model_{done - 1:07d}.pth")
    return train(cfg, resume=True)


def test_schedule_golden(tmp_path):
    found = train(make_config(tmp_path, "SGD", **{**SGD, "WARMUP_ITERS": 0})).rates
    expected = [0.2, 0.2, 0.02, 0.02, 0.002, 0.002]
    assert [rates[0] for _, rates in sorted(found.items())] == pytest.approx(expected)


@pytest.mark.parametrize(("optimizer", "solver"), [("AdamW", ADAMW), ("SGD", SGD)])
def test_schedule_is_detectron2s_also_after_resuming(tmp_path, optimizer, solver):
    cfg = make_config(tmp_path, optimizer, **solver)
    fresh = PhaseTrainer.build_optimizer(cfg, build_model(cfg))
    scheduler, expected = build_lr_scheduler(cfg, fresh), []
    for _ in range(LENGTH):
        expected.append([group["lr"] for group in fresh.param_groups])
        fresh.step()
        scheduler.step()
    whole = train(cfg).rates
    for iteration, rates in enumerate(expected):
        assert whole[iteration] == pytest.approx(rates), iteration
    for done in (1, 3, 5):
        resumed = resume_after(cfg, done).rates
        assert resumed == {i: whole[i] for i in range(done, LENGTH)}


@pytest.mark.filterwarnings("error:.*lr_scheduler.step.*")
def test_resuming_warns_of_nothing(tmp_path):
    cfg = make_config(tmp_path, **ADAMW)
    train(cfg)
    resume_after(cfg, 3)


def test_phase_leaves_its_model_whole_and_by_the_name_of_the_contract(tmp_path):
    cfg = make_config(tmp_path, CHECKPOINT_PERIOD=4)
    train(cfg)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model_0000003.pth", "model_final.pth", "last_checkpoint"} <= names
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert final["iteration"] == LENGTH - 1
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_metrics_lie_in_the_folder_of_the_phase(tmp_path):
    class Trainer(RecordingTrainer):
        build_writers = PhaseTrainer.build_writers

    trainer = Trainer(make_config(tmp_path))
    trainer.resume_or_load()
    trainer.train()
    line = json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])
    assert line["iteration"] == LENGTH - 1
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_without_its_tag_a_phase_starts_at_its_beginning(tmp_path, caplog):
    cfg = make_config(tmp_path)
    train(cfg)
    (tmp_path / "last_checkpoint").unlink()
    assert min(train(cfg, resume=True).rates) == 0
    assert "model_0000005.pth and those before it are not gone on from" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\0\0\0\xff", b"phase_0/", b"other.pth"])
def test_a_damaged_tag_is_gone_on_from_the_newest_checkpoint(tmp_path, caplog, content):
    cfg = make_config(tmp_path)
    train(cfg)
    (tmp_path / "model_0000005.pth").unlink()
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_bytes(content)
    assert sorted(train(cfg, resume=True).rates) == [5]
    assert "last_checkpoint is damaged" in caplog.text


def test_checkpoints_of_another_name_are_gone_on_from(tmp_path, caplog):
    cfg = make_config(tmp_path)
    train(cfg)
    (tmp_path / "model_0000003.pth").rename(tmp_path / "mine.pth")
    (tmp_path / "last_checkpoint").write_text("mine.pth")
    assert sorted(train(cfg, resume=True).rates) == [4, 5]
    assert "damaged" not in caplog.text


def lose(path):
    path.unlink()


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def diverge(path):
    content = torch.load(path, weights_only=True)
    next(iter(content["model"].values()))[0] = float("nan")
    torch.save(content, path)


@pytest.mark.parametrize("damage", [lose, cut_in_half, diverge])
def test_a_damaged_checkpoint_is_gone_back_behind(tmp_path, caplog, damage):
    cfg = make_config(tmp_path)
    whole = train(cfg)
    damage(tmp_path / "model_0000003.pth")
    resumed = resume_after(cfg, 4)  # iteration 4 and 5 have left newer ones, which are not meant
    assert sorted(resumed.rates) == [3, 4, 5]
    assert same(weights_of(resumed), weights_of(whole))
    assert damage is lose or "model_0000003.pth" in caplog.text
    for path in tmp_path.glob("model_*.pth"):
        damage(path)
    if damage is lose:
        assert min(resume_after(cfg, 4).rates) == 0
    else:
        with pytest.raises(ConfigError, match=r"model_0000000\.pth"):
            resume_after(cfg, 4)


def test_all_ranks_go_back_behind_a_checkpoint_that_one_cannot_read(tmp_path, monkeypatch, caplog):
    cfg = make_config(tmp_path)
    train(cfg)
    newest = str(tmp_path / "model_0000003.pth")

    def from_two_ranks(own):
        """Give what both have: the other sees the same files, and cannot read the newest."""
        loaded = isinstance(own, str) or own is None
        fails = loaded and not any("cannot" in record.message for record in caplog.records)
        return [own, f"{newest}: cannot be read" if fails else own]

    monkeypatch.setattr(phase_trainer.comm, "all_gather", from_two_ranks)
    resumed = resume_after(cfg, 4)
    assert f"{newest}: cannot be read. Going on from the checkpoint before it" in caplog.text
    assert sorted(resumed.rates) == [3, 4, 5]


def test_expected_results_of_detectron2s_own_runs_change_nothing(tmp_path):
    cfg = make_config(tmp_path)
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP", 38.5, 0.2]]
    assert len(train(cfg).rates) == LENGTH


def test_a_model_that_is_not_finite_is_not_saved(tmp_path):
    class Diverging(RecordingTrainer):
        def run_step(self):
            super().run_step()
            if self.iter == 3:
                next(self.model.parameters()).data.view(-1)[0] = float("inf")

    cfg = make_config(tmp_path)
    trainer = Diverging(cfg)
    trainer.resume_or_load()
    with pytest.raises(ConfigError, match=r"model_0000003\.pth is not written: .*not finite"):
        trainer.train()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    assert not (tmp_path / "model_0000003.pth").exists()
    assert sorted(train(cfg, resume=True).rates) == [3, 4, 5]


def test_schedule_may_change_but_not_to_less_than_was_trained(tmp_path):
    cfg = make_config(tmp_path)
    train(cfg)
    cfg.SOLVER.MAX_ITER = 9
    assert sorted(resume_after(cfg, 3).rates) == list(range(3, 9))
    cfg.SOLVER.MAX_ITER = 2
    with pytest.raises(ConfigError, match=r"phase 1 .* 3 iterations.*SSOD\.SCHEDULE\.MAX_ITER"):
        resume_after(cfg, 3)


def test_unknown_weights_end_training_with_one_line(tmp_path):
    cfg = make_config(tmp_path)
    cfg.MODEL.WEIGHTS = "/no/such/model.pth"
    with pytest.raises(ConfigError, match=r"/no/such/model\.pth.*MODEL\.WEIGHTS") as info:
        train(cfg)
    assert "\n" not in str(info.value)


def test_ranks_wait_until_the_model_is_saved(tmp_path, monkeypatch):
    """The other ranks, which save nothing, would look for it too early."""
    saved, gather = [], comm.all_gather

    def watched(own):
        saved.append((tmp_path / "model_final.pth").exists())
        return gather(own)

    trainer = RecordingTrainer(make_config(tmp_path))
    monkeypatch.setattr(comm, "all_gather", watched)
    trainer.train()
    assert saved[-1:] == [True]


# What a phase starts from


def weights_of(trainer):
    return {name: value.clone() for name, value in trainer.bare_model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_random_start_is_that_of_seed_and_phase(tmp_path):
    cfg = make_config(tmp_path)
    torch.manual_seed(1)
    first = weights_of(PhaseTrainer(cfg, 1, [{}]))
    torch.manual_seed(2)
    assert same(first, weights_of(PhaseTrainer(cfg, 1, [{}])))
    assert not same(first, weights_of(PhaseTrainer(cfg, 2, [{}])))
    cfg.SEED += 1
    assert not same(first, weights_of(PhaseTrainer(cfg, 1, [{}])))


def test_phase_starts_from_its_weights(tmp_path):
    cfg = make_config(tmp_path / "phase_1")
    model = build_model(cfg)
    DetectionCheckpointer(model, str(tmp_path)).save("start")
    cfg.MODEL.WEIGHTS = str(tmp_path / "start.pth")
    trainer = RecordingTrainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 0
    assert same(weights_of(trainer), dict(model.state_dict()))


# What ranks have seen of their own images


@contextlib.contextmanager
def two_ranks():
    """The other rank has twice this one's statistics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comm, "get_world_size", lambda: 2)
        patch.setattr(torch.distributed, "all_reduce", lambda buffer: buffer.mul_(3))
        patch.setattr(comm, "all_gather", lambda value: [value, 2 * value])
        yield


def test_running_statistics_are_averaged_before_each_checkpoint(tmp_path):
    trainer = RecordingTrainer(make_config(tmp_path, CHECKPOINT_PERIOD=4))
    before = weights_of(trainer)
    averaged = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert averaged
    for name in averaged:
        before[name].uniform_(1, 2)
    trainer.bare_model.load_state_dict(before)
    with two_ranks():
        trainer.train()  # of 6 iterations: there are checkpoints after 4 and 6
    saved = torch.load(tmp_path / "model_0000003.pth", weights_only=True)["model"]
    for name in averaged:
        assert torch.allclose(saved[name], 1.5 * before[name]), name
        assert torch.allclose(weights_of(trainer)[name], 1.5**2 * before[name]), name


def test_running_statistics_of_one_process_stay(tmp_path):
    trainer = RecordingTrainer(make_config(tmp_path))
    before = weights_of(trainer)
    trainer.train()
    averaged = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert averaged
    assert all(torch.equal(weights_of(trainer)[name], before[name]) for name in averaged)


def retinanet_config(output):
    cfg = make_config(output)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.RETINANET.IN_FEATURES = ["p2", "p3"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32]]
    cfg.SSOD.ROI_WEIGHTING.NAME = "none"
    return cfg


def test_running_normalizer_of_retinanet_is_kept_and_not_handed_on(tmp_path):
    cfg = retinanet_config(tmp_path)
    trainer = RecordingTrainer(cfg)
    trainer.bare_model.loss_normalizer = 40.0
    with two_ranks():
        trainer.train()
    averaged = 40.0 * 1.5**LENGTH
    assert trainer.bare_model.loss_normalizer == pytest.approx(averaged)
    resumed = RecordingTrainer(cfg)
    assert not hasattr(resumed.bare_model, "loss_normalizer")  # a new phase starts afresh
    resumed.resume_or_load(resume=True)
    assert resumed.bare_model.loss_normalizer == pytest.approx(averaged)


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


def test_mapper_can_be_ones_own(tmp_path, monkeypatch):
    class Trainer(RecordingTrainer):
        @classmethod
        def build_mapper(cls, cfg):
            return "my mapper"

    used = []
    monkeypatch.setattr(
        phase_trainer, "build_phase_loader", lambda cfg, mapper, *_, **__: used.append(mapper)
    )
    Trainer(make_config(tmp_path)).train()
    assert used == ["my mapper"]


def test_model_is_kept_whatever_hooks_there_are(tmp_path, monkeypatch):
    class Trainer(PhaseTrainer):
        def build_hooks(self):
            return []

        def run_step(self):
            pass

    monkeypatch.setattr(phase_trainer, "build_phase_loader", lambda *_, **__: iter([]))
    cfg = make_config(tmp_path)
    cfg.SSOD.AVERAGE.DECAY = 0.5
    trainer = Trainer(cfg, 0, [{"file_name": "none"}])
    trainer.train()
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == LENGTH - 1
    assert trainer.averaging.average is not None


@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("field", ["gt_is_pseudo", "gt_classes"])
def test_mapper_that_tells_no_pseudo_labels_is_said(tmp_path, monkeypatch, caplog, phase, field):
    batch = [{"instances": Instances((9, 9), **{field: torch.ones(2)})}]
    monkeypatch.setattr(
        phase_trainer, "build_phase_loader", lambda *_, **__: iter([batch] * LENGTH)
    )
    monkeypatch.setattr(
        PhaseTrainer, "run_step", lambda self: next(self._trainer._data_loader_iter)
    )
    trainer = PhaseTrainer(make_config(tmp_path), phase, [{"file_name": "none"}])
    trainer.train()
    is_said = phase == 1 and field != "gt_is_pseudo"
    assert caplog.text.count("the mapper gives no gt_is_pseudo") == is_said


# The running average of the weights


class StepTrainer(PhaseTrainer):
    """Adds 1 to every weight in each iteration, in place of training."""

    def __init__(self, cfg):
        super().__init__(cfg, 1, [{"file_name": "none"}])

    def run_step(self):
        with torch.no_grad():
            for parameter in self.bare_model.parameters():
                parameter += 1.0

    def build_writers(self):
        return []


def averaged_config(output, decay, **solver):
    cfg = make_config(output, **solver)
    cfg.SSOD.AVERAGE.DECAY = decay
    return cfg


def offset_of(trainer, before):
    """How far a weight has come; all have come as far."""
    name = next(n for n, _ in trainer.bare_model.named_parameters())
    return (weights_of(trainer)[name] - before[name]).mean().item()


def test_a_phase_ends_with_the_average_of_its_weights(tmp_path):
    trainer = StepTrainer(averaged_config(tmp_path, 0.2))
    before = weights_of(trainer)
    trainer.train()
    average = 0.0
    for t in range(LENGTH):
        decay = min(0.2, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * (t + 1)
    assert offset_of(trainer, before) == pytest.approx(average, rel=1e-4)
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    assert same(saved, weights_of(trainer))


def test_without_averaging_a_phase_ends_with_its_last_weights(tmp_path):
    trainer = StepTrainer(averaged_config(tmp_path, 0.0))
    before = weights_of(trainer)
    trainer.train()
    assert offset_of(trainer, before) == pytest.approx(LENGTH, rel=1e-4)


def test_the_average_goes_on_after_an_interruption(tmp_path):
    whole = StepTrainer(averaged_config(tmp_path / "a", 0.5))
    start = weights_of(whole)
    whole.train()
    with open(tmp_path / "a" / "last_checkpoint", "w") as file:
        file.write("model_0000002.pth")
    resumed = StepTrainer(averaged_config(tmp_path / "a", 0.5))
    resumed.resume_or_load(resume=True)
    resumed.train()
    assert same(weights_of(resumed), weights_of(whole))
    assert offset_of(resumed, start) < LENGTH


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_an_interruption_after_the_last_iteration_costs_nothing(tmp_path, decay):
    """Between the checkpoint of that iteration and the model: no space, a second signal."""
    cfg = averaged_config(tmp_path, decay)
    whole = StepTrainer(cfg)
    whole.train()
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text(f"model_{LENGTH - 1:07d}.pth")
    resumed = StepTrainer(cfg)
    resumed.resume_or_load(resume=True)
    resumed.train()
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["iteration"] == LENGTH - 1
    assert same(saved["model"], weights_of(whole))


def test_a_phase_that_is_cut_to_what_is_trained_ends_with_its_average(tmp_path):
    whole = StepTrainer(averaged_config(tmp_path / "a", 0.5))
    start = weights_of(whole)
    whole.train()
    cfg = averaged_config(tmp_path / "a", 0.5)
    cfg.SOLVER.MAX_ITER = 3
    (tmp_path / "a" / "last_checkpoint").write_text("model_0000002.pth")
    cut = StepTrainer(cfg)
    cut.resume_or_load(resume=True)
    cut.train()
    shorter = averaged_config(tmp_path / "b", 0.5)
    shorter.SOLVER.MAX_ITER = 3
    expected = StepTrainer(shorter)
    expected.bare_model.load_state_dict(start)
    expected.train()
    assert same(weights_of(cut), weights_of(expected))


def test_a_lower_rate_and_another_decay_count_from_the_checkpoint_on(tmp_path):
    """As after a divergence; SSOD.RESUME_ANYWAY lets a run come here."""
    whole = train(make_config(tmp_path, **ADAMW)).rates
    resumed = RecordingTrainer(make_config(tmp_path, **ADAMW, BASE_LR=0.02, WEIGHT_DECAY=0.5))
    (tmp_path / "last_checkpoint").write_text("model_0000002.pth")
    resumed.resume_or_load(resume=True)
    resumed.train()
    for iteration in range(3, LENGTH):
        assert resumed.rates[iteration] == pytest.approx([0.1 * r for r in whole[iteration]])
    assert {group["weight_decay"] for group in resumed.optimizer.param_groups} >= {0.5}


def test_mixed_precision_may_begin_at_a_checkpoint(tmp_path):
    """One of a CPU, or from before SOLVER.AMP.ENABLED, has no scale of the gradients."""
    cfg = make_config(tmp_path)
    train(cfg)
    resumed = RecordingTrainer(cfg)
    own = resumed._trainer
    resumed._trainer = AMPTrainer(own.model, None, own.optimizer, grad_scaler=GradScaler("cpu"))
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == LENGTH


def test_adamw_has_detectron2s_parameter_groups(tmp_path):
    cfg = make_config(
        tmp_path,
        "AdamW",
        WEIGHT_DECAY=0.1, WEIGHT_DECAY_NORM=0.2, WEIGHT_DECAY_BIAS=0.3, BIAS_LR_FACTOR=2.0,
    )  # fmt: skip
    model = build_model(cfg)
    optimizer = PhaseTrainer.build_optimizer(cfg, model)
    assert isinstance(optimizer, torch.optim.AdamW)
    found = {
        id(p): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    norms = {
        id(p)
        for module in model.modules()
        if isinstance(module, (torch.nn.modules.batchnorm._BatchNorm, torch.nn.GroupNorm))
        for p in module.parameters(recurse=False)
    }
    assert norms
    for name, parameter in model.named_parameters():
        expected = (0.2, 0.1)
        if name.endswith("bias"):  # those of normalizations, too
            expected = (0.4, 0.3)
        elif id(parameter) in norms:
            expected = (0.2, 0.2)
        assert found[id(parameter)] == pytest.approx(expected), name


def test_adamws_gradients_are_clipped_where_that_is_asked_for(tmp_path):
    cfg = make_config(tmp_path)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "value"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    model = build_model(cfg)
    optimizer = PhaseTrainer.build_optimizer(cfg, model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    optimizer.step()
    assert all((parameter.grad == 0.5).all() for parameter in model.parameters())


@pytest.mark.parametrize(("init", "phase"), [("previous", 1), ("pretrained", 1), ("previous", 0)])
def test_a_model_of_an_earlier_phase_must_fit(tmp_path, init, phase):
    cfg = make_config(tmp_path / "phase_1")
    model = build_model(cfg)
    state = dict(model.state_dict())
    state.pop("roi_heads.box_predictor.cls_score.weight")
    torch.save({"model": state}, tmp_path / "start.pth")
    cfg.MODEL.WEIGHTS, cfg.SSOD.PHASE_INIT = str(tmp_path / "start.pth"), init
    trainer = PhaseTrainer(cfg, phase, [{"file_name": "none"}])
    if phase == 0 or init == "pretrained":  # weights from elsewhere may lack a head
        trainer.resume_or_load()
    else:
        with pytest.raises(ConfigError, match=r"cls_score\.weight is missing"):
            trainer.resume_or_load()


def test_statistics_of_the_average_are_averaged_over_ranks_too(tmp_path):
    trainer = StepTrainer(averaged_config(tmp_path, 0.5))
    trainer.averaging.before_train()
    name = next(n for n in trainer.averaging.average if n.endswith("running_var"))
    before = {
        "model": dict(trainer.bare_model.named_buffers())[name].clone(),
        "average": trainer.averaging.average[name].clone(),
    }
    with two_ranks():
        next(hook for hook in trainer._hooks if isinstance(hook, AverageOverRanks)).average()
    assert torch.allclose(trainer.averaging.average[name], 1.5 * before["average"])
    assert torch.allclose(dict(trainer.bare_model.named_buffers())[name], 1.5 * before["model"])


def test_what_is_validated_within_a_phase_is_the_average(tmp_path, monkeypatch):
    cfg = averaged_config(tmp_path, 0.5)
    cfg.DATASETS.VAL = ("val",)
    trainer = StepTrainer(cfg)
    trainer.averaging.before_train()
    name = next(n for n, _ in trainer.bare_model.named_parameters())
    trainer.averaging.average[name].fill_(7.0)
    seen = []

    def validated(cfg, _, model):
        seen.append(model.state_dict()[name].unique().tolist())

    monkeypatch.setattr(phase_trainer, "validate", validated)
    trainer._validate()
    assert seen == [[7.0]]


def test_every_rank_goes_on_from_the_checkpoint_that_the_first_one_sees(tmp_path, monkeypatch):
    cfg = make_config(tmp_path)
    train(cfg)
    # This rank sees all, and model_final.pth; on its machine the folder may have another name.
    of_first = ["model_0000001.pth"]
    monkeypatch.setattr(
        phase_trainer.comm,
        "all_gather",
        lambda own: [of_first, own] if isinstance(own, list) else [None, own],
    )
    trainer = RecordingTrainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2


def test_the_loader_ends_before_hooks_that_come_after_training(tmp_path, monkeypatch):
    """Its workers would stay beside those that label the unlabeled images."""
    events = []

    class Labels(HookBase):
        def after_train(self):
            events.append("labels")

    def batches(*args, **keys):
        try:
            yield from iter(list, None)
        finally:
            events.append("the loader ends")

    class Trainer(RecordingTrainer):
        def run_step(self):
            next(self._trainer._data_loader_iter)
            super().run_step()

    monkeypatch.setattr(phase_trainer, "build_phase_loader", batches)
    trainer = Trainer(make_config(tmp_path))
    trainer.register_hooks([Labels()])
    trainer.resume_or_load()
    trainer.train()
    assert events == ["the loader ends", "labels"]


def test_focal_losses_have_the_same_gradient_in_every_call(tmp_path):
    """A run that goes on is another process, which calls it for the first time."""
    RecordingTrainer(make_config(tmp_path))
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(1000, 20, generator=generator) * 5
    targets = (torch.rand(1000, 20, generator=generator) < 0.1).float()
    gradients = []
    for _ in range(4):
        logits = values.clone().requires_grad_()
        retinanet.sigmoid_focal_loss_jit(logits, targets, 0.25, 2.0, "sum").backward()
        gradients.append(logits.grad)
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])


def test_a_teacher_counts_iterations_on_from_the_checkpoint(tmp_path):
    class Teacher(HookBase):
        def relabel(self, batches, first):
            firsts.append(first)
            return batches

    firsts, cfg = [], make_config(tmp_path)
    train(cfg)
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    trainer = RecordingTrainer(cfg)
    trainer.teacher = Teacher()
    trainer.resume_or_load(resume=True)
    trainer.train()
    assert firsts == [4]


@pytest.mark.parametrize(
    ("sampling", "groups"), [("union", [[0, 0, 0, 1]]), ("balanced", [[0], [1]])]
)
def test_images_are_drawn_as_the_config_says(tmp_path, sampling, groups):
    cfg = make_config(tmp_path)
    cfg.SSOD.SAMPLING, cfg.SSOD.LABELED_REPEAT = sampling, 3
    trainer = PhaseTrainer(cfg, 1, [{"file_name": "l"}], [{"file_name": "p"}])
    assert trainer.images.groups == groups
