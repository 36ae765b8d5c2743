"""Training by the package alone, as a wheel has it: without the repository around it."""

import shutil
import subprocess
import sys

import pytest
import runs
import yaml
from pictures import coco_contents, save_picture, write_coco

import d2_ssod


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The files that a wheel would install."""
    folder, source = tmp_path_factory.mktemp("site-packages"), tmp_path_factory.mktemp("source")
    for name in ("d2_ssod", "configs", "csrc", "requirements"):
        ignored = shutil.ignore_patterns("_C*", "__pycache__")
        shutil.copytree(runs.ROOT / name, source / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(runs.ROOT / name, source)
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    shutil.copy(d2_ssod._C.__file__, folder / "d2_ssod")
    return folder


def run_installed(installed, cwd, *arguments):
    path = {"PYTHONPATH": str(installed)}
    runs.run_command(arguments, launcher=("-m", "d2_ssod"), environment=path, cwd=cwd)


def test_an_installed_package_writes_a_config_and_trains_by_it(installed, tmp_path):
    boxes = [(1, 2, 10, 8), (2, 1, 8, 12), (3, 3, 12, 12)]
    write_coco(tmp_path / "labeled", coco_contents(12, boxes=boxes))
    for name in "abc":
        save_picture(tmp_path / "more" / f"more_{name}.png")
    data = ("--labeled", "labeled/instances.json", "--unlabeled", "more", "--model", "small")
    run_installed(installed, tmp_path, "init", *data, "-o", "mine.yaml")
    base = yaml.safe_load((tmp_path / "mine.yaml").read_text())["_BASE_"]
    assert base == str(installed / "d2_ssod" / "configs" / "Base-SSOD-Small.yaml")
    short = ("SSOD.SCHEDULE.MAX_ITER", "[2, 2]", "SOLVER.WARMUP_ITERS", "1")
    small = (
        "SOLVER.IMS_PER_BATCH",
        "2",
        "INPUT.MIN_SIZE_TRAIN",
        "[64]",
        "INPUT.MIN_SIZE_TEST",
        "64",
    )
    train = ("train", "--config-file", "mine.yaml", "--num-gpus", "0")
    run_installed(installed, tmp_path, *train, *short, *small, "OUTPUT_DIR", "out")
    assert (tmp_path / "out" / "phase_1" / "model_final.pth").exists()
    assert (tmp_path / "out" / "report.html").exists()
