"""Importing the operators, and the compiled module that does not fit."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from d2_ssod.ops import _library, build_info
from d2_ssod.ops._source_hash import source_files, source_hash


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env=environment or None,
    )


def test_import_loads_no_detectron2():
    result = run_python(
        """
        import sys
        import d2_ssod
        assert "torch" not in sys.modules, "d2_ssod alone loads torch"
        import d2_ssod.ops
        unwanted = {"detectron2", "fvcore", "torchvision", "yacs"} & set(sys.modules)
        assert not unwanted, unwanted
        own = {".".join(name.split(".")[:2]) for name in sys.modules if name.startswith("d2_ssod.")}
        assert own == {"d2_ssod.ops", "d2_ssod._C"}, own
        """
    )
    assert result.returncode == 0, result.stderr


def test_missing_module_says_how_to_build():
    result = run_python(
        """
        import sys
        sys.modules["d2_ssod._C"] = None  # as if it were not there
        import d2_ssod.ops
        """
    )
    assert result.returncode == 1
    last_line = result.stderr.strip().splitlines()[-1]
    assert last_line.startswith(
        "ImportError: d2_ssod._C, the compiled operators, cannot be imported"
    )
    assert f"python setup.py build_ext --inplace` in {Path(__file__).parents[2]} (" in last_line


def built_from(csrc, with_cuda):
    return {
        "torch": torch.__version__,
        "cuda": "13.0 (9.0)" if with_cuda else None,
        "source_hash": source_hash(csrc, with_cuda),
    }


@pytest.fixture
def csrc(tmp_path):
    for name in ("core/box.h", "cpu/op.cpp", "cuda/op.cu", "cuda/tile.cuh", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("with_cuda", [False, True])
def test_fresh_build_passes(csrc, with_cuda):
    _library.check_build(built_from(csrc, with_cuda), csrc)


@pytest.mark.parametrize(
    ("change", "with_cuda", "stale"),
    [
        ("cpu/op.cpp", False, True),
        ("core/box.h", True, True),
        ("cuda/op.cu", True, True),
        ("cuda/op.cu", False, False),
        ("cuda/tile.cuh", True, True),
        ("README.md", True, False),
    ],
)
def test_changed_sources_make_the_build_stale(csrc, change, with_cuda, stale):
    info = built_from(csrc, with_cuda)
    (csrc / change).write_text("changed")
    if stale:
        with pytest.raises(
            ImportError, match=r"older than the sources.*setup.py build_ext --inplace"
        ):
            _library.check_build(info, csrc)
    else:
        _library.check_build(info, csrc)


def test_added_and_renamed_sources_make_the_build_stale(csrc):
    info = built_from(csrc, with_cuda=False)
    (csrc / "cpu/op.cpp").rename(csrc / "cpu/other.cpp")
    with pytest.raises(ImportError, match="older than the sources"):
        _library.check_build(info, csrc)


def test_other_torch_makes_the_build_stale(csrc):
    info = built_from(csrc, with_cuda=False) | {"torch": "1.0.0"}
    with pytest.raises(
        ImportError, match=r"built for torch 1\.0\.0, and this is torch .*build_ext"
    ):
        _library.check_build(info, csrc)


def test_installed_without_sources_passes(csrc, tmp_path):
    _library.check_build(built_from(csrc, with_cuda=False), tmp_path / "nowhere")


def test_source_files_are_ordered_and_leave_cuda_out(csrc):
    names = [path.relative_to(csrc).as_posix() for path in source_files(csrc, with_cuda=False)]
    assert names == ["core/box.h", "cpu/op.cpp"]
    assert len(source_files(csrc, with_cuda=True)) == 4


def test_build_info_tells_of_openmp_and_torch():
    info = build_info()
    assert info["torch"] == torch.__version__
    assert info["openmp"], "at::parallel_for is serial without OpenMP"
    assert info["cuda"] == "cpu only" or "(" in info["cuda"]
    assert info["compiler"]


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_lower_instruction_sets_match_the_reference(capability):
    """The kernels for older processors, run on this one."""
    result = run_python(
        f"""
        import os, sys
        os.environ["ATEN_CPU_CAPABILITY"] = {capability!r}
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import instruction_sets
        instruction_sets.compare_with_reference()
        """
    )
    assert result.returncode == 0, result.stderr


def test_a_module_that_does_not_fit_is_not_loaded(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.0.0")
    with pytest.raises(ImportError, match=r"and this is torch 1\.0\.0"):
        _library.load()
