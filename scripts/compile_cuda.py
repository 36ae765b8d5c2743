"""Compile every CUDA source with warnings as errors; print what became of each kernel.

    CUDA_ARCHS="80 90" python scripts/compile_cuda.py [SOURCE ...]   (all, if none is given)

Needs a CUDA toolkit and PyTorch, no GPU. Fails if a kernel spills registers to memory within a loop
of tensor-core products, or more than some bytes outside of them. The columns:
registers, instructions of the whole kernel, and those of its innermost loops with tensor-core
products (HMMA) / the number of products. Counting takes ``cuobjdump`` and ``nvdisasm``, of the
toolkit or of Triton; without them the counts are left out. For sm_80, sm_90 and, where the toolkit
knows it, sm_100, unless CUDA_ARCHS says otherwise.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import runpy
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# Bytes stored and loaded again around the loops; they cost nothing there, and a register more for
# every thread would halve the blocks of a multiprocessor.
MOST_SPILLED = 96


class Kernel(NamedTuple):
    """What ptxas tells."""

    name: str
    registers: int
    spilled: int  # bytes


def demangled(text: str) -> str:
    return subprocess.run(
        ["c++filt"], input=text, capture_output=True, text=True, check=True
    ).stdout


def short_name(name: str) -> str:
    return (
        re.sub(r"\(.*", "", demangled(name)).strip().removeprefix("void ").replace("d2_ssod::", "")
    )


def kernels_in(log: str) -> list[Kernel]:
    """Read what ``ptxas -v`` says of each kernel."""
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers",
        log,
        re.DOTALL,
    )
    return [Kernel(name, int(used), int(out) + int(back)) for name, out, back, used in found]


def disassembler() -> Path | None:
    """Find a folder with both programs: the one calls the other."""
    triton = importlib.util.find_spec("triton")
    folders = [*os.environ["PATH"].split(os.pathsep)]
    if triton and triton.origin:
        folders.append(str(Path(triton.origin).parent / "backends" / "nvidia" / "bin"))
    for folder in map(Path, folders):
        if (folder / "cuobjdump").exists() and (folder / "nvdisasm").exists():
            return folder
    return None


def instructions_in(folder: Path, compiled: Path) -> dict[str, list[tuple[int, str]]]:
    """Address and text of every instruction, by kernel."""
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    text = subprocess.run(
        [folder / "cuobjdump", "-sass", compiled],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": path},
    ).stdout
    kernels = {}
    for part in text.split("Function : ")[1:]:
        lines = re.findall(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?);", part, re.MULTILINE)
        kernels[part.split()[0]] = [(int(address, 16), line) for address, line in lines]
    return kernels


class Loop(NamedTuple):
    """An innermost loop with tensor-core products."""

    instructions: int
    products: int
    spilled: int  # instructions that store to or load from local memory


def product_loops(instructions: list[tuple[int, str]]) -> list[Loop]:
    """Find the innermost loops with tensor-core products."""
    loops = {}
    for address, line in instructions:
        jump = re.search(r"\bBRA\b.* 0x([0-9a-f]+)", line)
        if jump and int(jump[1], 16) < address:
            body = [text for place, text in instructions if int(jump[1], 16) <= place <= address]
            products = sum("HMMA" in text for text in body)
            spilled = sum(bool(re.search(r"\b(STL|LDL)\b", text)) for text in body)
            if products:
                loops[int(jump[1], 16), address] = Loop(len(body), products, spilled)
    return [
        loop
        for (begin, end), loop in loops.items()
        if not any(begin <= b and e <= end for b, e in loops if (b, e) != (begin, end))
    ]


def compile_source(nvcc: Path, includes: list[str], arch: str, source: Path, folder: Path) -> str:
    """Return the report on one source; raise SystemExit with the compiler's words."""
    from torch.utils.cpp_extension import COMMON_NVCC_FLAGS

    compiled = folder / f"{source.stem}.{arch}.o"
    command = [nvcc, "-std=c++20", "-O3", f"-arch=sm_{arch}", f"-I{ROOT / 'csrc'}"]
    command += [word for include in includes for word in ("-isystem", include)]
    command += [*COMMON_NVCC_FLAGS, "-Werror", "all-warnings", "-Xptxas", "-v,-Werror"]
    command += ["-Xcompiler", "-fPIC,-Wall,-Wextra,-Werror", "-c", source, "-o", compiled]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"sm_{arch} {source.name} does not compile:\n{done.stdout}{done.stderr}")
    tools = disassembler()
    code = instructions_in(tools, compiled) if tools else {}
    lines = [f"sm_{arch} {source.relative_to(ROOT)}"]
    kernels = kernels_in(done.stderr)
    for kernel in kernels:
        instructions = code.get(kernel.name, [])
        loops = product_loops(instructions)
        spilled = f", {kernel.spilled} bytes spilled" if kernel.spilled else ""
        lines.append(
            f"  {kernel.registers:4} registers {len(instructions) or '-':>6} instructions "
            f"{' '.join(f'{loop.instructions}/{loop.products}' for loop in loops):>16}  "
            f"{short_name(kernel.name)}{spilled}"
        )
        lines += [f"  SPILLS: {problem}" for problem in spills_of(kernel, loops)]
    return "\n".join(lines)


def spills_of(kernel: Kernel, loops: list[Loop]) -> list[str]:
    """Say what is too much: local memory in a loop of products, or much of it anywhere."""
    name, problems = short_name(kernel.name), []
    if any(loop.spilled for loop in loops):
        problems.append(f"{name} uses local memory in a loop of products")
    if kernel.spilled > MOST_SPILLED:
        problems.append(f"{name} spills {kernel.spilled} bytes, of {MOST_SPILLED} at most")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="all, if none is given")
    chosen = parser.parse_args().sources
    build = runpy.run_path(str(ROOT / "setup.py"))  # the search for the toolkit
    home = build["CUDA_HOME"]
    if home is None:
        print("No CUDA toolkit was found (set CUDA_HOME): the CUDA sources were not compiled.")
        return
    from torch.utils.cpp_extension import include_paths

    includes = [*include_paths(), *build["extra_cuda_includes"]()]
    archs = []
    for arch in os.environ.get("CUDA_ARCHS", "80 90 100").split():
        if build["toolkit_knows"](arch):
            archs.append(arch)
        else:
            print(f"sm_{arch}: unknown to this toolkit, left out")
    sources = [Path(name).resolve() for name in chosen or build["cuda_sources"]()]
    if not archs or not sources:
        raise SystemExit("Nothing to compile: set CUDA_ARCHS to what this toolkit knows.")
    failed, kernels = False, 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [
            pool.submit(compile_source, home / "bin" / "nvcc", includes, arch, source, Path(folder))
            for arch in archs
            for source in sorted(sources, key=lambda path: -path.stat().st_size)
        ]
        for job in jobs:
            report = job.result()
            print(report, flush=True)
            failed |= "SPILLS" in report
            kernels += report.count(" registers ")
    if disassembler() is None:
        print("No cuobjdump and nvdisasm were found: instructions were not counted.")
    if kernels == 0:
        raise SystemExit("The compiler says nothing of registers: are its words other ones now?")
    if failed:
        raise SystemExit("Kernels spill registers to memory (see SPILLS above).")


if __name__ == "__main__":
    main()
