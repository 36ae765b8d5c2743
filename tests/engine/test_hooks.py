"""Pseudo-labels from the end of anybody's Detectron2 training."""

import weakref
from types import SimpleNamespace

import pytest
import runs
import torch
from detectron2.engine import DefaultTrainer, HookBase, SimpleTrainer
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from torch.nn import DataParallel

from d2_ssod.artifacts import (
    RunFolder,
    keep_partial_predictions,
    load_phase_model,
    read_history,
)
from d2_ssod.engine import (
    PseudoLabelHook,
    build_config,
    default_argument_parser,
    hooks,
    load_run_data,
)
from d2_ssod.engine.hooks import RecordTraining, ShowPseudoLabels
from d2_ssod.errors import ConfigError
from d2_ssod.randomness import seed_generators
from d2_ssod.structures import Detections


@pytest.fixture
def cfg(data, tmp_path):
    keys = {"MODEL__ROI_HEADS__SCORE_THRESH_TEST": 1e-5, "SOLVER__MAX_ITER": 3}
    argv = runs.arguments(data, tmp_path, SSOD__SCHEDULE__MAX_ITER=(), **keys)
    cfg = build_config(default_argument_parser().parse_args(argv), 1)
    seed_generators(1)  # whatever ran before, the models find something
    return cfg


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SSOD.LABELS", "newest", "SSOD.LABELS is 'newest'; it must be one of consensus, tiers"),
        ("SSOD.SELECTION", "mean", "SSOD.SELECTION is 'mean'"),
        ("SSOD.EASY_FRACTIONS", (0.1,), "SSOD.EASY_FRACTIONS"),
        ("SSOD.CONSENSUS.IOU_THRESH", 50.0, r"SSOD\.CONSENSUS\.IOU_THRESH is 50\.0"),
    ],
)
def test_what_labels_cannot_be_made_by_is_refused_before_training(cfg, key, value, message):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SSOD.NUM_PHASES = 2
    cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=message):
        PseudoLabelHook(cfg, 0, data=None)


def label(cfg, trainer, phase=0):
    hook = PseudoLabelHook(cfg, phase, load_run_data(cfg))
    trainer.register_hooks([hook])
    trainer.train()


def assert_labeled(cfg, phase=0):
    folder = RunFolder(cfg.OUTPUT_DIR)
    labels = runs.read(folder.phase(phase + 1).pseudo_labels)
    assert labels["images"]
    assert {a["image_id"] for a in labels["annotations"]} == {i["id"] for i in labels["images"]}
    assert folder.phase(phase).predictions.exists()
    assert folder.phase(phase + 1).manifest.exists()


class OfDetectron2(DefaultTrainer):
    """Detectron2's own trainer, as other projects subclass it."""

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        raise AssertionError("nothing is evaluated")

    def build_hooks(self):
        return [hook for hook in super().build_hooks() if type(hook).__name__ != "EvalHook"]


def test_labels_are_made_at_the_end_of_detectron2s_default_trainer(cfg):
    trainer = OfDetectron2(cfg)
    label(cfg, trainer)
    assert_labeled(cfg)
    # The trainer's model is phase 0's from now on.
    saved = torch.load(RunFolder(cfg.OUTPUT_DIR).phase(0).model, weights_only=True)["model"]
    assert all(torch.equal(saved[k], v) for k, v in trainer.model.state_dict().items())
    # It trains on as it was.
    assert trainer.model.training


class Plain(SimpleTrainer):
    """A trainer that shares no more than the base class, and trains nothing."""

    def run_step(self):
        pass

    def train(self):
        super().train(0, 2)


def plain_trainer(cfg, trainer_class=Plain):
    return trainer_class(build_model(cfg), [], torch.optim.SGD([torch.zeros(1)], 0.1))


def test_labels_are_made_at_the_end_of_any_trainer(cfg):
    label(cfg, plain_trainer(cfg))
    assert_labeled(cfg)


def test_second_phase_takes_the_consensus_with_the_first(cfg):
    label(cfg, plain_trainer(cfg))
    label(cfg, plain_trainer(cfg), phase=1)
    assert_labeled(cfg, phase=1)
    manifest = runs.read(RunFolder(cfg.OUTPUT_DIR).phase(2).manifest)
    assert list(manifest["sources"]) == ["phase_0/model_final.pth", "phase_1/model_final.pth"]


def test_training_that_fails_leaves_no_labels(cfg):
    class Failing(Plain):
        def run_step(self):
            if self.iter == 1:
                raise FloatingPointError("loss is nan")

    with pytest.raises(FloatingPointError):
        label(cfg, plain_trainer(cfg, Failing))
    assert not RunFolder(cfg.OUTPUT_DIR).phase(0).folder.exists()
    assert not RunFolder(cfg.OUTPUT_DIR).phase(1).folder.exists()


def test_labels_that_an_interruption_after_training_left_out_are_made(cfg):
    class Ended(Plain):
        def train(self):
            SimpleTrainer.train(self, 2, 2)

    label(cfg, plain_trainer(cfg))
    RunFolder(cfg.OUTPUT_DIR).phase(1).pseudo_labels.unlink()
    label(cfg, plain_trainer(cfg, Ended))
    assert_labeled(cfg)


def test_what_failed_before_is_not_kept_by_the_hook(cfg):
    """As a larger model that did not fit the memory."""
    kept = []

    def fail():
        large = torch.zeros(1)
        kept.append(weakref.ref(large))
        raise MemoryError

    try:
        fail()
    except MemoryError:
        trainer = plain_trainer(cfg)
        label(cfg, trainer)
    assert_labeled(cfg)
    assert kept[0]() is None
    assert trainer._hooks


def test_labels_that_exist_are_kept(cfg):
    path = RunFolder(cfg.OUTPUT_DIR).phase(1).pseudo_labels
    path.parent.mkdir(parents=True)
    path.write_text("corrected by hand")
    label(cfg, plain_trainer(cfg))
    assert path.read_text() == "corrected by hand"


def test_labels_of_an_earlier_training_are_not_taken_for_those_of_this_one(cfg):
    label(cfg, plain_trainer(cfg))
    files = RunFolder(cfg.OUTPUT_DIR).phase(0)
    before = files.model.read_bytes(), files.predictions.read_bytes()
    with pytest.raises(ConfigError, match=r"model_final\.pth is there already, of another"):
        label(cfg, plain_trainer(cfg))
    assert before == (files.model.read_bytes(), files.predictions.read_bytes())


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (1, r"phase_0/model_final\.pth: no such file, but phase 1 labels together"),
        (-1, "phase -1 labels for the next one, but SSOD.NUM_PHASES is 2"),
        (2, "phase 2 labels for the next one, but SSOD.NUM_PHASES is 2"),
    ],
)
def test_a_phase_that_cannot_label_is_said_before_training(cfg, phase, words):
    class Failing(Plain):
        def run_step(self):
            raise AssertionError("it trains")

    with pytest.raises(ConfigError, match=words):
        label(cfg, plain_trainer(cfg, Failing), phase)


def test_a_compiled_model_is_written_as_it_was_before(cfg):
    trainer = plain_trainer(cfg)
    plain, trainer.model = trainer.model, torch.compile(trainer.model, backend="eager")
    trainer.model.eval()
    hook = PseudoLabelHook(cfg, 0, load_run_data(cfg))
    trainer.register_hooks([hook])
    trainer.train()
    saved = torch.load(RunFolder(cfg.OUTPUT_DIR).phase(0).model, weights_only=True)["model"]
    assert saved.keys() == plain.state_dict().keys()


def test_a_model_with_compiled_parts_is_loaded_again(cfg):
    trainer = plain_trainer(cfg)
    head = trainer.model.roi_heads.box_head
    trainer.model.roi_heads.box_head = torch.compile(head, backend="eager")
    trainer.model = DataParallel(torch.compile(trainer.model, backend="eager"))  # and around it
    trainer.model.eval()
    label(cfg, trainer)
    loaded = load_phase_model(cfg, 0).roi_heads.box_head.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in head.state_dict().items())


@pytest.mark.parametrize("is_within_another", [False, True])
def test_labels_are_made_at_the_end_of_loops_of_ones_own(cfg, is_within_another):
    """Which end at the last iteration, or go on after an error that was mended."""

    class Loop(Plain):
        def train(self):
            self.start_iter, self.max_iter = 0, 2
            with EventStorage() as self.storage:
                self.before_train()
                for self.iter in range(2):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.after_train()

    trainer = plain_trainer(cfg, Loop)
    try:
        if is_within_another:
            raise FloatingPointError("loss is nan")
        label(cfg, trainer)
    except FloatingPointError:
        label(cfg, trainer)
    assert_labeled(cfg)


def test_what_another_model_predicted_is_not_completed_by_a_new_one(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR).phase(0).partial_predictions
    with keep_partial_predictions(folder) as keep:
        keep({1: Detections.empty()})
    seen = []

    class Look(HookBase):
        def after_step(self):
            seen.append(folder.exists())

    trainer = plain_trainer(cfg)
    trainer.register_hooks([Look()])
    label(cfg, trainer)
    assert seen == [False, False]


def test_nothing_is_noted_of_a_training_that_had_nothing_left_to_do(tmp_path):
    hook, folder = RecordTraining(RunFolder(tmp_path), 0, 8), RunFolder(tmp_path)
    hook.trainer = SimpleNamespace(start_iter=5, iter=6, max_iter=5)  # as Detectron2 counts
    hook.before_train()
    hook.after_train()
    assert read_history(folder) == []
    hook.trainer.start_iter = 3
    hook.after_train()
    assert [event["iterations"] for event in read_history(folder)] == [2]


def test_pictures_are_shown_with_their_own_labels(monkeypatch):
    """Of eight unlabeled images every other one, of which some have pseudo-labels."""
    unlabeled = [{"file_name": f"{i}.png", "image_id": 10 * i} for i in range(8)]
    box = {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "score": 0.5}
    pseudo = [{**unlabeled[i], "annotations": [box] * i} for i in (1, 2, 6)]
    shown = []
    monkeypatch.setattr(hooks, "read_image", lambda path, order: (path, order))
    monkeypatch.setattr(
        hooks, "draw_detections", lambda picture, found, names: (*picture, len(found), names)
    )
    hook = ShowPseudoLabels(pseudo, SimpleNamespace(unlabeled=unlabeled, thing_classes=["cat"]))
    storage = SimpleNamespace(put_image=lambda name, drawn: shown.append(drawn))
    hook.trainer = SimpleNamespace(storage=storage)
    hook.before_train()
    boxes = {0: 0, 2: 2, 4: 0, 6: 6}
    assert shown == [(f"{i}.png", "RGB", count, ["cat"]) for i, count in boxes.items()]
