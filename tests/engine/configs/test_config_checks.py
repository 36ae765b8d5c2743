from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg

from d2_ssod.config import add_ssod_config
from d2_ssod.engine import check_config, check_registered_names
from d2_ssod.engine.configs.odd_keys import odd_keys
from d2_ssod.errors import ConfigError
from d2_ssod.pseudo_label import LABEL_RULES, LabelRule

CONFIGS = Path(__file__).parents[3] / "configs"


def make_config():
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.MODEL.ROI_HEADS.NAME = "UncertaintyROIHeads"
    return cfg


def ready_config(name):
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
    return cfg


def set_key(cfg, key, value):
    """Set a value, also one that the config's own check of types would not take."""
    *sections, name = key.split(".")
    node = cfg
    for section in sections:
        node = node[section]
    assert name in node, key
    node[name] = value


def error_of(key, value, world_size=1):
    cfg = make_config()
    set_key(cfg, key, value)
    with pytest.raises(ConfigError) as info:
        check_config(cfg, world_size)
    return str(info.value)


def test_defaults_are_right():
    check_config(make_config(), 1)


@pytest.mark.parametrize(
    "name", ["voc_two_phase", "voc_one_phase", "voc_two_phase_timm", "coco_35_two_phase"]
)
def test_ready_configs_are_right(name):
    if name.endswith("timm"):
        pytest.importorskip("timm")
    cfg = ready_config(name)
    check_config(cfg, 8)
    cfg.SSOD.TTA.ENABLED = True
    check_config(cfg, 8)


def test_multi_transform_scales_are_shorter_sides():
    """Released: (666, 400) ... (1333, 800) in 5 steps, of which training's (1000, 600) is one."""
    cfg = ready_config("voc_two_phase")
    assert list(cfg.TEST.AUG.MIN_SIZES) == [400, 500, 600, 700, 800]
    assert cfg.INPUT.MIN_SIZE_TRAIN[0] in cfg.TEST.AUG.MIN_SIZES
    assert cfg.TEST.AUG.MAX_SIZE == 1333
    coco = ready_config("coco_35_two_phase")
    assert list(coco.TEST.AUG.MIN_SIZES) == list(range(400, 1201, 100))


WRONG = [
    ("SSOD.NUM_PHASES", True),
    ("SSOD.NUM_PHASES", -1),
    ("SSOD.PHASE_INIT", "imagenet"),
    ("SSOD.SAMPLING", "uniform"),
    ("SSOD.OPTIMIZER", "Adam"),
    ("SSOD.EASY_FRACTIONS", (0.5,)),
    ("SSOD.EASY_FRACTIONS", (0.5, 1.5)),
    ("SSOD.LABELED_REPEAT", 0),
    ("SSOD.INFERENCE_BATCH_SIZE", 0),
    ("SSOD.SCHEDULE.MAX_ITER", (10, 10)),
    ("SSOD.SCHEDULE.MAX_ITER", (10, 0, 10)),
    ("SSOD.SCHEDULE.MAX_ITER", (10, 10.5, 10)),
    ("SSOD.SCHEDULE.MAX_ITER", (10, "10", 10)),
    ("SSOD.SCHEDULE.STEPS", ((5,), (5,))),
    ("SSOD.SCHEDULE.STEPS", ((5,), ("a",), (5,))),
    ("SSOD.SCHEDULE.STEPS", ((8, 5), (5,), (5,))),
    ("SSOD.SCHEDULE.BASE_LR", (0.1, 0.1)),
    ("SSOD.SCHEDULE.BASE_LR", (0.1, -0.1, 0.1)),
    ("SSOD.SCHEDULE.BASE_LR", (0.1, "x", 0.1)),
    ("SSOD.SCHEDULE.LABELED_REPEAT", (1, 2)),
    ("SSOD.SCHEDULE.LABELED_REPEAT", (1, 0, 2)),
    ("SSOD.SCHEDULE.LABELED_REPEAT", (1, 1.5, 2)),
    ("SOLVER.MAX_ITER", 0),
    ("SOLVER.BASE_LR", 0.0),
    ("SOLVER.IMS_PER_BATCH", 0),
    ("SOLVER.REFERENCE_WORLD_SIZE", 7),
    ("SOLVER.REFERENCE_WORLD_SIZE", -1),
    ("SOLVER.STEPS", (8, 5)),
    ("SSOD.SCHEDULE.EPOCHS", (1, 1)),
    ("SSOD.SCHEDULE.EPOCHS", (1, 0, 1)),
    ("SSOD.SCHEDULE.STEP_EPOCHS", (1, 2, 3)),
    ("SSOD.PSEUDO_LABEL.KEEP_FRACTION", 1.1),
    ("SSOD.CONSENSUS.IOU_THRESH", 1.5),
    ("SSOD.CONSENSUS.NMS_THRESH", -0.1),
    ("SSOD.CONSENSUS.MIN_VOTES", -1),
    ("SSOD.ROI_WEIGHTING.NAME", "uncertain"),
    ("SSOD.LABELS", "intersection"),
    ("SSOD.SELECTION", "score"),
    ("SSOD.ROI_WEIGHTING.VARIANT", "Paper"),
    ("SSOD.ROI_WEIGHTING.APPLY_TO", "labeled"),
    ("SSOD.ROI_WEIGHTING.A", 1.5),
    ("SSOD.ROI_WEIGHTING.B", -1.0),
    ("SSOD.ROI_WEIGHTING.C_IOU", float("nan")),
    ("SSOD.ROI_WEIGHTING.C_SIM", -1.0),
    ("SSOD.ROI_WEIGHTING.C_SOFT_SAMPLING", -1.0),
    ("SSOD.ROI_WEIGHTING.CONSTANT", -0.5),
    ("SSOD.SIMILARITY.EMBED_DIM", -1),
    ("SSOD.SIMILARITY.IOF_THRESH", 2.0),
    ("SSOD.SIMILARITY.LOSS_WEIGHT", -1.0),
    ("SSOD.ENSEMBLE.IOU_THRESH", 1.5),
    ("SSOD.ENSEMBLE.SKIP_BOX_THRESH", -1.0),
    ("SSOD.ENSEMBLE.SKIP_BOX_THRESH", 1.0),
    ("SSOD.ENSEMBLE.WEIGHTS", (1.0, 1.0)),
    ("SSOD.ENSEMBLE.WEIGHTS", (1.0, 0.0, 1.0)),
    ("SSOD.ENSEMBLE.WEIGHTS", (1.0, "a", 1.0)),
    ("SSOD.AUG.COLOR", 1.5),
    ("SSOD.AUG.SHIFT", -0.1),
    ("SSOD.AUG.SCALE", (1.2, 0.8)),
    ("SSOD.AUG.SCALE", (1.0,)),
    ("SSOD.AUG.SCALE", (0.0, 1.0)),
    ("SSOD.AUG.SCALE", (80, 120)),  # percent
    ("SSOD.AUG.EXPAND", 1e9),
    ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
    ("MODEL.MASK_ON", True),
    ("MODEL.KEYPOINT_ON", True),
    ("MODEL.META_ARCHITECTURE", "FasterRCNN"),
    ("MODEL.ROI_HEADS.NAME", "UncertaintyHeads"),
    ("MODEL.BACKBONE.NAME", "build_no_backbone"),
    # Detectron2's own, which only labeling or evaluation would read, or nothing would refuse.
    ("TEST.AUG.MIN_SIZES", (-1, 128)),
    ("TEST.AUG.MAX_SIZE", 0),
    ("TEST.DETECTIONS_PER_IMAGE", 0),
    ("TEST.DETECTIONS_PER_IMAGE", -2),
    ("MODEL.RPN.PRE_NMS_TOPK_TEST", -1),
    ("MODEL.RPN.POST_NMS_TOPK_TEST", 0),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0),
    ("MODEL.RETINANET.SCORE_THRESH_TEST", 5.0),
    ("MODEL.RPN.BBOX_REG_LOSS_TYPE", "huber"),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (10.0, 10.0)),
    ("MODEL.ANCHOR_GENERATOR.SIZES", []),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[]]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5, -1.0]]),
    ("MODEL.PIXEL_STD", [0.0, 1.0, 1.0]),
    ("SOLVER.CHECKPOINT_PERIOD", 0),
    ("SOLVER.MOMENTUM", 1.5),
    ("SOLVER.WEIGHT_DECAY", -0.1),
    ("SOLVER.WEIGHT_DECAY_BIAS", -0.1),
    ("DATALOADER.NUM_WORKERS", -1),
    ("SEED", 2**32),
    ("INPUT.FORMAT", "rgb"),
    ("INPUT.FORMAT", "YUV-BT.601"),
    ("INPUT.MIN_SIZE_TRAIN", ()),
    ("INPUT.MIN_SIZE_TRAIN", ("128",)),
    ("INPUT.MAX_SIZE_TRAIN", 0),
    ("INPUT.RANDOM_FLIP", "both"),
    ("INPUT.CROP.SIZE", [0.9]),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_wrong_value_is_named_in_one_line(key, value):
    message = error_of(key, value)
    assert key in message
    assert "\n" not in message


@pytest.mark.parametrize(("key", "value"), [w for w in WRONG if isinstance(w[1], (str, float))])
def test_wrong_value_is_shown(key, value):
    shown = repr(value) if isinstance(value, str) else str(value)
    assert shown.rstrip("0").rstrip(".") in error_of(key, value)


def test_multi_transform_inference_needs_a_two_stage_model():
    cfg = make_config()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    check_config(cfg, 1)
    cfg.SSOD.TTA.ENABLED = True
    with pytest.raises(ConfigError, match=r"SSOD\.TTA\.ENABLED .*'RetinaNet'"):
        check_config(cfg, 1)


def test_sizes_of_a_range_are_its_ends():
    cfg = make_config()
    cfg.INPUT.MIN_SIZE_TRAIN = (128, 64, 32)
    check_config(cfg, 1)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    for sizes in ((128, 64, 32), (128,), (128, 64)):
        cfg.INPUT.MIN_SIZE_TRAIN = sizes
        with pytest.raises(ConfigError, match="two sizes, the smaller one first"):
            check_config(cfg, 1)
    cfg.INPUT.MIN_SIZE_TRAIN = (64, 128)
    check_config(cfg, 1)


def test_relative_crops_are_parts_of_the_image():
    cfg = make_config()
    cfg.INPUT.CROP.SIZE = [300, 300]
    check_config(cfg, 1)  # there are none
    cfg.INPUT.CROP.ENABLED = True
    with pytest.raises(ConfigError, match=r"INPUT\.CROP\.SIZE is \[300, 300\]"):
        check_config(cfg, 1)
    for kind, right, wrong in (
        ("absolute", [300, 200], [300.5, 200]),
        ("absolute_range", [200, 300], [300, 200]),
        ("relative", [0.5, 1.0], [0.5, 1.5]),
    ):
        cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = kind, right
        check_config(cfg, 1)
        cfg.INPUT.CROP.SIZE = wrong
        with pytest.raises(ConfigError, match=r"INPUT\.CROP\.SIZE is"):
            check_config(cfg, 1)


def test_pictures_of_four_channels_have_four_means_and_keep_their_colors():
    cfg = make_config()
    cfg.INPUT.FORMAT = "CMYK"
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT is 'CMYK', of four channels"):
        check_config(cfg, 1)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * 4, [1.0] * 4
    check_config(cfg, 1)
    cfg.SSOD.AUG.STRONG = "pseudo"
    with pytest.raises(ConfigError, match="cannot be changed as colors are"):
        check_config(cfg, 1)


@pytest.mark.parametrize("key", ["COLOR", "PHOTOMETRIC", "STRONG"])
def test_channels_that_are_no_colors_are_not_changed_as_such(key):
    cfg = make_config()
    cfg.INPUT.FORMAT = "HSV"
    check_config(cfg, 1)
    cfg.SSOD.AUG[key] = {"COLOR": 0.1, "PHOTOMETRIC": True, "STRONG": "all"}[key]
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT is 'HSV', whose channels cannot"):
        check_config(cfg, 1)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("PROPOSAL_GENERATOR", "RRPN"),
        ("ANCHOR_GENERATOR", "RotatedAnchorGenerator"),
        ("ROI_HEADS", "RROIHeads"),
    ],
)
def test_rotated_boxes_are_refused_as_such(key, name):
    cfg = make_config()
    cfg.MODEL[key].NAME = name
    cfg.MODEL.RPN.BBOX_REG_WEIGHTS = (1.0,) * 5  # as these need
    with pytest.raises(ConfigError, match=rf"MODEL\.{key}\.NAME is '{name}', of rotated boxes"):
        check_config(cfg, 1)


def test_a_sigmoid_is_for_heads_that_weigh_nothing():
    cfg = make_config()
    cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE = True
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    check_config(cfg, 1)
    cfg.MODEL.ROI_HEADS.NAME = "UncertaintyROIHeads"
    with pytest.raises(ConfigError, match="which weighs the softmax cross-entropy"):
        check_config(cfg, 1)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    check_config(cfg, 1)
    cfg.MODEL.META_ARCHITECTURE = "ProposalLearningRCNN"
    with pytest.raises(ConfigError, match="compares probabilities of the softmax"):
        check_config(cfg, 1)


def test_channels_have_a_mean_and_a_deviation_each():
    assert "MODEL.PIXEL_MEAN has 3 values and MODEL.PIXEL_STD 1" in error_of(
        "MODEL.PIXEL_STD", [1.0]
    )


def test_an_iteration_is_needed_where_the_schedule_has_none():
    cfg = make_config()
    cfg.SOLVER.MAX_ITER, cfg.SSOD.SCHEDULE.MAX_ITER = 0, (5, 5, 5)
    check_config(cfg, 1)
    cfg.SSOD.SCHEDULE.MAX_ITER = ()
    with pytest.raises(ConfigError, match=r"SOLVER\.MAX_ITER is 0"):
        check_config(cfg, 1)


@pytest.mark.parametrize("detector", ["RetinaNet", "SSD"])
def test_one_stage_detectors_need_a_limit_of_detections(detector):
    cfg = make_config()
    cfg.TEST.DETECTIONS_PER_IMAGE = -1
    check_config(cfg, 1)
    cfg.MODEL.META_ARCHITECTURE = detector
    with pytest.raises(ConfigError, match=rf"DETECTIONS_PER_IMAGE is -1, .*{detector}"):
        check_config(cfg, 1)


def test_choices_are_listed():
    message = error_of("SSOD.ROI_WEIGHTING.NAME", "uncertain")
    for name in ("none", "uncertainty", "soft_sampling", "constant"):
        assert name in message


def test_a_rule_for_labels_is_made_before_anything_is_trained(monkeypatch):
    def refuse(cfg):
        raise ValueError("no such votes")

    cfg = make_config()
    cfg.SSOD.LABELS = "mine"
    monkeypatch.setitem(LABEL_RULES, "mine", LabelRule(refuse))
    with pytest.raises(ValueError, match="no such votes"):
        check_config(cfg, 1)
    for section in ("MODEL.MINE", "MODEL.DEVICE"):
        monkeypatch.setitem(LABEL_RULES, "mine", LabelRule(lambda cfg: len, section))
        with pytest.raises(ConfigError, match=rf"'mine', whose keys are said to be in {section}"):
            check_config(cfg, 1)
    monkeypatch.setitem(LABEL_RULES, "mine", LabelRule(lambda cfg: None))
    with pytest.raises(ConfigError, match=r"'mine', whose from_config gives None"):
        check_config(cfg, 1)


@pytest.mark.parametrize("key", ["LABELS", "SELECTION"])
def test_models_are_used_without_the_rules_that_made_their_labels(key):
    cfg = make_config()
    cfg.SSOD[key] = "mine"
    check_registered_names(cfg)
    with pytest.raises(ConfigError, match=rf"SSOD\.{key} is 'mine'; .*SSOD\.IMPORTS"):
        check_config(cfg, 1)


def test_a_rule_of_ones_own_with_tiers_is_learned_as_such(monkeypatch):
    monkeypatch.setitem(LABEL_RULES, "mine", LabelRule(lambda cfg: len, has_tiers=True))
    cfg = make_config()
    cfg.SSOD.LABELS, cfg.MODEL.META_ARCHITECTURE = "mine", "RetinaNet"
    with pytest.raises(ConfigError, match=r"'RetinaNet', which .* 'UncertaintyRetinaNet'"):
        check_config(cfg, 1)


def test_batch_must_be_shared_out_evenly():
    message = error_of("SOLVER.IMS_PER_BATCH", 10, world_size=4)
    assert "SOLVER.IMS_PER_BATCH is 10" in message
    assert "4" in message


RIGHT = [
    ("SSOD.NUM_PHASES", 0),
    ("SSOD.NUM_PHASES", 1),
    ("SSOD.NUM_PHASES", 5),
    ("SSOD.EASY_FRACTIONS", (0.3, 1.0)),
    ("SSOD.EASY_FRACTIONS", (0, 1)),
    ("SSOD.SCHEDULE.MAX_ITER", (1, 2, 3)),
    ("SSOD.SCHEDULE.MAX_ITER", [1, 2, 3]),
    ("SSOD.SCHEDULE.STEPS", ((1, 2), (3,), 4)),
    ("SSOD.SCHEDULE.STEPS", ((), (3,), ())),
    ("SSOD.SCHEDULE.EPOCHS", (1, 0.5, 12)),
    ("SOLVER.REFERENCE_WORLD_SIZE", 16),
    ("SSOD.SCHEDULE.BASE_LR", (1, 0.1, 0.01)),
    ("SSOD.SCHEDULE.LABELED_REPEAT", (1, 2, 4)),
    ("SSOD.CONSENSUS.MIN_VOTES", 2),
    ("SSOD.ENSEMBLE.WEIGHTS", (0.9, 1, 1.4)),
    ("SSOD.ROI_WEIGHTING.NAME", "none"),
    ("SSOD.AUG.SCALE", [0.5, 2.0]),
    ("MODEL.META_ARCHITECTURE", "RetinaNet"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [32, 64.5]),  # those of all levels
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5], [1, 2]]),
    ("SOLVER.WEIGHT_DECAY_BIAS", None),
    ("SOLVER.WEIGHT_DECAY_BIAS", 0.0),
    ("INPUT.MIN_SIZE_TEST", 0),
    ("TEST.DETECTIONS_PER_IMAGE", -1),
    ("SEED", -1),
    ("SEED", 3141592653),
    ("SSOD.PSEUDO_LABEL.KEEP_FRACTION", 0.0),  # a person's labels alone
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", -1.0),
    ("TEST.AUG.MIN_SIZES", ()),
]


@pytest.mark.parametrize(("key", "value"), RIGHT)
def test_right_value_passes(key, value):
    cfg = make_config()
    set_key(cfg, key, value)
    check_config(cfg, 8)


def test_teacher_is_the_average_of_weights_that_are_averaged():
    message = error_of("SSOD.TEACHER.ENABLED", True)
    assert "SSOD.AVERAGE.DECAY is 0" in message
    cfg = make_config()
    cfg.SSOD.TEACHER.ENABLED, cfg.SSOD.AVERAGE.DECAY = True, 0.999
    check_config(cfg, 1)


@pytest.mark.parametrize("key", ["SSOD.LABELS", "SSOD.TEACHER.ENABLED"])
def test_detector_that_takes_all_labels_for_certain_is_refused(key):
    cfg = make_config()
    cfg.SSOD.AVERAGE.DECAY = 0.999
    set_key(cfg, key, "tiers" if key == "SSOD.LABELS" else True)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    with pytest.raises(ConfigError, match=r"'RetinaNet', which .* 'UncertaintyRetinaNet'"):
        check_config(cfg, 1)
    cfg.MODEL.META_ARCHITECTURE = "UncertaintyRetinaNet"
    check_config(cfg, 1)


def test_detector_that_needs_unlabeled_images_has_no_phase_without_them():
    cfg = make_config()
    cfg.MODEL.META_ARCHITECTURE = "ProposalLearningRCNN"
    with pytest.raises(ConfigError, match=r"SSOD\.NUM_PHASES is 2, .*'ProposalLearningRCNN'"):
        check_config(cfg, 1)
    cfg.SSOD.NUM_PHASES = 0
    cfg.SSOD.SAMPLING = "balanced"
    check_config(cfg, 1)


def test_given_labels_and_a_teacher_that_makes_all_anew_are_refused():
    cfg = make_config()
    cfg.SSOD.AVERAGE.DECAY, cfg.SSOD.TEACHER.ENABLED = 0.999, True
    cfg.SSOD.NUM_PHASES, cfg.SSOD.PSEUDO_LABEL.FROM = 1, "labels.json"
    with pytest.raises(ConfigError, match=r"PSEUDO_LABEL\.FROM .* set SSOD\.TEACHER\.ENABLED"):
        check_config(cfg, 1)
    cfg.SSOD.TEACHER.START = 100
    check_config(cfg, 1)


def test_edges_of_boxes_are_left_out_of_one_loss_only():
    cfg = make_config()
    cfg.SSOD.LABELS = "tiers"
    cfg.MODEL.RPN.BBOX_REG_LOSS_TYPE = "giou"
    check_config(cfg, 1)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "UncertaintyRPN"
    with pytest.raises(ConfigError, match=r"MODEL\.RPN\.BBOX_REG_LOSS_TYPE is 'giou'"):
        check_config(cfg, 1)


def test_model_of_timm_is_checked():
    pytest.importorskip("timm")
    cfg = make_config()
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    cfg.MODEL.TIMM.NAME = "resnet500"
    with pytest.raises(ConfigError, match=r"MODEL\.TIMM\.NAME is 'resnet500'"):
        check_config(cfg, 1)


@pytest.mark.parametrize(("batch", "processes"), [(16, 16), (8, 8), (1, 1)])
def test_detector_that_needs_unlabeled_images_needs_two_images_a_process(batch, processes):
    cfg = make_config()
    cfg.MODEL.META_ARCHITECTURE, cfg.SSOD.NUM_PHASES = "ProposalLearningRCNN", 0
    cfg.SSOD.SAMPLING = "balanced"
    cfg.SOLVER.IMS_PER_BATCH = batch
    expected = f"IMS_PER_BATCH is {batch}, but {processes} processes .* set it to {2 * processes}"
    with pytest.raises(ConfigError, match=expected):
        check_config(cfg, processes)
    cfg.SOLVER.IMS_PER_BATCH = 2 * processes
    check_config(cfg, processes)


def test_detector_that_needs_unlabeled_images_needs_some_in_every_batch():
    cfg = make_config()
    cfg.MODEL.META_ARCHITECTURE, cfg.SSOD.NUM_PHASES = "ProposalLearningRCNN", 0
    with pytest.raises(ConfigError, match=r"^SSOD\.SAMPLING is 'union', but every batch of Propos"):
        check_config(cfg, 1)
    cfg.SSOD.SAMPLING = "balanced"
    check_config(cfg, 1)
    for grouped in (True, False):
        cfg.DATALOADER.ASPECT_RATIO_GROUPING = grouped
        said = "".join(odd_keys(cfg))
        assert ("DATALOADER.ASPECT_RATIO_GROUPING is True" in said) == grouped


def test_a_device_of_all_processes_is_refused():
    cfg = make_config()
    cfg.MODEL.DEVICE, cfg.SOLVER.IMS_PER_BATCH = "cuda:0", 16
    check_config(cfg, 1)
    with pytest.raises(ConfigError, match=r"'cuda:0', but each of the 8 .* set it to 'cuda'"):
        check_config(cfg, 8)


def test_the_cpu_is_refused_in_processes_that_were_started_for_gpus(monkeypatch):
    cfg = make_config()
    cfg.MODEL.DEVICE, cfg.SOLVER.IMS_PER_BATCH = "cpu", 16
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for backend in ("gloo", "nccl"):
        monkeypatch.setattr(torch.distributed, "get_backend", lambda own=backend: own)
        if backend == "nccl":
            with pytest.raises(ConfigError, match=r"MODEL\.DEVICE is 'cpu', .* --num-gpus 0"):
                check_config(cfg, 8)
        else:
            check_config(cfg, 8)


def test_grey_pictures_may_be_changed_in_brightness():
    cfg = make_config()
    cfg.INPUT.FORMAT, cfg.SSOD.AUG.COLOR, cfg.SSOD.AUG.STRONG = "L", 0.2, "all"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [110.0], [1.0]
    check_config(cfg, 1)


def test_given_labels_are_learned_before_the_phase_of_a_teacher():
    cfg = make_config()
    cfg.SSOD.TEACHER.ENABLED, cfg.SSOD.AVERAGE.DECAY = True, 0.999
    cfg.SSOD.PSEUDO_LABEL.FROM, cfg.SSOD.NUM_PHASES = "labels.json", 2
    check_config(cfg, 1)


@pytest.mark.parametrize("count", [2, 4])
def test_each_phase_has_one_weight(count):
    message = error_of("SSOD.ENSEMBLE.WEIGHTS", (1.0,) * count)  # two phases after the first
    assert f"SSOD.ENSEMBLE.WEIGHTS has {count} values" in message
