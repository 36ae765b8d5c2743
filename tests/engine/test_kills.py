"""A few of the kills that ``make kills`` makes many of."""

import runs

TOOL = runs.ROOT / "tests" / "helpers" / "kill_anywhere.py"


def test_run_that_is_killed_and_resumed_leaves_what_one_left_alone_does():
    result = runs.run_command(["--kills", "2"], launcher=(str(TOOL),))
    assert "0 failed" in result.stdout
