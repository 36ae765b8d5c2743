import itertools

import pytest
from detectron2.config import CfgNode, get_cfg
from hypothesis import given
from hypothesis import strategies as st

from d2_ssod.config import add_ssod_config
from d2_ssod.engine.phases import phase_at, phase_config, phase_files, phase_seed, phase_starts
from d2_ssod.errors import ConfigError


def make_config(**schedule):
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.SOLVER.MAX_ITER = 100
    cfg.SOLVER.STEPS = (60, 80)
    cfg.SOLVER.BASE_LR = 0.02
    for key, value in schedule.items():
        cfg.SSOD.SCHEDULE[key] = value
    cfg.freeze()
    return cfg


lengths = st.lists(st.integers(1, 50), min_size=2, max_size=5)


def config_of(lengths):
    """Only the keys that count here, as cloning whole configs takes long."""
    schedule = {"MAX_ITER": tuple(lengths), "STEPS": (), "BASE_LR": (), "LABELED_REPEAT": ()}
    ssod = {"NUM_PHASES": len(lengths) - 1, "SCHEDULE": schedule, "LABELED_REPEAT": 1}
    return CfgNode({"SSOD": ssod, "SOLVER": {"MAX_ITER": 1, "BASE_LR": 0.1, "STEPS": ()}})


@given(lengths)
def test_phase_starts_add_up(lengths):
    starts = phase_starts(config_of(lengths))
    assert starts[0] == 0
    assert [end - start for start, end in itertools.pairwise(starts)] == lengths


@given(lengths, st.data())
def test_phase_at_is_the_phase_whose_iterations_hold_it(lengths, data):
    starts = phase_starts(config_of(lengths))
    iteration = data.draw(st.integers(0, starts[-1] - 1))
    phase = phase_at(starts, iteration)
    assert starts[phase] <= iteration < starts[phase + 1]
    assert 0 <= iteration - starts[phase] < lengths[phase]


@given(lengths)
def test_phase_at_steps_by_one_at_each_start(lengths):
    starts = phase_starts(config_of(lengths))
    phases = [phase_at(starts, iteration) for iteration in range(starts[-1])]
    assert phases == [number for number, length in enumerate(lengths) for _ in range(length)]
    # A finished run stays in its last phase.
    assert phase_at(starts, starts[-1]) == len(lengths) - 1


@given(lengths, st.data())
def test_phase_config_has_the_phases_own_length(lengths, data):
    phase = data.draw(st.integers(0, len(lengths) - 1))
    found = phase_config(config_of(lengths), phase).SOLVER.MAX_ITER
    assert found == lengths[phase]


def test_phases_are_equally_long_without_a_schedule():
    assert phase_starts(make_config()) == [0, 100, 200, 300]


def test_phase_config_keeps_the_solvers_values_without_a_schedule():
    cfg = make_config()
    own = phase_config(cfg, 1)
    assert own.SOLVER == cfg.SOLVER
    assert own.SSOD == cfg.SSOD


def test_phase_config_takes_each_value_of_the_schedule():
    cfg = make_config(
        MAX_ITER=(10, 20, 30),
        STEPS=((6, 8), [15], 25),
        BASE_LR=(0.1, 0.2, 1),
        LABELED_REPEAT=(1, 2, 4),
    )
    own = [phase_config(cfg, phase) for phase in range(3)]
    assert [o.SOLVER.MAX_ITER for o in own] == [10, 20, 30]
    assert [o.SOLVER.STEPS for o in own] == [(6, 8), (15,), (25,)]
    assert [o.SOLVER.BASE_LR for o in own] == [0.1, 0.2, 1.0]
    assert [o.SSOD.LABELED_REPEAT for o in own] == [1, 2, 4]


def test_phase_config_leaves_the_runs_config_alone():
    cfg = make_config(MAX_ITER=(10, 20, 30))
    before = cfg.dump()
    phase_config(cfg, 2)
    assert cfg.dump() == before
    assert cfg.is_frozen()


@pytest.mark.parametrize("key", ["MAX_ITER", "STEPS", "BASE_LR", "LABELED_REPEAT"])
def test_schedule_of_another_length_than_the_phases_is_named(key):
    cfg = make_config(**{key: (1, 2)})
    with pytest.raises(ConfigError, match=rf"SSOD\.SCHEDULE\.{key} has 2 values.*needs 3") as info:
        phase_config(cfg, 0)
    assert "\n" not in str(info.value)


def test_files_of_a_phase(tmp_path):
    files = phase_files(tmp_path, 2)
    folder = tmp_path / "phase_2"
    assert files.folder == folder
    assert files.model == folder / "model_final.pth"
    assert files.predictions == folder / "predictions.json"
    assert files.pseudo_labels == folder / "pseudo_labels.json"
    assert files.manifest == folder / "manifest.json"


@given(st.integers(0, 2**31), st.integers(0, 5))
def test_phase_seed_is_repeatable_and_torch_takes_it(seed, phase):
    found = phase_seed(seed, phase)
    assert found == phase_seed(seed, phase)
    assert 0 <= found < 2**32


def test_phase_seeds_of_neighbours_differ():
    seeds = {phase_seed(seed, phase) for seed in range(20) for phase in range(5)}
    assert len(seeds) == 100
    further = {phase_seed(0, phase, a, b) for phase in range(5) for a in (1, 2) for b in (1, 9)}
    assert len(further | seeds) == 120
