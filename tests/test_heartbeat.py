"""Ranks are threads of this process here, and their store is in its memory."""

import threading
import time

import pytest
from torch import distributed as dist

from d2_ssod import heartbeat
from d2_ssod.heartbeat import Heartbeat, Ranks


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Nobody waits for minutes; one rank that does not answer is one for the others here."""
    monkeypatch.setattr(heartbeat, "_EVERY", 0.05)
    for name in ("NO_PROGRESS", "NO_SIGN", "NOT_BEGUN"):
        monkeypatch.setattr(heartbeat, name, 1.0)


@pytest.fixture
def ranks():
    store = dist.HashStore()
    return [Ranks(rank, ["one", "one", "two"], store) for rank in range(3)]


class Started(threading.Thread):
    """A function in a thread, with what it raises."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function, self.error = function, None
        self.start()

    def run(self):
        try:
            self.function()
        except TimeoutError as error:
            self.error = str(error)

    def result(self):
        self.join(20)
        assert not self.is_alive()
        return self.error


def work(ranks, steps=0, seconds=0.0, then=lambda: None):
    """Do so many steps, each of which takes so long."""
    with Heartbeat("a test", ranks) as beat:
        for _ in range(steps):
            time.sleep(seconds)
            beat.beat()
        then()
        beat.wait_for_others()


def test_one_process_waits_for_nobody():
    assert Ranks.of_run() is None
    work(None, 3)


def test_all_wait_for_the_last_one(ranks):
    done = []
    others = [Started(lambda own=own: (work(own, 2), done.append(own.rank))) for own in ranks[:2]]
    last = Started(lambda: work(ranks[2], 2, 0.3, lambda: done.append(2)))
    assert [run.result() for run in (*others, last)] == [None, None, None]
    assert done[0] == 2


def test_a_slow_rank_is_waited_for_longer_than_one_without_progress(ranks):
    first = [Started(lambda own=own: work(own)) for own in ranks[:2]]
    slow = Started(lambda: work(ranks[2], 12, 0.25))
    assert [run.result() for run in (*first, slow)] == [None, None, None]


def test_a_rank_without_progress_is_named_with_its_machine(ranks):
    forever = threading.Event()
    Started(lambda: work(ranks[2], 1, then=forever.wait))
    waiting = [Started(lambda own=own: work(own)) for own in ranks[:2]]
    assert waiting[0].result() == (
        "rank 2 on two is alive, but has made no progress for 1 s, while rank 0 on one waits for "
        "it (a test); see what that machine is doing, then go on with --resume"
    )
    assert waiting[1].is_alive()  # The first one speaks for all.


def test_other_ranks_speak_where_the_first_one_has_not_ended_them(ranks, monkeypatch):
    monkeypatch.setattr(heartbeat, "_OTHERS_SPEAK", 1.0)
    waiting = [Started(lambda own=own: work(own)) for own in ranks[:2]]
    for run, seconds in zip(waiting, (1, 2), strict=True):
        start = f"rank 2 on two has not begun for {seconds} s, while rank "
        assert run.result().startswith(start)


def test_a_rank_that_is_gone_is_named(ranks):
    with Heartbeat("a test", ranks[0]) as beat:
        beat.beat()  # and is not there any more
    waiting = [Started(lambda own=own: work(own)) for own in ranks[1:]]
    assert waiting[0].result().startswith("rank 0 on one has shown no sign of life for 1 s, while")


def test_a_rank_that_begins_late_is_given_time(ranks, monkeypatch):
    """As the first one, which computes what none of the others does."""
    monkeypatch.setattr(heartbeat, "NOT_BEGUN", 1000.0)
    waiting = [Started(lambda own=own: work(own)) for own in ranks[1:]]
    time.sleep(1.5)
    late = Started(lambda: work(ranks[0], 1, 0.5))
    assert [run.result() for run in (*waiting, late)] == [None, None, None]


class HangingStore(dist.HashStore):
    """A store whose machine answers no more once it is told so."""

    hangs = False

    def get(self, key):
        while self.hangs:
            time.sleep(0.05)
        return super().get(key)


def test_the_machine_of_a_store_that_does_not_answer_is_named():
    store = HangingStore()
    ranks = [Ranks(rank, ["one", "two"], store) for rank in range(2)]
    forever = threading.Event()
    Started(lambda: work(ranks[0], 1, then=forever.wait))
    time.sleep(0.2)
    store.hangs = True
    line = Started(lambda: work(ranks[1])).result()
    assert line.startswith("rank 0 on one, whose machine keeps the store of the process group, has")
    assert "has not answered for 1 s, while rank 1 on two waits for it" in line


def test_a_store_that_is_gone_is_one_that_does_not_answer(ranks, monkeypatch):
    class Gone(dist.HashStore):
        def set(self, key, value):
            raise dist.DistNetworkError("Connection reset by peer")

    alone = Ranks(1, ["one", "two"], Gone())
    assert "store of the process group, has not answered" in Started(lambda: work(alone)).result()


def test_time_in_which_all_were_stopped_is_no_silence(ranks, monkeypatch):
    """As where a machine sleeps, or a scheduler suspends a job."""
    stopped, clock = [0.0], time.monotonic
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: clock() + stopped[0])

    def stop():
        time.sleep(0.2)  # The others wait.
        stopped[0] += 1000

    runs = [Started(lambda own=own: work(own)) for own in ranks[:2]]
    runs.append(Started(lambda: work(ranks[2], 1, then=stop)))
    assert [run.result() for run in runs] == [None, None, None]


def test_an_error_ends_the_signs(ranks):
    with pytest.raises(ValueError, match="mine"), Heartbeat("a test", ranks[0]) as beat:
        raise ValueError("mine")
    assert not beat._exchange.is_alive()
