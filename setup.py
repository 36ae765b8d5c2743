"""Builds d2_ssod._C: the CPU operators always, the CUDA ones where they can be compiled and used.

``python setup.py build_ext --inplace`` and ``pip install --no-build-isolation .`` build against the
torch of the environment, as they should: a compiled module fits one torch alone, and says so on
import. ``pip install .`` makes an environment of its own for the build and takes the newest torch
there, so that it fits only where the newest is installed, too.

Environment: FORCE_CUDA=1 (compile CUDA without a GPU at hand), FORCE_CUDA=0 (never), CUDA_HOME,
TORCH_CUDA_ARCH_LIST, MAX_JOBS, D2_SSOD_CXXFLAGS and D2_SSOD_LDFLAGS (more flags of compiler and
linker, such as a sanitizer's).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
GENERATED = ROOT / "build" / "generated"
OLDEST_GPU = (8, 0)  # whose instructions csrc/cuda/common/primitives.cuh has
TOO_OLD = re.compile(r"[1-7]\.|Kepler|Maxwell|Pascal|Volta|Turing")  # in TORCH_CUDA_ARCH_LIST


def find_cuda_home() -> Path | None:
    """Where the CUDA toolkit lies.

    torch takes the folder above ``nvcc``, which is wrong where that is a wrapper script; nvcc
    itself knows.
    """
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            named = Path(os.environ[variable])
            return named if (named / "bin" / "nvcc").exists() else None
    nvcc = shutil.which("nvcc")
    if nvcc:
        dry_run = subprocess.run([nvcc, "--dryrun", "-c", "x.cu"], capture_output=True, text=True)
        top = re.search(r"^#\$ _HERE_=(.*)$", dry_run.stdout + dry_run.stderr, re.MULTILINE)
        folder = Path(top[1]).parent if top else Path(nvcc).resolve().parent.parent
        if (folder / "bin" / "nvcc").exists():
            return folder
    default = Path("/usr/local/cuda")
    return default if (default / "bin" / "nvcc").exists() else None


if sys.platform == "win32":
    raise SystemExit("d2_ssod needs g++ or clang, whose vectors MSVC lacks: use it within WSL")
CUDA_HOME = find_cuda_home()
if CUDA_HOME:
    os.environ["CUDA_HOME"] = str(CUDA_HOME)  # before torch looks for it

import torch  # noqa: E402
from torch.utils.cpp_extension import (  # noqa: E402
    BuildExtension,
    CppExtension,
    CUDAExtension,
    get_cxx_compiler,
)


def load_source_hash():
    path = ROOT / "d2_ssod" / "ops" / "_source_hash.py"
    spec = importlib.util.spec_from_file_location("_source_hash", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.source_hash


def cuda_sources() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (CSRC / "cuda").glob("*.cu"))


def want_cuda() -> bool:
    """Decide, and print why."""
    forced = os.environ.get("FORCE_CUDA", "")
    if forced == "0":
        print("d2_ssod: building the CPU operators only: FORCE_CUDA=0")
        return False
    problems = []
    if not torch.version.cuda:
        problems.append("this torch has no CUDA")
    if not CUDA_HOME:
        problems.append("no CUDA toolkit was found (set CUDA_HOME to the folder of bin/nvcc)")
    if not cuda_sources():
        problems.append("there are no sources in csrc/cuda")
    if not problems and not architectures():
        problems.append("TORCH_CUDA_ARCH_LIST names nothing from 8.0 on, which the kernels need")
    if forced == "1" and problems:
        raise SystemExit(f"FORCE_CUDA=1, but {', and '.join(problems)}")
    if not forced and not problems:
        problems += problems_of_gpus()
    if problems:
        print(f"d2_ssod: building the CPU operators only: {', and '.join(problems)}")
        return False
    print(
        f"d2_ssod: building the CPU and CUDA operators with the toolkit in {CUDA_HOME}, for "
        f"{', '.join(architectures())}"
    )
    return True


def toolkit_knows(architecture: str) -> bool:
    listed = subprocess.run(
        [CUDA_HOME / "bin" / "nvcc", "--list-gpu-arch"], capture_output=True, text=True
    ).stdout
    return f"compute_{architecture}" in listed.split()


def gpus_at_hand() -> list[tuple[int, int]]:
    """Their compute capabilities, each once."""
    if not torch.cuda.is_available():
        return []
    return sorted({torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())})


def problems_of_gpus() -> list[str]:
    """Why a build for the GPUs at hand would be of no use."""
    found = gpus_at_hand()
    if not found:
        return ["there is no GPU (FORCE_CUDA=1 compiles without one)"]
    if found[-1] < OLDEST_GPU:
        return [
            "the kernels need a GPU of compute capability 8.0 or more, and the newest here has "
            f"{found[-1][0]}.{found[-1][1]} (FORCE_CUDA=1 compiles for others)"
        ]
    return []


def architectures() -> list[str]:
    """Those of TORCH_CUDA_ARCH_LIST; without it the GPUs at hand, else the usual data-centre ones.

    Without what is too old for the kernels, which lists for any kind of program have, too.
    """
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    if listed:
        return [name for name in listed if not TOO_OLD.match(name)]
    if at_hand := [found for found in gpus_at_hand() if found >= OLDEST_GPU]:
        names = [f"{major}.{minor}" for major, minor in at_hand]
        return [*names[:-1], f"{names[-1]}+PTX"]  # newer ones can compile that
    return ["8.0", "9.0", "10.0+PTX"] if toolkit_knows("100") else ["8.0", "9.0+PTX"]


def toolkit_version() -> str:
    printed = subprocess.run(
        [CUDA_HOME / "bin" / "nvcc", "--version"], capture_output=True, text=True, check=True
    ).stdout
    return re.search(r"release ([\d.]+)", printed)[1]


def write_build_info(with_cuda: bool) -> None:
    """A header for pybind.cpp alone: macros on the command line would recompile everything."""
    built_for = ";".join(architectures()) if with_cuda else ""
    cuda = f'"{toolkit_version()} ({built_for})"' if with_cuda else "pybind11::none()"
    text = (
        "#pragma once\n"
        f'#define D2_SSOD_SOURCE_HASH "{load_source_hash()(CSRC, with_cuda)}"\n'
        f'#define D2_SSOD_TORCH_VERSION "{torch.__version__}"\n'
        f"#define D2_SSOD_CUDA {cuda}\n"
    )
    path = GENERATED / "d2_ssod_build_info.h"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def extra_cuda_includes() -> list[str]:
    """Headers that a slim toolkit lacks (cuBLAS, cuSPARSE, ...); torch's own wheels bring them."""
    major = torch.version.cuda.split(".")[0]
    site_packages = Path(sysconfig.get_paths()["purelib"])
    carried = site_packages / "nvidia" / f"cu{major}" / "include"
    has_all = (CUDA_HOME / "include" / "cublas_v2.h").exists()
    return [] if has_all or not carried.is_dir() else [str(carried)]


def compiler_takes(*flags: str, source: str = "int main() {}\n") -> bool:
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.cpp"
        probe.write_text(source)
        command = [*shlex.split(get_cxx_compiler()), probe, *flags, "-o", probe.with_suffix("")]
        return subprocess.run(command, capture_output=True).returncode == 0


def openmp_flags() -> tuple[list[str], list[str]]:
    """For compiling and linking; none, said aloud, where there is no OpenMP."""
    for compiling, linking in (
        (["-fopenmp"], ["-fopenmp"]),
        (["-Xpreprocessor", "-fopenmp"], ["-lomp"]),  # Apple's clang, with libomp installed
    ):
        if compiler_takes(*compiling, *linking, source="#include <omp.h>\nint main() {}\n"):
            return compiling, linking
    print("d2_ssod: no OpenMP was found: the operators will run on one thread")
    return [], []


def cxx_library() -> list[str]:
    """Have torch's C++ library linked first, where there is one of that name.

    Some compilers carry a static one and nothing else: a copy of its own in the module, beside the
    one of torch, crashes as soon as an error message is put together.
    """
    flag = "-l:libstdc++.so.6"
    return [flag] if compiler_takes(flag) else []


def extension():
    with_cuda = want_cuda()
    write_build_info(with_cuda)
    openmp, openmp_libraries = openmp_flags()
    cxx = [
        "-O3",
        "-g0",
        *openmp,  # without it at::parallel_for is silently serial
        "-fvisibility=hidden",
        "-fno-math-errno",  # square roots and selections become vector instructions
        "-fno-trapping-math",
        "-Wall",
        "-Wno-unknown-pragmas",
        "-Wno-psabi",  # wide vectors never cross a function that is not inlined
        *shlex.split(os.environ.get("D2_SSOD_CXXFLAGS", "")),
    ]
    sources = [str(path.relative_to(ROOT)) for path in sorted(CSRC.glob("*.cpp"))]
    sources += [str(path.relative_to(ROOT)) for path in sorted((CSRC / "cpu").glob("*.cpp"))]
    options = {
        "include_dirs": [str(CSRC), str(GENERATED)],
        "extra_compile_args": {"cxx": cxx},
        "extra_link_args": [
            *openmp_libraries,
            *(["-s"] if compiler_takes("-s") else []),
            *cxx_library(),
            *shlex.split(os.environ.get("D2_SSOD_LDFLAGS", "")),
        ],
    }
    if not with_cuda:
        return CppExtension("d2_ssod._C", sources, **options)
    os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(architectures())
    options["include_dirs"] += extra_cuda_includes()
    options["extra_compile_args"]["nvcc"] = ["-O3", *(f"-Xcompiler={flag}" for flag in openmp)]
    return CUDAExtension("d2_ssod._C", sources + cuda_sources(), **options)


class BuildWithConfigs(build_py):
    """The shipped configs go into a wheel, beside the code, as others build on them."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "d2_ssod" / "configs"
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree(ROOT / "configs", target)


if __name__ == "__main__":  # scripts/compile_cuda.py wants the functions alone
    setup(
        ext_modules=[extension()],
        cmdclass={
            "build_ext": BuildExtension.with_options(use_ninja=True),
            "build_py": BuildWithConfigs,
        },
    )
