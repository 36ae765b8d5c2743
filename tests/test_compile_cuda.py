"""What scripts/compile_cuda.py reads out of a compiler's words; no compiler is needed."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "scripts" / "compile_cuda.py"
    spec = importlib.util.spec_from_file_location("compile_cuda", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOG = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5firstv' for 'sm_90'
ptxas info    : Function properties for _Z5firstv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers, 400 bytes cmem[0]
ptxas info    : Compiling entry function '_Z6secondv' for 'sm_90'
ptxas info    : Function properties for _Z6secondv
    8 bytes stack frame, 40 bytes spill stores, 72 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 400 bytes cmem[0]
"""


def loop_of(*lines):
    """Instructions of a loop that jumps back to its first one, after one that does not."""
    lines = ["MOV R1, c[0x0][0x28]", *lines, "@P0 BRA 0x10"]
    return [(16 * number, line) for number, line in enumerate(lines)]


def test_registers_and_spills_are_read(script):
    assert script.kernels_in(LOG) == [("_Z5firstv", 40, 0), ("_Z6secondv", 128, 112)]


def test_innermost_loops_of_products_are_found(script):
    product = "HMMA.16816.F32 R4, R8, R12, R4"
    assert script.product_loops(loop_of(product, "IADD3 R2, R2, 1, RZ", product)) == [(4, 2, 0)]
    assert script.product_loops(loop_of("IADD3 R2, R2, 1, RZ")) == []
    assert script.product_loops(loop_of(product, "LDL.LU R9, [R1+0x8]")) == [(3, 1, 1)]


def test_what_spills_too_much_is_said(script):
    first, second = script.kernels_in(LOG)
    inner, spilling = script.Loop(40, 16, 0), script.Loop(41, 16, 1)
    assert script.spills_of(first, [inner]) == []
    assert script.spills_of(second, [inner]) == ["second spills 112 bytes, of 96 at most"]
    assert script.spills_of(first, [inner, spilling]) == [
        "first uses local memory in a loop of products"
    ]


def test_no_array_of_arrays_of_structs_is_declared_for_nvcc():
    """nvcc (13.0) gives only the first of its arrays the initial values of a struct's members."""
    numbers = {"float", "double", "int", "bool", "unsigned", "int64_t", "uint32_t", "__half"}
    declared = [
        (path.name, match[0])
        for path in sorted((ROOT / "csrc" / "cuda").rglob("*.cu*"))
        for match in re.finditer(
            r"^\s*(?!return|using)([\w:]+)(<.*>)? \w+(\[[^\]]+\]){2,}", path.read_text(), re.M
        )
        if match[1] not in numbers
    ]
    assert declared == []
