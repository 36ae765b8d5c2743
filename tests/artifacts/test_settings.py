"""Which settings count for what."""

import dataclasses

from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from runs import bare_config

from d2_ssod.artifacts.settings import detection_settings, evaluation_settings
from d2_ssod.modeling.detectors import DETECTORS


def test_detections_depend_on_the_thresholds_of_their_detector(tmp_path):
    settings = detection_settings(bare_config(tmp_path))
    assert settings["MODEL.ROI_HEADS.SCORE_THRESH_TEST"] == 0.05
    assert {"MODEL.RPN.NMS_THRESH", "MODEL.PROPOSAL_GENERATOR.MIN_SIZE"} <= settings.keys()
    assert not any("RETINANET" in key or "SSD" in key for key in settings)


def test_detections_depend_on_keys_of_detectors_of_ones_own(tmp_path, monkeypatch):
    """Of a subclass, which is of its ancestor's family, and of a family."""
    cfg = bare_config(tmp_path)
    cfg.MODEL.MINE = CfgNode({"SCORE_THRESH_TEST": 0.4, "WIDTH": 5})
    assert detection_settings(cfg)["MODEL.MINE.SCORE_THRESH_TEST"] == 0.4
    assert "MODEL.MINE.WIDTH" not in detection_settings(cfg)
    own = dataclasses.replace(DETECTORS[GeneralizedRCNN], inference_keys=("MODEL.MINE.WIDTH",))
    monkeypatch.setitem(DETECTORS, GeneralizedRCNN, own)
    assert detection_settings(cfg)["MODEL.MINE.WIDTH"] == 5


def test_results_depend_on_data_and_fusion_too(tmp_path):
    cfg = bare_config(tmp_path)
    settings = evaluation_settings(cfg)
    assert settings["DATASETS.TEST"] == list(cfg.DATASETS.TEST)
    assert settings["SSOD.ENSEMBLE.IOU_THRESH"] == cfg.SSOD.ENSEMBLE.IOU_THRESH
