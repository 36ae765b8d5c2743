"""The CUDA launchers and kernels, run on the CPU: ``kernels.py`` here, and the tests of ``ops``.

This says nothing of the hardware: memory model, rounding of matrix products, speed (emulation.h).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from emulated_build import build, unavailable

HERE = Path(__file__).parent
OPS = HERE.parent / "ops"
# What takes long when it is emulated (2^31 pairs, all pairs in float64), and what has nothing to do
# with the launchers.
LEFT_OUT = "not 2_to_31 and not compile and not threads and not gompertz"
LEFT_OUT += " and not (several_blocks and dtype1) and not (similarity and 1024)"
LEFT_OUT += " and not (opcheck and (several_blocks or many_images))"
SUITES = {
    "loss": [OPS / "test_similarity_loss.py"],
    "kernels": [HERE / "kernels.py"],
    "weights": [
        OPS / f"test_{name}.py"
        for name in ("weights", "pairwise_overlap", "registrations", "any_input")
    ],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Start a process for each suite, all at once: emulating takes one core each."""
    problem = unavailable()
    if problem:
        pytest.skip(problem)
    build()
    options = ["-q", "-x", "-p", "emulated_device", "-p", "no:cacheprovider", "-k", LEFT_OUT]
    started = {}
    for name, files in SUITES.items():
        log = tmp_path_factory.mktemp("logs") / f"{name}.txt"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, *files],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=HERE.parents[1],
                env={**os.environ, "PYTHONPATH": str(HERE)},
            )
        started[name] = (process, log)
    yield started
    for process, _ in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("suite", SUITES)
def test_suite_passes_on_the_emulated_device(runs, suite):
    process, log = runs[suite]
    assert process.wait() == 0, log.read_text()[-8000:]
