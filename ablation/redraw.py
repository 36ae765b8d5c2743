"""Labels other pictures of a folder: ``python -m ablation.redraw FOLDER NEW_FOLDER --seed 2``.

For folders as ``ablation.real`` takes them. The new one has as many labeled pictures, or as many as
``--labeled`` says, drawn from the unlabeled ones, whose hidden truth becomes their labels; the
labeled ones become unlabeled.
Those to judge by stay, and so do the settings. A result is kept by the folder's name and the
training's seed: give the folders of several drawings one name, below others, and train each with
its own seed.
"""

from __future__ import annotations

import argparse
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
    args = parser.parse_args()
    redraw(args.data.resolve(), args.output, args.seed, args.labeled)


def redraw(data: Path, output: Path, seed: int, count: int | None = None) -> None:
    """Write the files of another drawing, of as many labeled pictures unless ``count`` says else,
    and links to the pictures.

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
    order = np.random.default_rng(seed).permutation(len(unlabeled))
    drawn = {unlabeled[number]["id"] for number in order[:count]}
    parts = {
        LABELED: [(UNLABELED, image) for image in unlabeled if image["id"] in drawn],
        UNLABELED: [
            *((LABELED, image) for image in labeled),
            *((UNLABELED, image) for image in unlabeled if image["id"] not in drawn),
        ],
    }
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
