"""Which GPUs setup.py builds for; nothing is compiled."""

import re
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
TWO_TOO_OLD = [(7, 0), (7, 5)]


@pytest.fixture
def toolkit(tmp_path):
    """The folder of a CUDA toolkit."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch()
    return str(tmp_path)


@pytest.fixture
def script(monkeypatch, toolkit):
    """Functions of setup.py, with a toolkit and without GPUs, whatever this machine has."""
    for variable in ("TORCH_CUDA_ARCH_LIST", "FORCE_CUDA", "CUDA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CUDA_HOME", toolkit)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    functions = runpy.run_path(str(ROOT / "setup.py"))
    # Where the functions look for each other.
    monkeypatch.setitem(functions["architectures"].__globals__, "toolkit_knows", lambda name: False)
    see_gpus(monkeypatch, [])
    return functions


def see_gpus(monkeypatch, capabilities):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: capabilities[number])


def test_builds_for_the_gpus_at_hand_that_are_new_enough(script, toolkit, monkeypatch, capsys):
    see_gpus(monkeypatch, [(8, 6), (7, 5), (8, 6), (12, 0)])
    assert script["architectures"]() == ["8.6", "12.0+PTX"]
    assert script["want_cuda"]()
    assert f"{toolkit}, for 8.6, 12.0+PTX" in capsys.readouterr().out


def test_builds_for_the_cpu_where_all_gpus_are_too_old(script, monkeypatch, capsys):
    see_gpus(monkeypatch, TWO_TOO_OLD)
    assert not script["want_cuda"]()
    assert (
        "the CPU operators only: the kernels need a GPU of compute capability 8.0 or more, and the "
        "newest here has 7.5"
    ) in capsys.readouterr().out


def test_a_toolkit_without_its_compiler_is_none(monkeypatch, tmp_path, capsys):
    """As that of an image to run programs in, or of a module that is gone."""
    monkeypatch.delenv("FORCE_CUDA", raising=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    functions = runpy.run_path(str(ROOT / "setup.py"))
    assert not functions["want_cuda"]()
    assert "no CUDA toolkit was found (set CUDA_HOME to" in capsys.readouterr().out


def test_nothing_is_asked_of_the_compiler_where_only_the_cpu_is_wanted(script, monkeypatch, capsys):
    def refuse():
        pytest.fail("nvcc was asked")

    monkeypatch.setitem(script["want_cuda"].__globals__, "architectures", refuse)
    monkeypatch.setenv("FORCE_CUDA", "0")
    assert not script["want_cuda"]()
    assert "the CPU operators only: FORCE_CUDA=0" in capsys.readouterr().out


def test_compiles_for_other_machines_if_forced(script, monkeypatch):
    assert not script["want_cuda"]()
    monkeypatch.setenv("FORCE_CUDA", "1")
    for capabilities in ([], TWO_TOO_OLD):
        see_gpus(monkeypatch, capabilities)
        assert script["want_cuda"]()
        assert script["architectures"]() == ["8.0", "9.0+PTX"]


def test_leaves_out_what_a_list_for_all_programs_has_and_the_kernels_cannot_use(
    script, monkeypatch
):
    given = "5.2 6.0;7.0 7.5;8.0 8.6  9.0a;10.0 12.0+PTX Volta;Turing;Ampere"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", given)
    expected = ["8.0", "8.6", "9.0a", "10.0", "12.0+PTX", "Ampere"]
    assert script["architectures"]() == expected
    see_gpus(monkeypatch, [(9, 0)])
    assert script["architectures"]() == expected


def test_says_of_a_list_without_a_gpu_for_the_kernels_what_it_lacks(script, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.0;7.5+PTX")
    see_gpus(monkeypatch, [(9, 0)])
    assert not script["want_cuda"]()
    assert "TORCH_CUDA_ARCH_LIST names nothing from 8.0 on" in capsys.readouterr().out
    monkeypatch.setenv("FORCE_CUDA", "1")
    with pytest.raises(SystemExit, match="FORCE_CUDA=1, but TORCH_CUDA_ARCH_LIST names nothing"):
        script["want_cuda"]()


def test_profiles_every_kernel():
    pattern = re.search(r"regex:(\S+)'", (ROOT / "scripts" / "check_cuda.sh").read_text())[1]
    kernels = {
        name
        for path in (ROOT / "csrc" / "cuda").rglob("*.cuh")
        for name in re.findall(r"\b(\w+_kernel)\(", path.read_text())
    }
    assert len(kernels) > 8
    assert [name for name in sorted(kernels) if not re.search(pattern, name)] == []
