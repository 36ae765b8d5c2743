import pytest
from detectron2.config import get_cfg
from detectron2.utils import comm
from hypothesis import given
from hypothesis import strategies as st

from d2_ssod.config import add_ssod_config
from d2_ssod.engine.configs.schedule import (
    check_schedule,
    describe_schedule,
    phase_config,
    warm_up_problem,
)
from d2_ssod.errors import ConfigError


def make_config(**schedule):
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.OUTPUT_DIR = "run"
    cfg.SOLVER.MAX_ITER = 100
    cfg.SOLVER.STEPS = (60, 80)
    cfg.SOLVER.BASE_LR = 0.02
    cfg.SOLVER.IMS_PER_BATCH = 8
    for key, value in schedule.items():
        cfg.SSOD.SCHEDULE[key] = value
    cfg.freeze()
    return cfg


def own_configs(cfg, labeled=10, pseudo=(0, 5, 10)):
    return [phase_config(cfg, phase, labeled, pseudo[phase]) for phase in range(3)]


def test_without_a_schedule_phases_have_the_solvers_values():
    cfg = make_config()
    for phase, own in enumerate(own_configs(cfg)):
        assert cfg.SOLVER == own.SOLVER
        assert cfg.SSOD == own.SSOD
        assert f"run/phase_{phase}" == own.OUTPUT_DIR
        assert own.MODEL.WEIGHTS == cfg.MODEL.WEIGHTS


def test_each_value_of_the_schedule_is_taken():
    own = own_configs(
        make_config(
            MAX_ITER=(10, 20, 30),
            STEPS=((6, 8), [15], 25),
            BASE_LR=(0.1, 0.2, 1),
            LABELED_REPEAT=(7, 2, 4),
        )
    )
    assert [o.SOLVER.MAX_ITER for o in own] == [10, 20, 30]
    assert [o.SOLVER.STEPS for o in own] == [(6, 8), (15,), (25,)]
    assert [o.SOLVER.BASE_LR for o in own] == [0.1, 0.2, 1.0]
    assert [o.SSOD.LABELED_REPEAT for o in own] == [1, 2, 4]  # nothing to repeat in phase 0


def test_epochs_of_voc_are_the_iterations_of_the_paper():
    """12 epochs, drop after 9, of 5011, 10781 and 16551 images, in batches of 8."""
    cfg = make_config(EPOCHS=(12, 12, 12), STEP_EPOCHS=((9,), 9, [9]))
    own = own_configs(cfg, labeled=5011, pseudo=(0, 5770, 11540))
    assert [o.SOLVER.MAX_ITER for o in own] == [7517, 16172, 24827]
    assert [o.SOLVER.STEPS for o in own] == [(5637,), (12129,), (18620,)]


def test_drops_at_the_end_of_a_phase_or_beyond_are_left_out():
    """Few images make an epoch so short that it is rounded to the drop."""
    cfg = make_config(EPOCHS=(12, 12, 12), STEP_EPOCHS=(9, (9, 11.9), 12))
    own = own_configs(cfg, labeled=1, pseudo=(0, 1, 2))
    assert [o.SOLVER.MAX_ITER for o in own] == [2, 3, 5]
    assert [o.SOLVER.STEPS for o in own] == [(1,), (2,), ()]
    assert own_configs(make_config(MAX_ITER=(80, 60, 50)))[0].SOLVER.STEPS == (60,)


def test_epochs_count_repeated_labeled_images():
    cfg = make_config(EPOCHS=(1, 1, 0.5), LABELED_REPEAT=(1, 2, 4))
    own = own_configs(cfg, labeled=80, pseudo=(0, 40, 80))
    assert [o.SOLVER.MAX_ITER for o in own] == [10, (160 + 40) // 8, (320 + 80) // 16]
    assert [o.SOLVER.STEPS for o in own] == [(), (), ()]


def test_phase_that_is_shorter_than_an_iteration_has_one():
    assert phase_config(make_config(EPOCHS=(0.1, 1, 1)), 0, 4, 0).SOLVER.MAX_ITER == 1


@pytest.fixture(scope="module")
def epochs_config():
    """A config, which takes long to make, to be changed by examples."""
    return make_config(EPOCHS=(1, 1, 1)).clone()


@given(epochs=st.floats(0.5, 50), images=st.integers(8, 10_000))
def test_epochs_are_rounded_to_the_nearest_iteration(epochs_config, epochs, images):
    epochs_config.defrost()
    epochs_config.SSOD.SCHEDULE.EPOCHS = (epochs, 1, 1)
    own = phase_config(epochs_config, 0, images, 0)
    assert abs(own.SOLVER.MAX_ITER - max(1, epochs * images / 8)) <= 0.5 + 1e-9


def test_detectron2_draws_no_pictures_of_training():
    """It would need OpenCV for them."""
    cfg = make_config().clone()
    cfg.defrost()
    cfg.VIS_PERIOD = 5
    assert [own.VIS_PERIOD for own in own_configs(cfg)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("pretrained", ["w.pth", "w.pth", "w.pth"]),
        ("supervised", ["w.pth", "run/phase_0/model_final.pth", "run/phase_0/model_final.pth"]),
        ("previous", ["w.pth", "run/phase_0/model_final.pth", "run/phase_1/model_final.pth"]),
    ],
)
def test_phase_starts_from_what_phase_init_names(init, expected):
    cfg = make_config().clone()
    cfg.defrost()
    cfg.SSOD.PHASE_INIT = init
    cfg.MODEL.WEIGHTS = "w.pth"
    assert [own.MODEL.WEIGHTS for own in own_configs(cfg)] == expected


def test_reference_world_size_scales_by_the_linear_rule(monkeypatch):
    """Written for 8 processes and run on 4: half the batch and rate, twice the iterations."""
    cfg = make_config(EPOCHS=(4, 4, 4), STEP_EPOCHS=((3,), (3,), (3,))).clone()
    cfg.defrost()
    cfg.SOLVER.REFERENCE_WORLD_SIZE, cfg.SSOD.TEACHER.START = 8, 10
    cfg.SSOD.AVERAGE.DECAY = 0.81
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    own = phase_config(cfg, 1, 60, 20)
    assert own.SOLVER.IMS_PER_BATCH == 4
    assert pytest.approx(0.01) == own.SOLVER.BASE_LR
    assert own.SOLVER.MAX_ITER == 80
    assert own.SOLVER.STEPS == (60,)
    assert own.SSOD.TEACHER.START == 20
    assert pytest.approx(0.9) == own.SSOD.AVERAGE.DECAY
    # As many images are seen.
    assert own.SOLVER.MAX_ITER * own.SOLVER.IMS_PER_BATCH == 4 * 80


def test_what_is_scaled_stays_possible(monkeypatch):
    """By rounding, short ones would be 0: never, or an error after the first iteration."""
    cfg = make_config(MAX_ITER=(3, 3, 40), STEPS=((2,), (1, 2), (30, 31))).clone()
    cfg.defrost()
    cfg.SOLVER.REFERENCE_WORLD_SIZE, cfg.SOLVER.CHECKPOINT_PERIOD = 1, 2
    cfg.TEST.EVAL_PERIOD = 3
    monkeypatch.setattr(comm, "get_world_size", lambda: 8)
    first, _, last = (phase_config(cfg, phase, 60, 20) for phase in range(3))
    assert (first.SOLVER.MAX_ITER, first.SOLVER.STEPS) == (1, ())
    assert (first.SOLVER.CHECKPOINT_PERIOD, first.TEST.EVAL_PERIOD) == (1, 1)
    assert (last.SOLVER.MAX_ITER, last.SOLVER.STEPS) == (5, (4,))
    cfg.TEST.EVAL_PERIOD = 0
    assert phase_config(cfg, 0, 60, 20).TEST.EVAL_PERIOD == 0


@pytest.mark.parametrize("processes", [6, 24, 32])
def test_a_teachers_start_does_not_depend_on_the_number_of_images(monkeypatch, processes):
    cfg = make_config(EPOCHS=(12, 12, 12)).clone()
    cfg.defrost()
    cfg.SOLVER.REFERENCE_WORLD_SIZE, cfg.SSOD.TEACHER.START = 8, 500
    monkeypatch.setattr(comm, "get_world_size", lambda: processes)
    found = {phase_config(cfg, 1, n, n).SSOD.TEACHER.START for n in (1, 77, 5000)}
    assert found == {round(500 * 8 / processes)}


def test_the_runs_config_is_left_alone():
    cfg = make_config(MAX_ITER=(10, 20, 30))
    before = cfg.dump()
    phase_config(cfg, 2, 1, 1)
    assert cfg.dump() == before
    assert cfg.is_frozen()


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("MAX_ITER", (1, 2)),
        ("STEPS", ((1,), (2,))),
        ("BASE_LR", (1, 2)),
        ("LABELED_REPEAT", (1, 2)),
        ("EPOCHS", (1, 2)),
        ("STEP_EPOCHS", (1, 2)),
    ],
)
def test_schedule_of_another_length_than_the_phases_is_named(key, values):
    cfg = make_config(**{key: values})
    with pytest.raises(ConfigError, match=rf"SSOD\.SCHEDULE\.{key} has 2 values.*needs 3") as info:
        check_schedule(cfg)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "schedule",
    [
        {"EPOCHS": (1, 1, 1), "MAX_ITER": (1, 1, 1)},
        {"EPOCHS": (1, 1, 1), "STEPS": (1, 1, 1)},
        {"EPOCHS": (1, 1, 1), "STEP_EPOCHS": (1, 1, 1), "STEPS": (1, 1, 1)},
    ],
)
def test_epochs_and_iterations_do_not_go_together(schedule):
    with pytest.raises(ConfigError, match="in iterations or in epochs"):
        check_schedule(make_config(**schedule))


def test_steps_in_epochs_need_epochs():
    with pytest.raises(ConfigError, match=r"STEP_EPOCHS is given without SSOD\.SCHEDULE\.EPOCHS"):
        check_schedule(make_config(STEP_EPOCHS=(1, 1, 1)))


def test_description_has_images_length_and_rate():
    cfg = make_config(EPOCHS=(12, 12, 12), STEP_EPOCHS=(9, 9, 9), LABELED_REPEAT=(1, 2, 2))
    own = phase_config(cfg, 1, 100, 50)
    assert describe_schedule(own, 100, 50) == (
        "100 labeled x 2 + 50 pseudo-labeled images, 375 iterations of 8 images (12 epochs), "
        "learning rate 0.02, drops at 281"
    )
    own = phase_config(make_config(), 0, 80, 0)
    assert describe_schedule(own, 80, 0) == (
        "80 labeled images, 100 iterations of 8 images (10 epochs), learning rate 0.02, "
        "drops at 60, 80"
    )


@pytest.mark.parametrize(
    ("warm_up", "steps", "highest"),
    [
        (1000, (), "0.02"),  # over the whole phase
        (1000, (60,), "0.002"),  # to what the rate is by then
        (20, (60,), None),
        (0, (), None),
    ],
)
def test_a_phase_that_is_all_warm_up_is_said(warm_up, steps, highest):
    cfg = make_config()
    cfg.defrost()
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.STEPS = warm_up, steps
    said = warm_up_problem(phase_config(cfg, 0, 10, 0), 0)
    if highest is None:
        assert said is None
    else:
        assert f"Phase 0 has 100 iterations, but SOLVER.WARMUP_ITERS is {warm_up}" in said
        assert f"most of it is warm-up, with a learning rate of at most {highest} (" in said
        assert "BASE_LR is 0.02" in said


@pytest.mark.parametrize(("num_phases", "expected"), [(0, [False]), (2, [False, False, True])])
def test_the_last_phase_alone_has_a_teacher(num_phases, expected):
    cfg = make_config().clone()
    cfg.defrost()
    cfg.SSOD.TEACHER.ENABLED, cfg.SSOD.NUM_PHASES = True, num_phases
    own = [phase_config(cfg, phase, 10, 5) for phase in range(num_phases + 1)]
    assert [each.SSOD.TEACHER.ENABLED for each in own] == expected


def test_warm_up_of_just_half_of_a_phase_is_fine():
    cfg = make_config().clone()
    cfg.defrost()
    cfg.SOLVER.WARMUP_ITERS = 50
    assert warm_up_problem(phase_config(cfg, 0, 10, 0), 0) is None
    cfg.SOLVER.WARMUP_ITERS = 51
    assert warm_up_problem(phase_config(cfg, 0, 10, 0), 0) is not None


def test_a_scaled_step_at_the_end_is_left_out(monkeypatch):
    cfg = make_config(MAX_ITER=(9, 9, 9), STEPS=((8,), (8,), (8,))).clone()
    cfg.defrost()
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 1
    monkeypatch.setattr(comm, "get_world_size", lambda: 8)
    own = phase_config(cfg, 1, 60, 20)
    assert (own.SOLVER.MAX_ITER, own.SOLVER.STEPS) == (1, ())
