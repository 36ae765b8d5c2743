import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_ssod.engine.phases import phase_at
from d2_ssod.engine.resume import check_starts, finished_phases
from d2_ssod.errors import ConfigError

lengths = st.lists(st.integers(1, 50), min_size=2, max_size=5)


def starts_of(lengths):
    return list(itertools.accumulate(lengths, initial=0))


def leave(output, *names):
    for name in names:
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


MODELS = [f"phase_{phase}/model_final.pth" for phase in range(3)]


@pytest.mark.parametrize(
    ("names", "finished"),
    [
        ([], 0),
        (MODELS[:1], 1),
        ([*MODELS[:1], "phase_0/predictions.json", "phase_1/pseudo_labels.json"], 1),
        ([*MODELS[:2], "phase_1/predictions.json", "phase_2/manifest.json"], 2),
        # Labels that a person brought are trained on.
        (["phase_1/pseudo_labels.json"], 0),
        (MODELS, 3),
    ],
)
def test_finished_phases_are_those_with_a_model(tmp_path, names, finished):
    leave(tmp_path, *names)
    assert finished_phases(tmp_path, 2) == finished


@pytest.mark.parametrize(
    "names",
    [
        ["phase_0/predictions.json"],
        [MODELS[0], "phase_1/predictions.json"],
        [MODELS[0], MODELS[2], "phase_2/predictions.json"],
    ],
)
def test_files_that_a_new_training_would_not_fit_are_named(tmp_path, names):
    leave(tmp_path, *names)
    with pytest.raises(ConfigError, match="--resume") as info:
        finished_phases(tmp_path, 2)
    assert names[-1] in str(info.value)
    assert "last_checkpoint" in str(info.value)


@given(lengths, st.data())
def test_the_current_and_later_phases_may_change_in_length(lengths, data):
    starts = starts_of(lengths)
    iteration = data.draw(st.integers(0, starts[-1] - 1))
    phase = phase_at(starts, iteration)
    done = iteration - starts[phase]
    current = data.draw(st.integers(done + 1, done + 50))
    later = data.draw(st.lists(st.integers(1, 50), max_size=4))
    check_starts(starts, starts_of([*lengths[:phase], current, *later]), iteration)


@given(lengths, st.data())
def test_the_current_phase_may_not_end_before_where_it_is(lengths, data):
    starts = starts_of(lengths)
    phase = data.draw(st.integers(0, len(lengths) - 1).filter(lambda p: lengths[p] > 1))
    done = data.draw(st.integers(1, lengths[phase] - 1))
    changed = [*lengths[:phase], data.draw(st.integers(1, done)), *lengths[phase + 1 :]]
    with pytest.raises(ConfigError, match="MAX_ITER"):
        check_starts(starts, starts_of(changed), starts[phase] + done)


@given(lengths)
def test_a_finished_run_may_get_more_phases(lengths):
    starts = starts_of(lengths)
    check_starts(starts, starts, starts[-1])
    check_starts(starts, starts_of([*lengths, 5]), starts[-1])


@given(lengths, st.data())
def test_phases_that_ended_may_not_change_in_length(lengths, data):
    starts = starts_of(lengths)
    iteration = data.draw(st.integers(lengths[0], starts[-1]))
    last = phase_at(starts, iteration) if iteration < starts[-1] else len(lengths)
    changed = list(lengths)
    changed[data.draw(st.integers(0, last - 1))] += 1
    with pytest.raises(ConfigError, match="MAX_ITER"):
        check_starts(starts, starts_of(changed), iteration)
