"""Silences, by name, the library warnings that mean nothing to a user; import it first.

They are warnings from libraries about libraries, and some appear while these are being imported.
"""

import logging
import warnings

_MEANINGLESS = (
    r".*torch\.meshgrid.*",
    r".*torch\.jit\.script.*",
    r".*broadcast_buffers.*",
    r".*torch\.cuda\.amp\.\w+\(args\.\.\.\).*",  # of Detectron2's trainer, at every iteration
)

for _message in _MEANINGLESS:
    warnings.filterwarnings("ignore", message=_message)


def _is_meaningful(record: logging.LogRecord) -> bool:
    return "is_fx_tracing" not in record.getMessage()


logging.getLogger("torch.fx._symbolic_trace").addFilter(_is_meaningful)
# Its news of ending the other processes; which one failed, and why, is said by the launcher.
logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
