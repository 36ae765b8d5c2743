"""Lays the embedded data out for ``ablation.real``: ``python -m ablation.digits_folder``."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from d2_ssod.demo import digit_scenes
from d2_ssod.json_files import write_json


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="NEW_FOLDER")
    lay_out(parser.parse_args().output)


def lay_out(output: Path, sizes: dict[str, int] | None = None) -> None:
    """Write pictures, annotations, and the hidden truth about the unlabeled ones."""
    source = digit_scenes.generate(output / "digit_scenes", sizes=sizes)
    files = {"unlabeled_truth": digit_scenes.HIDDEN_TRUTH}
    for split in digit_scenes.SPLITS:
        (output / split).symlink_to(digit_scenes.image_folder(source, split).resolve())
        if split != "unlabeled":
            files[split] = split
    for name, file in files.items():
        shutil.copyfile(digit_scenes.annotation_file(source, file), output / f"{name}.json")
    # Digits have two sides.
    settings = {"INPUT.RANDOM_FLIP": "none", "TEST.AUG.FLIP": False}
    write_json(output / "settings.json", settings)


if __name__ == "__main__":
    main()
