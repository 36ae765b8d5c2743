"""Small pictures with boxes on them, as part of a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data.detection_utils import read_image
from matplotlib import colormaps
from PIL import Image

from d2_ssod.file_names import printable
from d2_ssod.structures import TieredDetections

_LONGEST = 240  # pixels of a thumbnail
_QUALITY = 72  # of its JPEG
_HEAT_CELLS = 48  # of the longer side of a heat map


@dataclass(frozen=True)
class Mark:
    """A box on a picture.

    Attributes:
        box: XYXY in pixels of the original image.
        kind: how it is drawn; one of the page's styles.
        text: what it is.
    """

    box: tuple[float, float, float, float]
    kind: str
    text: str

    @property
    def rectangle(self) -> dict[str, float]:
        """Give its place as SVG names it."""
        x0, y0, x1, y1 = (round(value, 1) for value in self.box)
        return {"x": x0, "y": y0, "width": round(x1 - x0, 1), "height": round(y1 - y0, 1)}


@dataclass(frozen=True)
class Picture:
    """A thumbnail and what is drawn on it.

    Attributes:
        name: of the file.
        source: the JPEG as a data URI; empty if the file cannot be read.
        width: of the original image, in pixels.
        height: of the original image.
        marks: boxes.
        caption: what to see.
    """

    name: str
    source: str
    width: int
    height: int
    marks: list[Mark]
    caption: str


def make_picture(
    image: dict,
    marks: Sequence[Mark] = (),
    caption: str = "",
    heat: TieredDetections | None = None,
) -> Picture:
    """Load an image and make it small.

    Args:
        image: its dict.
        marks: boxes to draw.
        caption: what to see.
        heat: boxes of which the places are shown where it is uncertain what is there.
    """
    name = printable(image["file_name"])
    try:
        thumbnail = Image.fromarray(read_image(image["file_name"], "RGB"))
    except Exception:  # Pillow's readers raise whatever a damaged file leads them to
        height, width = image.get("height", 1), image.get("width", 1)
        return Picture(name, "", width, height, list(marks), f"{caption} (cannot be read)")
    width, height = thumbnail.size
    thumbnail.thumbnail((_LONGEST, _LONGEST))
    if heat is not None:
        thumbnail = _with_heat(thumbnail, heat, width, height)
    stream = io.BytesIO()
    thumbnail.save(stream, "JPEG", quality=_QUALITY)
    data = base64.b64encode(stream.getvalue()).decode()
    return Picture(name, f"data:image/jpeg;base64,{data}", width, height, list(marks), caption)


def _with_heat(
    thumbnail: Image.Image, found: TieredDetections, width: int, height: int
) -> Image.Image:
    """Lay the uncertainty of regions over a picture: at each place that of the least certain box.

    A box that is an object with probability q is uncertain by 4 q (1 - q).
    """
    cells = _HEAT_CELLS / max(width, height)
    grid = np.zeros((max(1, round(height * cells)), max(1, round(width * cells))))
    for box, q in zip(found.boxes * cells, found.scores, strict=True):
        x0, y0 = np.floor(box[:2]).astype(int)
        x1, y1 = np.ceil(box[2:]).astype(int)
        part = grid[max(y0, 0) : y1, max(x0, 0) : x1]
        np.maximum(part, 4 * float(q) * (1 - float(q)), out=part)
    colors = (colormaps["magma"](grid)[..., :3] * 255).astype(np.uint8)
    heat = Image.fromarray(colors).resize(thumbnail.size, Image.Resampling.BICUBIC)
    return Image.blend(thumbnail, heat, 0.55)
