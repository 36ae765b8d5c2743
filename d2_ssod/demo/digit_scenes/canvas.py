"""The picture being painted: integer pixels, and what is still visible of each object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .digits import ink_of


@dataclass(frozen=True)
class Layer:
    """A mask to be painted in one color at one place.

    Attributes:
        alpha: uint8 ``[h, w]``.
        x: column of the mask's left edge in the picture; may be negative.
        y: row of the mask's top edge; may be negative.
        color: int64 ``[3]``, RGB.
        opacity: percent.
    """

    alpha: np.ndarray
    x: int
    y: int
    color: np.ndarray
    opacity: int


@dataclass
class PaintedObject:
    """An annotated digit: its class, scan, ink pixels in all, and those still visible."""

    digit: int
    scan: int
    ink_pixels: int
    visible: np.ndarray  # bool [H, W]

    def box(self) -> tuple[int, int, int, int]:
        """Give the tight box around the visible ink, ``(x0, y0, x1, y1)`` with exclusive ends."""
        rows = np.flatnonzero(self.visible.any(axis=1))
        cols = np.flatnonzero(self.visible.any(axis=0))
        return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


class Canvas:
    """A picture that remembers how much of each object later layers have left visible."""

    def __init__(self, background: np.ndarray):
        self.pixels = background  # int64 [H, W, 3]
        self.objects: list[PaintedObject] = []

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def keeps_objects_visible(self, layer: Layer, min_percent: int) -> bool:
        """Tell whether every object still shows ``min_percent`` of its ink under this layer."""
        cover = self._cover(layer)
        return all(
            np.count_nonzero(o.visible & ~cover) * 100 >= o.ink_pixels * min_percent
            for o in self.objects
        )

    def visible_percent(self, layer: Layer) -> int:
        """Measure how much of the layer's ink lies inside the picture."""
        ink = ink_of(layer.alpha)
        inside = ink[self._windows(layer)[1]]
        return int(np.count_nonzero(inside) * 100 // max(1, np.count_nonzero(ink)))

    def paint(self, layer: Layer) -> None:
        """Blend the layer in, and take what it hides from the objects below."""
        here, there = self._windows(layer)
        weight = (layer.alpha[there].astype(np.int64) * layer.opacity // 100)[..., None]
        below = self.pixels[here]
        self.pixels[here] = below + (layer.color - below) * weight // 255
        if self.objects:
            cover = self._cover(layer)
            for painted in self.objects:
                painted.visible &= ~cover

    def paint_object(self, layer: Layer, digit: int, scan: int) -> None:
        """Paint a layer that is an object to be annotated."""
        self.paint(layer)
        here, there = self._windows(layer)
        ink = ink_of(layer.alpha)
        visible = np.zeros(self.shape, dtype=bool)
        visible[here] = ink[there]
        self.objects.append(PaintedObject(digit, scan, int(np.count_nonzero(ink)), visible))

    def _cover(self, layer: Layer) -> np.ndarray:
        """Find the pixels where the layer hides half or more of what is below: bool ``[H, W]``."""
        cover = np.zeros(self.shape, dtype=bool)
        here, there = self._windows(layer)
        cover[here] = layer.alpha[there].astype(np.int64) * layer.opacity >= 128 * 100
        return cover

    def _windows(self, layer: Layer) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Find the part of the picture and the part of the mask that lie on each other."""
        (height, width), (h, w) = self.shape, layer.alpha.shape
        x0, y0 = max(layer.x, 0), max(layer.y, 0)
        x1, y1 = max(x0, min(layer.x + w, width)), max(y0, min(layer.y + h, height))
        here = (slice(y0, y1), slice(x0, x1))
        there = (slice(y0 - layer.y, y1 - layer.y), slice(x0 - layer.x, x1 - layer.x))
        return here, there
