"""Silences, by name, the library warnings that mean nothing to a user; import it first.

They are warnings from libraries about libraries, and some appear while these are being imported.
"""

import warnings

_MEANINGLESS = (
    r".*is_fx_tracing.*",
    r".*torch\.meshgrid.*",
    r".*torch\.jit\.script.*",
    r".*broadcast_buffers.*",
)

for _message in _MEANINGLESS:
    warnings.filterwarnings("ignore", message=_message)
