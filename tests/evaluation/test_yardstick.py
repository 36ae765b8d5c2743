import dataclasses

import pytest
from detectron2.modeling import GeneralizedRCNN

from d2_ssod.evaluation import yardstick
from d2_ssod.modeling.detectors import DETECTORS
from tests.helpers.runs import bare_config

IMAGES = [{"file_name": "a.png", "image_id": 1, "width": 8, "height": 8, "annotations": []}]


def digest(tmp_path, *changes):
    cfg = bare_config(tmp_path)
    cfg.merge_from_list(list(changes))
    return yardstick(cfg, [IMAGES])


@pytest.mark.parametrize(
    "change",
    [
        ("TEST.DETECTIONS_PER_IMAGE", 7),
        ("INPUT.MIN_SIZE_TEST", 320),
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.3),
        ("MODEL.RPN.NMS_THRESH", 0.9),  # whose name does not say that it counts in tests
    ],
)
def test_what_detections_depend_on_makes_another_yardstick(tmp_path, change):
    assert digest(tmp_path, *change) != digest(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        ("SOLVER.BASE_LR", 0.5),
        ("MODEL.RETINANET.NMS_THRESH_TEST", 0.3),
        ("SSOD.GUARD.CONSENSUS", "off"),
    ],
)
def test_what_they_do_not_depend_on_does_not(tmp_path, change):
    assert digest(tmp_path, *change) == digest(tmp_path)


def test_keys_of_a_detector_of_ones_own_count(tmp_path, monkeypatch):
    own = dataclasses.replace(DETECTORS[GeneralizedRCNN], inference_keys=("MODEL.FPN.FUSE_TYPE",))
    monkeypatch.setitem(DETECTORS, GeneralizedRCNN, own)
    assert digest(tmp_path, "MODEL.FPN.FUSE_TYPE", "avg") != digest(tmp_path)


def test_other_images_make_another_yardstick(tmp_path):
    assert yardstick(bare_config(tmp_path), [IMAGES, IMAGES]) != digest(tmp_path)
