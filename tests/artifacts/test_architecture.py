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


OTHERWISE = {
    "MODEL.ANCHOR_GENERATOR.SIZES": [[8, 16, 24, 48, 96]],
    "MODEL.RPN.BBOX_REG_WEIGHTS": (2.0, 2.0, 1.0, 1.0),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": ((1.0, 1.0, 1.0, 1.0),) * 3,
    "MODEL.FPN.FUSE_TYPE": "avg",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
}
OF_ANCHORS, OF_RPN, OF_BOXES, OF_CASCADES, OF_PYRAMIDS, OF_RESNETS = OTHERWISE
RCNN = {OF_ANCHORS, OF_RPN, OF_BOXES}
ARCHITECTURE, BACKBONE = "MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.NAME"


@pytest.mark.parametrize(
    ("parts", "read"),
    [
        ([], {*RCNN, OF_RESNETS}),
        ([BACKBONE, "build_resnet_fpn_backbone"], {*RCNN, OF_RESNETS, OF_PYRAMIDS}),
        ([BACKBONE, "build_timm_fpn_backbone"], {*RCNN, OF_PYRAMIDS}),
        ([BACKBONE, "of_ones_own"], {*RCNN, OF_RESNETS, OF_PYRAMIDS}),
        (["MODEL.ROI_HEADS.NAME", "CascadeROIHeads"], {*RCNN, OF_CASCADES, OF_RESNETS}),
        ([ARCHITECTURE, "RetinaNet", "MODEL.ROI_HEADS.NAME", "Gone"], {OF_ANCHORS, OF_RESNETS}),
        ([BACKBONE, "build_small_fpn_backbone"], RCNN),
        ([ARCHITECTURE, "SSD", BACKBONE, "build_ssd_vgg16_backbone"], set()),
        ([ARCHITECTURE, "CSD", BACKBONE, "build_ssd_vgg16_backbone"], set()),
    ],
)
def test_keys_that_a_model_does_not_read_may_be_others(tmp_path, parts, read):
    other = RunFolder(tmp_path / "other")
    configs = bare_config(other.root), bare_config(tmp_path / "run")
    for cfg in configs:
        cfg.merge_from_list([BACKBONE, "build_resnet_backbone", *parts])
    record_training(configs[0], 0, [], other)
    configs[1].merge_from_list([part for pair in OTHERWISE.items() for part in pair])
    found = {text.split(" was ")[0] for text in differences_unseen(configs[1], other.phase(0))}
    assert found == read
