"""Lays out NEU-DET or BCCD: ``python -m ablation.real_folder SPLITS DATA FOLDER``.

For ``ablation.real``. SPLITS is one of ``ablation/real/splits/*.json``, which says which pictures
lie where; DATA has the pictures and their Pascal VOC files, as published, anywhere below. The
pictures are linked to.
"""

from __future__ import annotations

import argparse
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2_ssod.json_files import read_json, write_json

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("splits", type=Path, metavar="SPLITS")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("output", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    lay_out(read_json(args.splits), args.data.resolve(), args.output)


def lay_out(splits: Mapping[str, Sequence[str]], data: Path, output: Path) -> None:
    """Write a COCO file for each part, and a folder of links to its pictures.

    Raises:
        SystemExit: a picture, or its XML file, is not there.
    """
    files = {
        name: Path(folder, name)
        for folder, _, names in os.walk(data, followlinks=True)
        for name in names
    }
    needed = {name: f"{Path(name).stem}.xml" for part in splits.values() for name in part}
    missing = [name for pair in needed.items() for name in pair if name not in files]
    if missing:
        raise SystemExit(f"{data} has no {missing[0]} (and {len(missing) - 1} more files)")
    read = {name: _read(files[xml]) for name, xml in needed.items()}
    classes = sorted({label for _, objects in read.values() for label, _ in objects})
    output.mkdir(parents=True)
    for part, names in splits.items():
        (output / part).mkdir()
        for name in names:
            (output / part / name).symlink_to(files[name])
        file = "unlabeled_truth" if part == "unlabeled" else part
        write_json(output / f"{file}.json", _coco({name: read[name] for name in names}, classes))


_Annotated = tuple[tuple[int, int], list[tuple[str, list[float]]]]  # size; labels and corners


def _read(path: Path) -> _Annotated:
    """Read width and height of a picture, and its objects; VOC's first row and column are 1."""
    root = ElementTree.parse(path).getroot()
    width, height = (int(root.findtext(f"size/{side}")) for side in ("width", "height"))
    objects = []
    for element in root.iter("object"):
        x1, y1, x2, y2 = (float(element.findtext(f"bndbox/{corner}")) for corner in _CORNERS)
        corners = [max(0.0, x1 - 1), max(0.0, y1 - 1), x2, y2]
        objects.append((element.findtext("name"), corners))
    return (width, height), objects


def _coco(pictures: Mapping[str, _Annotated], classes: Sequence[str]) -> dict[str, Any]:
    ids = {label: number for number, label in enumerate(classes, start=1)}
    boxes = [
        (number, ids[label], [x1, y1, x2 - x1, y2 - y1])
        for number, (_, objects) in enumerate(pictures.values(), start=1)
        for label, (x1, y1, x2, y2) in objects
    ]
    return {
        "images": [
            {"id": number, "file_name": name, "width": width, "height": height}
            for number, (name, ((width, height), _)) in enumerate(pictures.items(), start=1)
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": bbox}
            | {"area": bbox[2] * bbox[3], "iscrowd": 0}
            for number, (image, category, bbox) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": number, "name": label} for label, number in ids.items()],
    }


if __name__ == "__main__":
    main()
