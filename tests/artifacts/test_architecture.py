"""A model is the one that a config describes, also where the shapes of all weights fit."""

import pytest
from runs import bare_config

from d2_ssod.artifacts import RunFolder, differences_unseen, record_training
from d2_ssod.artifacts.architecture import check_architecture
from d2_ssod.errors import ConfigError


@pytest.fixture
def cfg(tmp_path):
    return bare_config(tmp_path)


def test_a_model_from_elsewhere_is_not_compared(cfg):
    check_architecture(cfg, 0, RunFolder(cfg.OUTPUT_DIR))


def test_architecture_is_compared_where_a_model_is_loaded(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR)
    record_training(cfg, 0, [], folder)
    cfg.merge_from_list(["SOLVER.BASE_LR", 0.5, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.5])
    check_architecture(cfg, 0, folder)
    cfg.MODEL.PIXEL_MEAN = [1.0, 2.0, 3.0]
    with pytest.raises(ConfigError, match=r"phase_0/model_final\.pth .*MODEL\.PIXEL_MEAN was"):
        check_architecture(cfg, 0, folder)


def test_the_order_of_channels_is_of_the_architecture(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR)
    record_training(cfg, 0, [], folder)
    cfg.INPUT.FORMAT = "RGB"
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT was"):
        check_architecture(cfg, 0, folder)


def test_keys_that_a_model_does_not_read_may_be_others(tmp_path):
    other, key = RunFolder(tmp_path / "other"), "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"
    record_training(bare_config(other.root), 0, [], other)
    cfg = bare_config(tmp_path / "run")
    cfg.merge_from_list([key, ((1.0, 1.0, 1.0, 1.0),) * 3, "MODEL.FPN.FUSE_TYPE", "avg"])
    assert differences_unseen(cfg, other.phase(0)) == []
