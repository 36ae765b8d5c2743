"""Compiles the CUDA launchers and kernels with a C++ compiler, for :mod:`emulated_device`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = "-std=c++20 -O2 -fPIC -Wall -Wextra -Wno-unknown-pragmas -U_FORTIFY_SOURCE"
FLAGS += " -fsanitize=bounds,alignment -fsanitize-undefined-trap-on-error -DD2_SSOD_EMULATE_CUDA"
# Two files, so that two cores are busy.
SOURCES = (HERE / "module.cpp", HERE / "loss_module.cpp")


def unavailable() -> str | None:
    """Why the emulation cannot be compiled here; None if it can."""
    if shutil.which(COMPILER) is None:
        return f"no {COMPILER}"
    probe = subprocess.run(
        [COMPILER, "-x", "c++", "-std=c++20", "-fsyntax-only", "-"],
        input="#include <ucontext.h>\n_Float16 x;\n",
        capture_output=True,
        text=True,
    )
    return None if probe.returncode == 0 else f"{COMPILER} has no _Float16 or no ucontext.h"


def build() -> Path:
    """Compile the emulated operators, unless that was done already."""
    from torch.utils.cpp_extension import include_paths, library_paths

    digest = hashlib.sha256(f"{COMPILER} {FLAGS} {torch.__version__}".encode())
    for path in sorted([*CSRC.rglob("*"), *HERE.rglob("*")]):
        if path.suffix in (".h", ".cuh", ".cpp", ".cu"):
            digest.update(path.read_bytes())
    folder = ROOT / "build" / "cuda_emulation" / digest.hexdigest()[:16]
    module = folder / "emulated.so"
    if module.exists():
        return module
    shutil.rmtree(folder.parent, ignore_errors=True)  # of older sources
    folder.mkdir(parents=True)
    command = [COMPILER, *FLAGS.split(), f"-I{CSRC}", f"-I{HERE}", "-isystem", HERE / "stubs"]
    command += [word for path in include_paths() for word in ("-isystem", path)]
    objects = [folder / f"{source.stem}.o" for source in SOURCES]
    running = [
        subprocess.Popen([*command, "-x", "c++", "-c", source, "-o", compiled])
        for source, compiled in zip(SOURCES, objects, strict=True)
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError("the emulated operators do not compile")
    linked = folder / f"{os.getpid()}.so"
    libraries = [f"-L{path}" for path in library_paths()] + ["-ltorch_cpu", "-lc10"]
    subprocess.run([COMPILER, "-shared", *objects, *libraries, "-o", linked], check=True)
    linked.rename(module)
    return module
