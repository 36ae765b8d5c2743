"""Imports go one way.

ops <- structures <- {pseudo_label, modeling, data} <- artifacts, inference <- evaluation
<- {demo, engine, report} <- commands, train_net
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "d2_ssod"

# What the modules of a part may import of this package, besides their own part. Parts are the
# sub-packages, and modules that lie beside them. Each layer is written in terms of those below it.
FILES = {"file_names", "json_files", "yaml_files"}
BASE = FILES | {"__init__", "class_lists", "errors", "heartbeat", "progress", "quiet", "randomness"}
CONFIG = BASE | {"config", "limits", "values"}
STRUCTURES = CONFIG | {"ops", "structures"}
ARTIFACTS = STRUCTURES | {"artifacts", "pseudo_label", "modeling"}
EVALUATION = ARTIFACTS | {"data", "drawing", "inference", "evaluation"}
ALLOWED = {
    "__init__": set(),
    "class_lists": set(),
    "errors": set(),
    "file_names": set(),
    "quiet": set(),
    "randomness": set(),
    "progress": set(),
    "heartbeat": set(),
    "json_files": {"errors"},
    "yaml_files": {"errors"},
    "limits": set(),
    "detectron2_limits": {"limits"},
    "config": {"detectron2_limits", "errors", "limits"},
    "values": {"limits"},
    "ops": {"_C"},
    "structures": BASE | {"ops"},
    # Three that do not know each other, ...
    "pseudo_label": {"errors", "ops", "structures"},  # pure functions, no files
    "modeling": STRUCTURES,
    "data": STRUCTURES,
    # ... and what writes down or uses what they make.
    "artifacts": ARTIFACTS,
    "inference": STRUCTURES,
    "drawing": STRUCTURES,
    "evaluation": EVALUATION,
    # Of what lies below it, the embedded data set needs what any data set does.
    "demo": CONFIG | {"data"},
    "engine": EVALUATION | {"demo"},
    "report": EVALUATION,
    "commands": EVALUATION | {"engine", "report"},
    "__main__": {"commands", "quiet"},
}
COMMAND = {"commands", "engine", "quiet"}
# Sources below csrc and what they may include of it, by folder.
INCLUDABLE = {
    "core": {"core"},
    "cpu": {"core", "cpu", ""},
    "cuda": {"core", "cuda", "cuda/common", ""},
    "cuda/common": {"core", "cuda/common", ""},
}


def part_of(module):
    """The part of the package that d2_ssod.a.b belongs to: a."""
    name = module.split(".")[1] if "." in module else "__version__"
    return "__init__" if name == "__version__" else name


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
    assert not parts & ALLOWED["ops"]


def test_command_imports_the_top_alone():
    names = {name for name in imports_of(ROOT / "train_net.py") if name.startswith("d2_ssod")}
    assert {part_of(name) for name in names} <= COMMAND


def test_rules_have_no_circle():
    """Parts can be put into an order in which each may import only those before it."""
    order, left = set(), dict(ALLOWED)
    while left:
        free = {part for part, allowed in left.items() if allowed - {part, "_C"} <= order}
        assert free, f"these may import each other: {sorted(left)}"
        order |= free
        left = {part: allowed for part, allowed in left.items() if part not in free}


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("data", "artifacts"),
        ("data", "modeling"),
        ("pseudo_label", "data"),
        ("modeling", "pseudo_label"),
        ("artifacts", "data"),
        ("artifacts", "inference"),
        ("inference", "artifacts"),
        ("evaluation", "engine"),
        ("evaluation", "demo"),
        ("demo", "engine"),
        ("structures", "config"),
    ],
)
def test_rules_keep_apart_what_is_to_be_apart(lower, upper):
    assert upper not in ALLOWED[lower]


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


def lists_its_files(init):
    """Whether the docstring of a package names some of its files."""
    return bool(listed(init))


def files_of(init):
    """The modules and packages beside a package's own module, as they are listed."""
    modules = {path.name for path in init.parent.glob("[!_]*.py")}
    return modules | {f"{path.parent.name}/" for path in init.parent.glob("*/__init__.py")}


def listed(init):
    """Those of them that the package's docstring names, each at the start of a line or sentence."""
    doc = ast.get_docstring(ast.parse(init.read_text())) or ""
    return files_of(init) & set(re.findall(r"\b[\w]+(?:\.py|/)(?=\W)", doc))


@pytest.mark.parametrize(
    "init",
    [
        pytest.param(init, id=str(init.parent.relative_to(ROOT)))
        for part in ("d2_ssod", "ablation")
        for init in sorted((ROOT / part).rglob("__init__.py"))
        if lists_its_files(init)
    ],
)
def test_a_package_that_lists_its_files_lists_all(init):
    assert files_of(init) == listed(init)
