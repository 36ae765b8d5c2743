import contextlib

import pytest
from detectron2.engine import TrainerBase
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_ssod.engine import PhaseHook

STARTS = [0, 3, 5, 9]


class FakeTrainer(TrainerBase):
    """Only notes in what order things happen."""

    def __init__(self, starts, interrupt_at=None):
        super().__init__()
        self.events = []
        self.phases = []
        self.interrupt_at = interrupt_at
        self.register_hooks(
            [
                PhaseHook(
                    starts,
                    lambda phase, done: self.events.append(("enter", phase, done)),
                    lambda phase: self.events.append(("finish", phase)),
                )
            ]
        )

    def run_step(self):
        if self.iter == self.interrupt_at:
            raise KeyboardInterrupt
        self.events.append(("step", self.iter))
        self.phases.append(int(self.storage.latest()["phase"][0]))


def events_of(starts, first=0, interrupt_at=None):
    trainer = FakeTrainer(starts, interrupt_at)
    with contextlib.suppress(KeyboardInterrupt):
        trainer.train(first, starts[-1])
    return trainer.events


def test_hook_enters_and_finishes_each_phase_in_order():
    assert events_of(STARTS) == [
        ("enter", 0, 0),
        *(("step", iteration) for iteration in range(3)),
        ("finish", 0),
        ("enter", 1, 0),
        *(("step", iteration) for iteration in range(3, 5)),
        ("finish", 1),
        ("enter", 2, 0),
        *(("step", iteration) for iteration in range(5, 9)),
        ("finish", 2),
    ]


def test_hook_resumes_within_a_phase():
    assert events_of(STARTS, first=4)[:4] == [
        ("enter", 1, 1),
        ("step", 4),
        ("finish", 1),
        ("enter", 2, 0),
    ]


def test_hook_resumes_at_a_phase():
    assert events_of(STARTS, first=5)[:2] == [("enter", 2, 0), ("step", 5)]


def test_hook_does_nothing_after_the_last_phase():
    assert events_of(STARTS, first=9) == []


def test_hook_finishes_no_phase_that_is_interrupted():
    assert events_of(STARTS, interrupt_at=2)[-1] == ("step", 1)


def test_hook_logs_the_phase():
    trainer = FakeTrainer(STARTS)
    trainer.train(0, 9)
    assert trainer.phases == [0, 0, 0, 1, 1, 2, 2, 2, 2]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.data())
@settings(max_examples=50, deadline=None)
def test_interrupted_and_resumed_steps_are_those_of_one_run(lengths, data):
    starts = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
    stop = data.draw(st.integers(0, starts[-1]))
    whole = events_of(starts)
    first, second = events_of(starts, interrupt_at=stop), events_of(starts, first=stop)
    resumed_within = second and second[0][0] == "enter" and second[0][2] > 0
    # Entering again within a phase is all that an interruption adds. Entering a phase at its
    # start happens in both parts, since the first one stopped just after it.
    if stop < starts[-1] and (resumed_within or first[-1:] == second[:1]):
        second = second[1:]
    assert first + second == whole


@pytest.mark.parametrize("first", range(10))
def test_every_phase_from_the_first_step_on_is_finished_once(first):
    finished = [event[1] for event in events_of(STARTS, first=first) if event[0] == "finish"]
    assert finished == [phase for phase in range(3) if STARTS[phase + 1] > first]
