"""A pytest plugin: in its process the operators on the CPU are those of ``csrc/cuda``, emulated.

    PYTHONPATH=tests/cuda_emulation python -m pytest -p emulated_device tests/ops/test_weights.py

The emulated operators stand in for ``d2_ssod._C``, at once: conftest files import the operators.
"""

from __future__ import annotations

import importlib.util
import sys
import types

import torch
from emulated_build import COMPILER, CSRC, ROOT, build


def _stand_in() -> None:
    """Load the emulated operators in place of the compiled module."""
    path = ROOT / "d2_ssod" / "ops" / "_source_hash.py"
    spec = importlib.util.spec_from_file_location("_source_hash", path)
    hashing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hashing)
    torch.ops.load_library(build())
    info = {
        "compiler": COMPILER,
        "openmp": None,
        "torch": torch.__version__,
        "cuda": "emulated",
        "source_hash": hashing.source_hash(CSRC, with_cuda=True),
    }
    module = types.ModuleType("d2_ssod._C")
    module.build_info = lambda: info
    sys.modules["d2_ssod._C"] = module


sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "ops")]
_stand_in()

import op_samples  # noqa: E402

op_samples.TOLERANCES["cpu"] = op_samples.TOLERANCES["cuda"]
