import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    GeneralizedRCNN,
    PanopticFPN,
    RetinaNet,
    build_model,
)
from detectron2.utils.events import EventStorage
from roi_samples import make_config, make_input
from runs import bare_config
from torch import nn

from d2_ssod.config import value_of
from d2_ssod.errors import ConfigError
from d2_ssod.modeling import (
    DETECTORS,
    Detector,
    detector_of,
    known_detectors,
    num_classes,
    running_attributes,
)


@META_ARCH_REGISTRY.register()
class RCNNOfOnesOwn(GeneralizedRCNN):
    pass


@META_ARCH_REGISTRY.register()
class RetinaNetOfOnesOwn(RetinaNet):
    pass


@META_ARCH_REGISTRY.register()
class DetectorOfOnesOwn(nn.Module):
    pass


@META_ARCH_REGISTRY.register()
def build_detector_of_ones_own(cfg):
    return DetectorOfOnesOwn()


def config_of(architecture):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 5
    cfg.MODEL.RETINANET.NUM_CLASSES = 7
    return cfg


@pytest.mark.parametrize(
    ("architecture", "family"),
    [
        ("GeneralizedRCNN", GeneralizedRCNN),
        (PanopticFPN.__name__, GeneralizedRCNN),
        ("RCNNOfOnesOwn", GeneralizedRCNN),
        ("RetinaNet", RetinaNet),
        ("RetinaNetOfOnesOwn", RetinaNet),
    ],
)
def test_detector_is_of_the_family_of_its_ancestor(architecture, family):
    assert detector_of(config_of(architecture)) is DETECTORS[family]


def test_detector_is_of_the_nearest_of_several_families(monkeypatch):
    own = Detector(num_classes_key="MODEL.RETINANET.NUM_CLASSES", inference_keys=())
    monkeypatch.setitem(DETECTORS, RCNNOfOnesOwn, own)
    assert detector_of(config_of("RCNNOfOnesOwn")) is own
    assert num_classes(config_of("RCNNOfOnesOwn")) == 7
    assert detector_of(config_of("GeneralizedRCNN")) is DETECTORS[GeneralizedRCNN]


def test_detector_of_ones_own_is_added(monkeypatch):
    own = Detector(num_classes_key="MODEL.ROI_HEADS.NUM_CLASSES", inference_keys=())
    monkeypatch.setitem(DETECTORS, DetectorOfOnesOwn, own)
    assert detector_of(config_of("DetectorOfOnesOwn")) is own
    assert not own.learns_certainty  # unless it says so


@pytest.mark.parametrize(
    "architecture",
    ["DetectorOfOnesOwn", "SemanticSegmentor", "build_detector_of_ones_own", "RetinaNett"],
)
def test_unknown_architecture_is_named_with_what_is_known(architecture):
    with pytest.raises(ConfigError) as info:
        detector_of(config_of(architecture))
    message = str(info.value)
    assert message.startswith(f"MODEL.META_ARCHITECTURE is {architecture!r}")
    for part in ("CSD, GeneralizedRCNN", "RetinaNet, SSD", "d2_ssod.modeling.DETECTORS"):
        assert part in message
    assert "\n" not in message


def test_number_of_classes_is_that_of_the_built_model():
    for architecture, expected in {"GeneralizedRCNN": 5, "RetinaNet": 7}.items():
        assert num_classes(config_of(architecture)) == expected


@pytest.mark.parametrize("detector", DETECTORS.values())
def test_keys_of_a_family_exist(detector):
    for key in (detector.num_classes_key, *detector.inference_keys):
        value_of(bare_config("output"), key)
    assert len(set(detector.inference_keys)) == len(detector.inference_keys) > 0


def test_families_have_what_they_have():
    rcnn, retinanet = DETECTORS[GeneralizedRCNN], DETECTORS[RetinaNet]
    assert (rcnn.has_tta, rcnn.has_roi_heads) == (True, True)
    assert (retinanet.has_tta, retinanet.has_roi_heads) == (False, False)


def retinanet_config():
    cfg = make_config(
        "UncertaintyROIHeads",
        *("MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.RETINANET.IN_FEATURES", ["p2", "p3"]),
        *("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32]], "MODEL.RETINANET.NUM_CLASSES", 5),
    )
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    return cfg


def plain_numbers(model):
    """All numbers that a model has as attributes of its own."""
    return {k: v for k, v in vars(model).items() if type(v) in (int, float)}


def test_running_attributes_of_a_retinanet_are_what_training_changes():
    cfg = retinanet_config()
    torch.manual_seed(0)
    model = build_model(cfg).train()
    assert running_attributes(cfg, model) == {}  # there is none before the first step
    before, found = plain_numbers(model), []
    for seed in range(2):
        with EventStorage():
            model([make_input(seed)])
        found.append(running_attributes(cfg, model))
    assert found[0].keys() == found[1].keys() == {"loss_normalizer"}
    assert found[0] != found[1]
    # A mean of what it started with, 100, and the number of anchors on objects.
    anchors = (found[0]["loss_normalizer"] - 90) * 10
    assert anchors == pytest.approx(round(anchors))
    assert round(anchors) > 0
    assert type(found[1]["loss_normalizer"]) is float
    # Nothing else has changed that the state_dict does not keep, and that keeps not this.
    after = plain_numbers(model)
    assert {k for k in after if after[k] != before.get(k)} == {"loss_normalizer"}
    assert not [name for name in model.state_dict() if "loss_normalizer" in name]


def test_running_attributes_of_an_rcnn_are_none():
    cfg = make_config()
    torch.manual_seed(0)
    model = build_model(cfg).train()
    before = plain_numbers(model)
    with EventStorage():
        model([make_input(0)])
    assert running_attributes(cfg, model) == {}
    assert plain_numbers(model) == before


def test_detectors_to_choose_from_are_those_that_are_described():
    """Detectron2 has others, of segmentation or without a class."""
    known = known_detectors()
    assert {"CSD", "GeneralizedRCNN", "ISD", "RetinaNet", "SSD"} <= set(known)
    assert not {"ProposalNetwork", "SemanticSegmentor"} & set(known)
