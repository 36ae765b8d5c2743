"""Everything that may go wrong, many times over, and a table of what was survived.

``make torture`` (not a part of the tests; takes about an hour): kills at random moments of runs of
one and of two processes, faults that are put into runs, and 100 000 damaged files and odd settings.
``python tests/helpers/torture.py --kills 4 --pair-kills 2 --inputs 2000`` is a short one.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).parents[2]
FUZZ = (
    "tests/artifacts/test_fuzz.py",
    "tests/data/datasets/test_damaged_files.py",
    "tests/engine/test_any_override.py",
    "tests/report/test_damaged_run.py",
)
FAULTS = (
    "tests/engine/processes/test_interruption.py",
    "tests/engine/processes/test_group.py",
    "tests/engine/training/test_phase_trainer.py",
    "tests/artifacts/test_lock.py",
    "tests/artifacts/test_checkpoints.py",
)


def run(command, environment=()):
    """Run a command; returns its last line, whether it succeeded, and its minutes."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **dict(environment)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
    minutes = (time.monotonic() - start) / 60
    return lines[-1].strip("= ") if lines else "", done.returncode == 0, minutes


def count_fuzz_tests():
    """How many tests draw inputs."""
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "hypothesis", *FUZZ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sum("::" in line for line in listed.stdout.splitlines())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=80, help="of runs of one process")
    parser.add_argument("--pair-kills", type=int, default=20, help="of runs of two")
    parser.add_argument("--inputs", type=int, default=100_000, help="damaged files and settings")
    args = parser.parse_args()
    tests = count_fuzz_tests()
    examples = {"FUZZ_EXAMPLES": str(-(-args.inputs // tests))}
    kill = "tests/helpers/kill_anywhere.py"
    pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=0")
    steps = [
        (f"{args.kills} kills, one process", (kill, "--kills", str(args.kills)), {}),
        (
            f"{args.pair_kills} kills, two processes",
            (kill, "--kills", str(args.pair_kills), "--processes", "2"),
            {},
        ),
        (f"{args.inputs} inputs, {tests} kinds", (*pytest, *FUZZ), examples),
        ("faults and signals", (*pytest, *FAULTS), {}),
    ]
    rows = []
    for name, command, environment in steps:
        said, survived, minutes = run(command, environment)
        rows.append((name, "survived" if survived else "FAILED", f"{minutes:.1f}", said))
        print(tabulate(rows[-1:], tablefmt="plain"), flush=True)
    print(tabulate(rows, headers=["what", "result", "minutes", "said"], tablefmt="github"))
    sys.exit(any(row[1] == "FAILED" for row in rows))


if __name__ == "__main__":
    main()
