"""Labels other pictures of a folder: ``python -m ablation.redraw FOLDER NEW_FOLDER --seed 2``.

For folders as ``ablation.real`` takes them. The new one has as many labeled pictures, or as many as
``--labeled`` says, drawn from the unlabeled ones, whose hidden truth becomes their labels; the
labeled ones become unlabeled, or stay with ``--add``, which adds so many. With ``--queue`` they are
not drawn: the first ones of a run's ``review/queue.csv`` are labeled.
Those to judge by stay, and so do the settings. A result is kept by the folder's name and the
training's seed: give the folders of several drawings one name, below others, and train each with
its own seed.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d2_ssod.json_files import read_json, write_json

LABELED, UNLABELED = "labeled", "unlabeled"
FILES = {LABELED: "labeled.json", UNLABELED: "unlabeled_truth.json"}


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="FOLDER")
    parser.add_argument("output", type=Path, metavar="NEW_FOLDER")
    parser.add_argument("--seed", type=int, default=1, help="of the drawing (1)")
    parser.add_argument("--labeled", type=int, metavar="N", help="pictures (as many as before)")
    parser.add_argument("--add", action="store_true", help="to the labeled pictures")
    parser.add_argument("--queue", type=Path, metavar="CSV", help="whose first ones are taken")
    args = parser.parse_args()
    order = None if args.queue is None else queue_of(args.queue)
    redraw(args.data.resolve(), args.output, args.seed, args.labeled, args.add, order)


def queue_of(path: Path) -> list[str]:
    """Read the names of the pictures of a ``review/queue.csv``, without their folders."""
    with open(path, encoding="utf-8-sig") as file:
        return [Path(row["file_name"]).name for row in csv.DictReader(file)]


def redraw(
    data: Path,
    output: Path,
    seed: int,
    count: int | None = None,
    add: bool = False,
    order: Sequence[str] | None = None,
) -> None:
    """Write the files of another choice of labeled pictures, and links to the pictures.

    Args:
        data: the folder.
        output: the new one.
        seed: of the drawing.
        count: how many unlabeled pictures are labeled; None: as many as there are labeled ones.
        add: the labeled ones stay so.
        order: names of unlabeled pictures, of which the first ones are taken; None: drawn.

    Raises:
        SystemExit: there are fewer unlabeled pictures to draw from.
    """
    files = {part: read_json(data / name) for part, name in FILES.items()}
    labeled, unlabeled = files[LABELED]["images"], files[UNLABELED]["images"]
    count = len(labeled) if count is None else count
    if not 0 < count <= len(unlabeled):
        raise SystemExit(
            f"Cannot label {count} of the {len(unlabeled)} pictures of {data / FILES[UNLABELED]}: "
            "--labeled takes 1 or more, and no more than there are"
        )
    if order is None:
        drawn = np.random.default_rng(seed).permutation(len(unlabeled))[:count]
        chosen = {unlabeled[number]["id"] for number in drawn}
    else:
        ids = {Path(image["file_name"]).name: image["id"] for image in unlabeled}
        chosen = {ids[name] for name in order[:count] if name in ids}
        if len(chosen) < count:
            raise SystemExit(
                f"Of the first {count} pictures of the queue, {len(chosen)} are among the "
                f"unlabeled ones of {data / FILES[UNLABELED]}: it is too short, or of another "
                "folder"
            )
    parts = {
        LABELED: [(UNLABELED, image) for image in unlabeled if image["id"] in chosen],
        UNLABELED: [(UNLABELED, image) for image in unlabeled if image["id"] not in chosen],
    }
    before = LABELED if add else UNLABELED
    parts[before] = [*((LABELED, image) for image in labeled), *parts[before]]
    output.mkdir(parents=True)
    for part, images in parts.items():
        (output / part).mkdir()
        contents = _joined(files, images)
        for (origin, image), new in zip(images, contents["images"], strict=True):
            picture = data / origin / image["file_name"]
            (output / part / new["file_name"]).symlink_to(picture.resolve())
        write_json(output / FILES[part], contents)
    for path in data.iterdir():
        if path.name not in {*parts, *FILES.values()}:
            (output / path.name).symlink_to(path.resolve())


def _joined(files: dict[str, dict], images: Sequence[tuple[str, dict]]) -> dict[str, object]:
    """Contents of images of both files, numbered anew, since both may use the same names."""
    numbers = {(origin, image["id"]): number for number, (origin, image) in enumerate(images, 1)}
    annotations = [
        {**annotation, "image_id": numbers[origin, annotation["image_id"]]}
        for origin, contents in files.items()
        for annotation in contents["annotations"]
        if (origin, annotation["image_id"]) in numbers
    ]
    return {
        "categories": files[LABELED]["categories"],
        "images": [
            {**image, "id": number, "file_name": f"{number}_{Path(image['file_name']).name}"}
            for number, (_, image) in enumerate(images, 1)
        ],
        "annotations": [
            {**annotation, "id": number} for number, annotation in enumerate(annotations, 1)
        ],
    }


if __name__ == "__main__":
    main()
