import pytest
from runs import bare_config

from d2_ssod.evaluation import yardstick

IMAGES = [{"file_name": "a.png", "image_id": 1, "width": 8, "height": 8, "annotations": []}]


def digest(tmp_path, *changes):
    cfg = bare_config(tmp_path)
    cfg.MODEL.MINE_THRESH_TEST = 0.5  # of a detector of one's own
    cfg.merge_from_list(list(changes))
    return yardstick(cfg, [IMAGES])


@pytest.mark.parametrize(
    "change",
    [
        ("TEST.DETECTIONS_PER_IMAGE", 7),
        ("INPUT.MIN_SIZE_TEST", 320),
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.3),
        ("MODEL.MINE_THRESH_TEST", 0.3),
    ],
)
def test_what_models_are_judged_by_makes_another_yardstick(tmp_path, change):
    assert digest(tmp_path, *change) != digest(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        ("SOLVER.BASE_LR", 0.5),
        ("INPUT.FORMAT", "RGB"),
        ("MODEL.META_ARCHITECTURE", "RetinaNet"),
        ("SSOD.GUARD.CONSENSUS", "off"),
    ],
)
def test_models_of_all_kinds_may_be_compared(tmp_path, change):
    assert digest(tmp_path, *change) == digest(tmp_path)


def test_other_images_make_another_yardstick(tmp_path):
    assert yardstick(bare_config(tmp_path), [IMAGES, IMAGES]) != digest(tmp_path)
