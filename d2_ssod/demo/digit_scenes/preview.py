"""A contact sheet, to see what the pictures are like."""

from __future__ import annotations

import json
import os
from pathlib import Path

from PIL import Image, ImageDraw

from .writer import annotation_file, image_folder

_ZOOM = 2
_CAPTION = 14  # pixels below each picture


def save_preview(
    root: str | os.PathLike, path: str | os.PathLike, *, split: str = "test", count: int = 48
) -> None:
    """Save a sheet of a split's first images, easiest first, with boxes, classes and difficulty.

    Args:
        root: folder of the data set.
        path: picture to write.
        split: an annotated split.
        count: images shown.
    """
    contents = json.loads(annotation_file(root, split).read_text())
    images = sorted(contents["images"][:count], key=lambda image: image["difficulty"])
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    width = _ZOOM * images[0]["width"]
    height = _ZOOM * images[0]["height"] + _CAPTION
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for number, image in enumerate(images):
        boxes = [a for a in contents["annotations"] if a["image_id"] == image["id"]]
        tile = _tile(image_folder(root, split) / image["file_name"], boxes, image["difficulty"])
        sheet.paste(tile, (number % columns * width, number // columns * height))
    sheet.save(path)


def _tile(path: Path, annotations: list[dict], difficulty: float) -> Image.Image:
    with Image.open(path) as picture:
        width, height = picture.width * _ZOOM, picture.height * _ZOOM
        tile = Image.new("RGB", (width, height + _CAPTION), "white")
        tile.paste(picture.resize((width, height), Image.Resampling.NEAREST))
    draw = ImageDraw.Draw(tile)
    for annotation in annotations:
        x, y, w, h = (_ZOOM * v for v in annotation["bbox"])
        draw.rectangle((x, y, x + w - 1, y + h - 1), outline="yellow")
        draw.text((x + 2, y), str(annotation["category_id"] - 1), fill="yellow")
    draw.text((2, height + 1), f"difficulty {difficulty:.3f}", fill="black")
    return tile
