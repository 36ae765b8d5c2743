"""Imports go one way: ops <- {modeling, pseudo_label, evaluation, data} <- engine <- train_net."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "d2_ssod"

# What the modules of a part may import of this package, besides their own part. Parts are the
# sub-packages, and modules that lie beside them.
HELPERS = {"errors", "files", "progress", "quiet"}
ALLOWED = {
    "__init__": set(),
    "errors": set(),
    "quiet": set(),
    "files": {"errors"},
    "progress": set(),
    "config": set(),
    "ops": {"_C"},
    "modeling": {"ops", "config"} | HELPERS,
    "pseudo_label": {"ops", "config"} | HELPERS,
    # Evaluation speaks of detections, as pseudo-labels do.
    "evaluation": {"ops", "config", "pseudo_label"} | HELPERS,
    "data": {"ops", "config"} | HELPERS,
    "engine": {"ops", "config", "modeling", "pseudo_label", "evaluation", "data"} | HELPERS,
}
# Sources below csrc and what they may include of it, by folder.
INCLUDABLE = {
    "core": {"core"},
    "cpu": {"core", "cpu", ""},
    "cuda": {"core", "cuda", "cuda/common", ""},
    "cuda/common": {"core", "cuda/common", ""},
}


def part_of(module):
    """The part of the package that d2_ssod.a.b belongs to: a."""
    return module.split(".")[1] if "." in module else "__init__"


def imports_of(path):
    """Absolute names of all modules that a file imports, also inside functions."""
    module = path.relative_to(ROOT).with_suffix("").parts
    package = module[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            origin = ".".join(base + ([node.module] if node.module else []))
            # `from d2_ssod import ops` imports d2_ssod.ops.
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def test_every_part_has_a_rule():
    parts = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in modules()}
    assert parts == set(ALLOWED)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_module_imports_what_its_part_may(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    found = {part_of(name) for name in imports_of(path) if name.split(".")[0] == "d2_ssod"}
    assert found - {own} <= ALLOWED[own]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_module_imports_nothing_outside_the_package(path):
    """Neither the command nor scripts nor tests."""
    outside = {"train_net", "tests", "scripts", "benchmarks", "ablation"}
    assert not outside & {name.split(".")[0] for name in imports_of(path)}


def test_rules_catch_a_wrong_import(tmp_path, monkeypatch):
    """The parser sees the forms in which an import may be written."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "d2_ssod" / "ops" / "new.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import d2_ssod.engine\nfrom d2_ssod import data\nfrom .. import modeling\n"
        "def f():\n    from ..evaluation.fusion import fuse\n"
    )
    parts = {part_of(name) for name in imports_of(path)}
    assert parts == {"engine", "data", "modeling", "evaluation"}


def test_command_imports_the_engine_alone():
    names = {name for name in imports_of(ROOT / "train_net.py") if name.startswith("d2_ssod")}
    assert {part_of(name) for name in names} == {"engine"}


def test_ops_import_torch_and_no_detection_library():
    found = {n.split(".")[0] for p in (PACKAGE / "ops").rglob("*.py") for n in imports_of(p)}
    third_party = found - set(sys.stdlib_module_names) - {"d2_ssod", "__future__"}
    assert third_party <= {"torch"}


def sources():
    suffixes = {".h", ".cuh", ".cpp", ".cu"}
    return sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in suffixes)


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_source_includes_what_its_folder_may(path):
    folder = path.relative_to(ROOT / "csrc").parent.as_posix().replace(".", "")
    for include in re.findall(r'#include\s+"([^"]+)"', path.read_text()):
        places = [path.parent / include, ROOT / "csrc" / include]
        target = next((place.resolve() for place in places if place.exists()), None)
        if target is None:  # made by the build, or a test's stand-in for a compiler's header
            continue
        included = target.relative_to(ROOT / "csrc").parent.as_posix().replace(".", "")
        assert included in INCLUDABLE.get(folder, {folder, "core"}), include


def test_formulas_know_neither_torch_nor_python():
    foreign = re.compile(r"#include\s+<(torch|ATen|c10|pybind11|Python)")
    for path in (ROOT / "csrc" / "core").iterdir():
        assert not foreign.search(path.read_text()), path


def loaded_after(statement):
    code = f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(result.stdout.split())


def test_import_of_the_package_loads_neither_torch_nor_detectron2():
    assert not {"torch", "detectron2", "numpy"} & loaded_after("import d2_ssod")


def test_import_of_ops_loads_no_detectron2():
    loaded = loaded_after("import d2_ssod.ops")
    assert "torch" in loaded
    assert not {"detectron2", "fvcore", "torchvision", "pycocotools"} & loaded
