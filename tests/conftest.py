import os
import subprocess
import tempfile
from pathlib import Path

import pytest

# The models of the tests are so small that threads cost more than they bring, above all where
# other processes use the cores. Before torch is imported; tests of threads set their number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What the tests remember of pictures goes with them.
_cache = tempfile.TemporaryDirectory(prefix="d2_ssod_cache_")
os.environ["XDG_CACHE_HOME"] = _cache.name


def pytest_unconfigure():
    """Delete it: processes of pytest-xdist end without doing so themselves."""
    _cache.cleanup()


ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind():
    """What the tests write goes elsewhere than into the checkout."""
    before = _unknown_files()
    yield
    assert _unknown_files() <= before


def _unknown_files():
    command = ["git", "status", "--porcelain", "--untracked-files=normal", "."]
    try:
        status = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return set()  # a source distribution
    return {line for line in status.stdout.splitlines() if line.startswith("??")}


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """Where the pictures of a dozen scenes are."""
    return tmp_path_factory.mktemp("tiny") / "digit_scenes"


@pytest.fixture(scope="session")
def data(data_root):
    """Entries of ``SSOD.REGISTER``, whose names can stand for one folder only in a process."""
    import runs  # needs Detectron2, which the tests of the operators do without

    return runs.make_data(data_root)
