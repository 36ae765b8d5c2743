"""What the loop tells the trainer of a phase, and when."""

import numpy as np
import pytest
import runs

from d2_ssod.artifacts import RunFolder, read_history
from d2_ssod.engine import multi_phase
from d2_ssod.engine.run_data import RunData

# Another labeled image has no object, and is not trained on.
DATA = RunData(
    labeled=[{"file_name": "l.png", "image_id": 1, "annotations": []}],
    unlabeled=[],
    objects_per_image=np.array([1.5]),
    thing_classes=["cat"],
    category_ids=[7],
)


class Stop(Exception):
    """Ends a rehearsal."""


class Stopping:
    """A hook that ends the training, as one that evaluates may."""

    def before_train(self):
        pass

    def after_train(self):
        raise Stop


class Rehearsal:
    """As much of a trainer as the loop asks of it; it trains nothing."""

    def __init__(self, cfg, phase, labeled, others):
        self.hooks = [Stopping()]
        self.iter = self.max_iter = cfg.SOLVER.MAX_ITER
        self.start_iter = 0

    def register_first(self, hook):
        self.hooks.insert(0, hook)

    def register_hooks(self, hooks):
        self.hooks += hooks

    def resume_or_load(self, resume):
        assert resume

    def train(self):
        for hook in self.hooks:
            hook.trainer = self
            hook.before_train()
        for hook in self.hooks:
            hook.after_train()


@pytest.fixture
def cfg(tmp_path):
    cfg = runs.bare_config(tmp_path)
    keys = ["SSOD.NUM_PHASES", 0, "SOLVER.MAX_ITER", 10, "SOLVER.STEPS", ()]
    cfg.merge_from_list([*keys, "SOLVER.IMS_PER_BATCH", 8, "SOLVER.REFERENCE_WORLD_SIZE", 2])
    return cfg


def test_what_was_trained_is_noted_whatever_other_hooks_do(cfg, tmp_path):
    with pytest.raises(Stop):
        multi_phase._train_phase(cfg, 0, DATA, Rehearsal)
    (event,) = read_history(RunFolder(tmp_path))
    # Half of the processes that the config is written for: half of the images, twice as long.
    assert {k: event[k] for k in ("event", "phase", "iterations", "images_per_batch")} == {
        "event": "trained",
        "phase": 0,
        "iterations": 20,
        "images_per_batch": 4,
    }


def test_nothing_is_noted_or_forgotten_where_weights_cannot_be_loaded(cfg, tmp_path):
    class Damaged(Rehearsal):
        def resume_or_load(self, resume):
            raise Stop

    files = RunFolder(tmp_path).phase(0)
    files.folder.mkdir()
    files.validation.write_text("{}")
    with pytest.raises(Stop):
        multi_phase._train_phase(cfg, 0, DATA, Damaged)
    assert files.validation.exists()
    assert not files.trained_with.exists()
    with pytest.raises(Stop):  # by its hook, after it
        multi_phase._train_phase(cfg, 0, DATA, Rehearsal)
    assert not files.validation.exists()
    assert files.trained_with.exists()
