"""Whose signals a loader's worker obeys."""

import os
import signal
import subprocess
import sys
import time

import pytest
from torch.utils.data import DataLoader

from d2_ssod.data.workers import obey_own_process_only

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="no sigwaitinfo here")


def test_a_worker_obeys_its_own_process_only():
    loader = DataLoader(range(100), num_workers=1, worker_init_fn=obey_own_process_only)
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    subprocess.run([sys.executable, "-c", f"import os; os.kill({worker.pid}, 15)"], check=True)
    time.sleep(0.5)
    assert worker.is_alive()
    assert len(list(batches)) == 99


def test_a_worker_that_is_terminated_ends():
    batches = iter(DataLoader(range(9), num_workers=1, worker_init_fn=obey_own_process_only))
    next(batches)
    (worker,) = batches._workers
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(timeout=20)
    assert worker.exitcode == 0
