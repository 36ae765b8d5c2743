import contextlib
import os
import sys

import pytest
from detectron2.utils import comm

from d2_ssod.progress import progress_bar


@pytest.mark.parametrize("rank", [0, 1])
def test_progress_shows_on_the_main_process_only(rank, monkeypatch, capsys):
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    assert list(progress_bar([1, 2, 3], description="Looking")) == [1, 2, 3]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("Looking" in shown.err and "3/3" in shown.err) == (rank == 0)


def test_progress_takes_a_total(capsys):
    assert list(progress_bar(iter("ab"), description="Looking", total=2)) == ["a", "b"]
    assert "2/2" in capsys.readouterr().err


def test_work_goes_on_where_nobody_reads_how_far_it_is(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    unread = os.fdopen(writer, "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", unread)
    assert list(progress_bar([1, 2, 3], description="Looking")) == [1, 2, 3]
    with contextlib.suppress(OSError):
        unread.close()
