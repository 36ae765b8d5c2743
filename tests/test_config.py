import math

import pytest
from detectron2.config import CfgNode, get_cfg

from d2_ssod import config
from d2_ssod.config import add_ssod_config, check_limits, nearest_key, value_of
from d2_ssod.errors import ConfigError
from d2_ssod.limits import is_list, is_number, is_whole


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ssod_config(cfg)
    return cfg


def names_of(node, prefix=""):
    """All keys below a node, with dots."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from names_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def set_key(cfg, name, value):
    """Set a value, also one that the config's own check of types would not take."""
    *sections, key = name.split(".")
    node = cfg
    for section in sections:
        node = node[section]
    assert key in node, name
    node[key] = value


def refused(cfg, name, value):
    """Whether this value is refused, with one line that says all."""
    set_key(cfg, name, value)
    try:
        check_limits(cfg)
    except ConfigError as error:
        message = str(error)
        assert message.startswith(f"{name} is {value!r}; it must be ")
        assert "\n" not in message
        return True
    return False


def default(name):
    cfg = get_cfg()
    add_ssod_config(cfg)
    return value_of(cfg, name)


KEYS = [f"{section}.{name}" for section, keys in config._SECTIONS.items() for name in keys]
NUMBERS = [key for key in KEYS if is_number(default(key))]
WHOLE_NUMBERS = [key for key in NUMBERS if is_whole(default(key))]
LISTS = [key for key in KEYS if is_list(default(key))]
FLAGS = [key for key in KEYS if isinstance(default(key), bool)]
TEXTS = [key for key in KEYS if isinstance(default(key), str)]


def test_keys_are_of_these_kinds():
    assert sorted(NUMBERS + LISTS + FLAGS + TEXTS) == sorted(KEYS)
    assert all((NUMBERS, WHOLE_NUMBERS, LISTS, FLAGS, TEXTS))


def test_config_has_every_key_and_no_other(cfg):
    sections = {name: value_of(cfg, name) for name in config._SECTIONS}
    ours = [name for at, node in sections.items() for name in names_of(node, f"{at}.")]
    assert sorted(ours) == sorted(KEYS)
    assert cfg.DATASETS.UNLABELED == cfg.DATASETS.VAL == ()


def test_keys_of_detectron2_stay_as_they_are(cfg):
    for section in config._SECTIONS:
        parent, _, own = section.rpartition(".")
        del (value_of(cfg, parent) if parent else cfg)[own]
    del cfg.DATASETS["UNLABELED"], cfg.DATASETS["VAL"]
    assert cfg == get_cfg()


@pytest.mark.parametrize("name", KEYS)
def test_default_is_within_its_own_limits(cfg, name):
    assert not refused(cfg, name, default(name))


def test_defaults_are_not_shared_between_configs(cfg):
    cfg.SSOD.REGISTER.append({"NAME": "mine"})
    assert default("SSOD.REGISTER") == []


def test_default_lists_within_lists_are_not_shared_either(cfg):
    cfg.MODEL.SSD.ASPECT_RATIOS[0].append(7)
    assert default("MODEL.SSD.ASPECT_RATIOS")[0] == [2]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, False, "1", None, (1,)])
@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_is_refused_as_one(cfg, name, value):
    assert refused(cfg, name, value)


@pytest.mark.parametrize("name", NUMBERS)
def test_negative_number_is_refused(cfg, name):
    assert refused(cfg, name, -1)


@pytest.mark.parametrize("name", WHOLE_NUMBERS)
def test_whole_number_is_refused_as_a_fraction(cfg, name):
    assert refused(cfg, name, 64.5)
    assert not refused(cfg, name, 64)


@pytest.mark.parametrize("value", ["abc", 1, None, {}])
@pytest.mark.parametrize("name", LISTS)
def test_no_list_is_refused_as_one(cfg, name, value):
    assert refused(cfg, name, value)


@pytest.mark.parametrize("value", [math.nan, True, "1"])
@pytest.mark.parametrize("name", [name for name in LISTS if name != "SSOD.REGISTER"])
def test_list_is_refused_for_one_of_its_values(cfg, name, value):
    assert refused(cfg, name, (1, value))
    assert refused(cfg, name, [value, 1])


@pytest.mark.parametrize("value", [0, 1, "True", None])
@pytest.mark.parametrize("name", FLAGS)
def test_flag_is_True_or_False(cfg, name, value):
    assert refused(cfg, name, value)
    assert not refused(cfg, name, True)


@pytest.mark.parametrize("value", [True, 0, None, ("paper",)])
@pytest.mark.parametrize("name", TEXTS)
def test_no_text_is_refused_as_one(cfg, name, value):
    assert refused(cfg, name, value)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("NUM_PHASES", [0, 1, 9], [-1]),  # a count
        ("LABELED_REPEAT", [1, 9], [0]),  # at least 1
        ("CONSENSUS.IOU_THRESH", [0, 0.5, 1], [-0.01, 1.01]),  # a fraction
        ("ROI_WEIGHTING.B", [0, 50.5, 1e6], [-0.01]),  # not negative
        ("PHASE_INIT", ["pretrained", "supervised", "previous"], ["Previous", ""]),  # a choice
        ("ROI_WEIGHTING.NAME", ["uncertainty", "of my own"], []),  # a name
        ("EASY_FRACTIONS", [(), [0.5, 1]], [(0.5, 1.01), (-0.1,)]),  # fractions
        ("ENSEMBLE.WEIGHTS", [(), (1, 1.4)], [(1, 0), (1, -1)]),  # above 0
        ("SCHEDULE.MAX_ITER", [(), [10, 1]], [(10, 0), (10, 1.5)]),  # at least 1
        ("AUG.SCALE", [(1, 1), [0.5, 2.0]], [(2, 1), (0, 1), (1,), (1, 2, 3), ()]),  # a range
        # One number for each phase, or a list of them, smallest first.
        ("SCHEDULE.STEPS", [(), (5, 6), ((5, 8), [6], ())], [((8, 5),), ((-1,),), ((1.5,),)]),
        ("MODEL.SSD.POSITIVE_FRACTION", [0.25, 1], [0, 1.5]),  # a share
        ("MODEL.TIMM.OUT_INDICES", [(), (1, 2)], [(1, -1), (1.5,)]),  # counts
        ("MODEL.TIMM.NORM", ["FrozenBN", "BN", "SyncBN"], ["GN", ""]),
        ("MODEL.SSD.ASPECT_RATIOS", [[[2], [2, 3]], [[], [1.5]]], [[2], [[0]]]),  # lists of ratios
        ("SCHEDULE.STEP_EPOCHS", [(0.5, 1), ((0.5, 8), 6)], [((8, 0.5),), ((0,),), (0,)]),
    ],
)
def test_limits_of_each_kind(cfg, name, right, wrong):
    key = name if name.startswith("MODEL.") else f"SSOD.{name}"
    assert [value for value in right if refused(cfg, key, value)] == []
    assert [value for value in wrong if not refused(cfg, key, value)] == []


def test_message_says_what_is_expected(cfg):
    cfg.SSOD.CONSENSUS.IOU_THRESH = 1.5
    with pytest.raises(ConfigError) as info:
        check_limits(cfg)
    expected = "SSOD.CONSENSUS.IOU_THRESH is 1.5; it must be a number from 0 to 1"
    assert str(info.value) == expected


def test_choices_are_listed(cfg):
    cfg.SSOD.SAMPLING = "uniform"
    with pytest.raises(ConfigError, match=r"must be one of union, balanced$"):
        check_limits(cfg)


def test_value_is_found_by_its_name(cfg):
    assert value_of(cfg, "SSOD.ROI_WEIGHTING.A") == 0.25
    assert value_of(cfg.SSOD, "NUM_PHASES") == 2
    with pytest.raises(AttributeError, match="NOTHING"):
        value_of(cfg, "SSOD.NOTHING")


def test_is_number_takes_every_finite_number():
    assert all(map(is_number, (0, -1, 1.5, 10**400)))
    assert not any(map(is_number, (True, math.nan, math.inf, "1", None, 1j)))


@pytest.mark.parametrize(
    ("unknown", "right"),
    [
        ("DATASETS.UNLABELLED", "DATASETS.UNLABELED"),
        ("SSOD.NUM_PHASE", "SSOD.NUM_PHASES"),
        ("SSOD.TEACHER.ENABLE", "SSOD.TEACHER.ENABLED"),
        ("solver.base_lr", "SOLVER.BASE_LR"),
        ("SOVLER", "SOLVER"),
        ("SOVLER.BASE_LR", "SOLVER.BASE_LR"),
        ("MODEL.NUM_CLASSES", None),  # of several detectors
        ("MODEL.MASK_HEAD", "MODEL.ROI_MASK_HEAD"),
        ("UNLABELED", "DATASETS.UNLABELED"),
        ("SSOD.EPOCHS", "SSOD.SCHEDULE.EPOCHS"),
        ("DATASETS.TRAIN.X", None),
        ("SSOD.QQQQ", None),
        ("", None),
    ],
)
def test_the_nearest_key_is_the_one_that_was_meant(cfg, unknown, right):
    assert nearest_key(cfg, unknown) == right


def test_keys_that_another_project_has_stay():
    cfg = get_cfg()
    cfg.MODEL.SSD = CfgNode({"SIZE": 512, "THEIRS": 1})
    add_ssod_config(cfg)
    assert (cfg.MODEL.SSD.SIZE, cfg.MODEL.SSD.THEIRS) == (512, 1)
    assert cfg.MODEL.SSD.NUM_CLASSES == 80
    cfg.SSOD.NUM_PHASES, cfg.DATASETS.VAL = 5, ("mine",)
    add_ssod_config(cfg)
    assert (cfg.SSOD.NUM_PHASES, cfg.DATASETS.VAL) == (5, ("mine",))
