"""Worker processes of the loaders: a signal to all processes of a job is not theirs to obey."""

from __future__ import annotations

import os
import signal
import threading


def obey_own_process_only(worker: int) -> None:
    """Have ``SIGTERM`` end this worker only where its own process sends it.

    A scheduler sends it to all processes of a job. PyTorch's workers die of it, and the training
    of their death, before it has written a checkpoint.

    Args:
        worker: its number; as ``DataLoader`` calls its ``worker_init_fn``.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_order, args=(os.getppid(),), daemon=True).start()


def _wait_for_order(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
