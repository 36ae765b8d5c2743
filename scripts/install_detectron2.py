"""Install Detectron2's Python part into the running interpreter's environment.

An installed Detectron2 is kept as it is, and ``--requirement`` (any pip requirement: a version, a
wheel, ``git+https://...``) replaces the pinned one. Otherwise the pinned wheel is used: the main
branch of Detectron2, built for CPython 3.10 and for another torch. Only its Python part is wanted,
which runs on any later Python, so the compiled module is removed: Faster R-CNN, ROIAlign, NMS and
both evaluators work without it. Also removed is a stray top-level package, ``tools``, that the
wheel carries.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PINNED = (
    "sal-detectron2==0.7.2 "
    "--hash=sha256:491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
)


def pip_install(*arguments: str) -> None:
    """Run ``pip install`` for the running interpreter."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments], check=True)


def install_pinned(site_packages: Path) -> None:
    """Unpack the pinned wheel beside ``site_packages`` and move in what is wanted."""
    with tempfile.TemporaryDirectory(dir=site_packages.parent) as folder:
        staging = Path(folder)
        requirements = staging / "requirements.txt"
        requirements.write_text(PINNED + "\n")
        target = staging / "site"
        pip_install(
            *("--require-hashes", "--no-deps", "--target", str(target)),
            *("--python-version", "3.10", "--implementation", "cp", "--abi", "none"),
            *("--platform", "any", "--only-binary=:all:", "-r", str(requirements)),
        )
        shutil.rmtree(target / "tools", ignore_errors=True)
        for compiled in (target / "detectron2").glob("_C*"):
            compiled.unlink()
        for entry in target.iterdir():
            destination = site_packages / entry.name
            if destination.exists():
                shutil.rmtree(destination)
            shutil.move(entry, destination)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requirement", default="", help="pip requirement to use instead")
    requirement = parser.parse_args().requirement
    if requirement:
        pip_install("--no-build-isolation", requirement)
    elif importlib.util.find_spec("detectron2") is None:
        install_pinned(Path(sysconfig.get_paths()["purelib"]))


if __name__ == "__main__":
    main()
