from pathlib import Path

import pytest
from detectron2.config import get_cfg

from d2_ssod.config import add_ssod_config
from d2_ssod.engine.configs.odd_keys import odd_keys

CONFIGS = Path(__file__).parents[3] / "configs"


MIXED = ("SSOD.SAMPLING", "balanced", "DATALOADER.ASPECT_RATIO_GROUPING", False)


@pytest.fixture
def said():
    """What is said of a config that differs in these keys from a ready one, or the defaults."""

    def of(*keys, base=None):
        cfg = get_cfg()
        add_ssod_config(cfg)
        cfg.MODEL.ROI_HEADS.NAME = "UncertaintyROIHeads"
        cfg.DATASETS.TEST = ("some_test",)
        if base:
            cfg.merge_from_file(str(CONFIGS / f"{base}.yaml"))
        cfg.merge_from_list(keys)
        return "\n".join(odd_keys(cfg))

    return of


def test_nothing_is_said_of_the_defaults(said):
    assert not said()


def test_that_no_image_judges_is_said(said):
    assert "so that nobody sees whether it helped" in said("DATASETS.TEST", ())
    assert not said("DATASETS.TEST", (), "DATASETS.VAL", ("some_val",))


@pytest.mark.parametrize(
    "keys",
    [
        ("SSOD.LABELS", "tiers"),
        ("SSOD.TEACHER.ENABLED", True, "SSOD.NUM_PHASES", 1, "SSOD.PHASE_INIT", "previous"),
    ],
)
def test_parts_that_learn_the_edges_of_uncertain_boxes_are_said(said, keys):
    text = said(*keys)
    assert "MODEL.PROPOSAL_GENERATOR.NAME is 'RPN'" in text
    assert "ROI_HEADS" not in text
    other = ("MODEL.PROPOSAL_GENERATOR.NAME", "UncertaintyRPN")
    assert not said(*keys, *other)
    text = said(*keys, *other, "MODEL.ROI_HEADS.NAME", "StandardROIHeads")
    assert "MODEL.ROI_HEADS.NAME is 'StandardROIHeads'" in text


def test_batches_that_are_mixed_on_average_only_are_said(said):
    assert "half are labeled on average only" in said("SSOD.SAMPLING", "balanced")
    assert "on average only" not in said("SSOD.SAMPLING", "balanced", "SSOD.NUM_PHASES", "0")
    assert not said(*MIXED)


def test_frozen_random_weights_of_timm_are_said(said):
    timm = ("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone")
    assert not said(*timm, "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.TIMM.NORM", "BN")
    frozen = ("MODEL.BACKBONE.FREEZE_AT", 2, "MODEL.TIMM.NORM", "BN")
    assert not said(*timm, *frozen, "MODEL.TIMM.WEIGHTS", "pretrained")
    assert "MODEL.BACKBONE.FREEZE_AT to 0 (now 2)" in said(*timm, *frozen)


def test_views_that_training_does_not_have_are_said(said):
    def of(*keys):
        return said("SSOD.TTA.ENABLED", True, *keys, base="Base-SSOD-Small")

    assert not of()
    assert not of("INPUT.RANDOM_FLIP", "none", "TEST.AUG.FLIP", False)
    assert "INPUT.RANDOM_FLIP is 'none': if" in of("INPUT.RANDOM_FLIP", "none")
    sizes = ("TEST.AUG.MIN_SIZES", [400, 500])
    assert "(400, 500) and MAX_SIZE 160, but INPUT.MIN_SIZE_TEST is 128" in of(*sizes)
    assert "MAX_SIZE_TEST 320" in of("INPUT.MAX_SIZE_TEST", 320)
    assert not of(*sizes, "SSOD.TTA.ENABLED", False)
    assert not of(*sizes, "INPUT.MIN_SIZE_TEST", 0)  # images stay as large as they are


COSINE = ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR")
TEACHER = (
    *("SSOD.TEACHER.ENABLED", True, "SSOD.AVERAGE.DECAY", 0.99),
    *("SSOD.PHASE_INIT", "previous"),
)
LEARNS_EDGES = ("MODEL.PROPOSAL_GENERATOR.NAME", "UncertaintyRPN")
THREE = ((1,), (1,), (1,))
SHORT = ("SOLVER.MAX_ITER", 50, "SOLVER.STEPS", ())


@pytest.mark.parametrize(
    ("key", "in_vain", "with_effect"),
    [
        (
            "SSOD.SCHEDULE.STEPS",
            ("SSOD.SCHEDULE.STEPS", THREE, *COSINE),
            ("SSOD.SCHEDULE.STEPS", THREE),
        ),
        (
            "SSOD.SCHEDULE.STEP_EPOCHS",
            ("SSOD.SCHEDULE.STEP_EPOCHS", THREE, "SSOD.SCHEDULE.EPOCHS", (9, 9, 9), *COSINE),
            ("SSOD.SCHEDULE.STEP_EPOCHS", THREE, "SSOD.SCHEDULE.EPOCHS", (9, 9, 9)),
        ),
        (
            "SSOD.PSEUDO_LABEL.FROM",
            ("SSOD.PSEUDO_LABEL.FROM", "a.json", "SSOD.NUM_PHASES", 0),
            ("SSOD.PSEUDO_LABEL.FROM", "a.json"),
        ),
        (
            "SSOD.TEACHER.ENABLED",
            (*TEACHER, *LEARNS_EDGES, "SSOD.NUM_PHASES", 0),
            (*TEACHER, *LEARNS_EDGES),
        ),
        (
            "SSOD.TEACHER.START",
            (*TEACHER, *LEARNS_EDGES, "SSOD.TEACHER.START", 50, *SHORT),
            (*TEACHER, *LEARNS_EDGES, "SSOD.TEACHER.START", 49, *SHORT),
        ),
        (
            "SSOD.LABELED_REPEAT",
            ("SSOD.LABELED_REPEAT", 2, *MIXED),
            (
                "SSOD.LABELED_REPEAT",
                2,
                *MIXED,
                "SSOD.SCHEDULE.EPOCHS",
                (9, 9, 9),
                "SOLVER.STEPS",
                (),
            ),
        ),
        (
            "SSOD.SCHEDULE.LABELED_REPEAT",
            ("SSOD.SCHEDULE.LABELED_REPEAT", (1, 2, 2), *MIXED),
            ("SSOD.SCHEDULE.LABELED_REPEAT", (1, 2, 2)),
        ),
    ],
)
def test_keys_without_effect_are_said(said, key, in_vain, with_effect):
    text = said(*in_vain)
    assert len(text.splitlines()) == 1
    assert f"{key} is " in text
    assert ", but has no effect: " in text
    assert not said(*with_effect)


LENGTHS = ("SSOD.SCHEDULE.MAX_ITER", (50, 90, 70))
EPOCHS = ("SSOD.SCHEDULE.EPOCHS", (9, 9, 9))


@pytest.mark.parametrize(
    ("keys", "where", "others"),
    [
        ((*LENGTHS, "SOLVER.STEPS", (60, 80)), "in phase 0, as", ("SOLVER.STEPS", (40,))),
        ((*LENGTHS, "SOLVER.STEPS", (80,)), "in phase 0 and 2, as", ("SOLVER.STEPS", (40,))),
        (("SOLVER.MAX_ITER", 50), "in any phase, as", ("SSOD.SCHEDULE.STEPS", THREE)),
        (EPOCHS, "in any phase, as", ("SSOD.SCHEDULE.STEP_EPOCHS", ((5,), (5,), (5,)))),
        (EPOCHS, "are not read where SSOD.SCHEDULE.EPOCHS is set", ("SOLVER.STEPS", ())),
        (("SOLVER.MAX_ITER", 50), "SOLVER.STEPS, (30000,), lie beyond", COSINE),
    ],
)
def test_phases_whose_learning_rate_never_drops_are_said(said, keys, where, others):
    (line,) = said(*keys).splitlines()
    assert line.startswith("The learning rate does not drop in ")
    assert where in line
    assert not said(*keys, *others)


def test_a_teacher_that_has_learned_nothing_is_said(said):
    keys = (*TEACHER, *LEARNS_EDGES, "SSOD.PHASE_INIT", "pretrained")
    (line,) = said(*keys).splitlines()
    assert line.startswith("SSOD.PHASE_INIT is 'pretrained', so that the teacher begins as MODEL.W")
    assert not said(*keys, "SSOD.TEACHER.START", 9)
    assert not said(*keys, "SSOD.NUM_PHASES", 0, "SSOD.TEACHER.ENABLED", False)


def test_evaluations_are_of_validation_images(said):
    period = ("TEST.EVAL_PERIOD", 100)
    assert "TEST.EVAL_PERIOD is 100, but has no effect: name validation images" in said(*period)
    assert not said(*period, "DATASETS.VAL", ("some_val",))


def test_how_long_epochs_are_is_not_known_before_a_teacher_starts(said):
    start = ("SSOD.TEACHER.START", 50, *EPOCHS, "SOLVER.STEPS", ())
    assert not said(*TEACHER, *LEARNS_EDGES, *start)


def test_random_weights_of_timm_that_only_norms_freeze_are_said_unless_all_are_given(said):
    timm = ("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone")
    frozen = ("MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.TIMM.NORM", "FrozenBN")
    assert "MODEL.TIMM.NORM to BN (now FrozenBN)" in said(*timm, *frozen)
    for key in ("MODEL.WEIGHTS", "SSOD.START.PHASE_0"):
        assert not said(*timm, *frozen, key, "detector.pth")


def test_each_detector_that_learns_the_edges_of_uncertain_boxes_is_said(said):
    keys = ("SSOD.LABELS", "tiers", *LEARNS_EDGES)
    for heads in ("StandardROIHeads", "Res5ROIHeads", "CascadeROIHeads"):
        assert f"MODEL.ROI_HEADS.NAME is '{heads}'" in said(*keys, "MODEL.ROI_HEADS.NAME", heads)
    one_stage = ("MODEL.META_ARCHITECTURE", "UncertaintyRetinaNet")
    assert not said("SSOD.LABELS", "tiers", *one_stage)  # whose proposals are not read
