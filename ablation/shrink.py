"""Shrinks pictures and their boxes, for faster training: ``python -m ablation.shrink``.

For folders as ``ablation.real`` takes them, whose pictures are much larger than the network sees.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from PIL import Image


def main() -> None:
    """Write a copy of a folder with smaller pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="FOLDER")
    parser.add_argument("output", type=Path, metavar="NEW_FOLDER")
    parser.add_argument("--longest", type=int, default=256, help="pixels of the longer side")
    args = parser.parse_args()
    shrink_folder(args.data, args.output, args.longest)


def shrink_folder(data: Path, output: Path, longest: int) -> None:
    """Write the folder with smaller pictures; settings and weights stay as they are."""
    output.mkdir(parents=True)
    for file in sorted(path for path in data.iterdir() if path.is_file()):
        pictures = data / file.stem.removesuffix("_truth")
        if pictures.is_dir():
            shrink(file, pictures, output, longest)
        else:
            shutil.copy(file, output)


def shrink(file: Path, pictures: Path, output: Path, longest: int) -> None:
    """Shrink the pictures of a COCO file, those that are larger, and the boxes on them."""
    data = json.loads(file.read_text(encoding="utf-8"))
    (output / pictures.name).mkdir(parents=True, exist_ok=True)
    scales = {}
    for image in data["images"]:
        with Image.open(pictures / image["file_name"]) as picture:
            width, height = picture.size
            picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
            picture.save(output / pictures.name / image["file_name"], quality=95)
            image["width"], image["height"] = picture.size
        scales[image["id"]] = (image["width"] / width, image["height"] / height)
    for annotation in data["annotations"]:
        by_x, by_y = scales[annotation["image_id"]]
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x * by_x, y * by_y, width * by_x, height * by_y]
        annotation["area"] *= by_x * by_y
        annotation.pop("segmentation", None)
    (output / file.name).write_text(json.dumps(data), encoding="utf-8")


if __name__ == "__main__":
    main()
