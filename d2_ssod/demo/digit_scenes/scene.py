"""Composing one picture from its difficulty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import texture
from .canvas import Canvas, Layer, PaintedObject
from .digits import CLASSES, DISTRACTORS, DigitPool, render_digit

SIDE = 128  # pixels along the square picture
HARD_FROM = 500  # difficulty (in 1/1000) from which there are more objects, and clutter above them
MIN_VISIBLE = 40  # percent of an object's ink that must stay visible

_TRIES = 60  # places tried for one digit before it is given up
_TRIES_PER_SIZE = 12  # after so many it is made smaller


@dataclass(frozen=True)
class Difficulty:
    """What a difficulty of 0 (easy) to 1000 (difficult) means for a picture.

    Pairs are (lowest, highest) of a uniform draw, inclusive.
    """

    level: int

    def between(self, easy: int, hard: int) -> int:
        """Give the value at this level on the way from ``easy`` (0) to ``hard`` (1000)."""
        return easy + (hard - easy) * self.level // 1000

    def span(self, easy: tuple[int, int], hard: tuple[int, int]) -> tuple[int, int]:
        """Give the range at this level: ``between`` for both of its ends."""
        return self.between(easy[0], hard[0]), self.between(easy[1], hard[1])

    @property
    def is_hard(self) -> bool:
        """Whether the picture belongs to the difficult half."""
        return self.level >= HARD_FROM

    @property
    def objects(self) -> tuple[int, int]:
        """Number of annotated digits."""
        return (2, 5) if self.is_hard else (1, 3)

    @property
    def size(self) -> tuple[int, int]:
        """Height of a digit before rotation, pixels."""
        return self.span((32, 60), (18, 44))

    @property
    def max_degrees(self) -> int:
        """Largest rotation to either side."""
        return self.between(6, 36)

    @property
    def max_overlap(self) -> int:
        """Largest part of a digit's box that another digit's box may cover, percent."""
        return self.between(0, 45)

    @property
    def outside(self) -> int:
        """Part of a digit that may lie outside the picture, percent of its size."""
        return self.between(0, 22)

    @property
    def contrast(self) -> tuple[int, int]:
        """Distance between a digit's color and the ground's, gray levels."""
        return self.span((80, 120), (34, 74))

    @property
    def opacity(self) -> tuple[int, int]:
        """Opacity of a digit, percent."""
        return self.span((92, 100), (60, 95))

    @property
    def texture(self) -> int:
        """Strength of the ground's relief, gray levels."""
        return self.between(6, 30)

    @property
    def strokes(self) -> tuple[int, int]:
        """Number of lines and arcs below the digits."""
        return self.span((0, 1), (2, 5))

    @property
    def distractors(self) -> tuple[int, int]:
        """Number of unannotated digits below the annotated ones."""
        return self.span((0, 1), (0, 3))

    @property
    def strokes_above(self) -> tuple[int, int]:
        """Number of lines and arcs over the digits."""
        return self.span((0, 0), (1, 3)) if self.is_hard else (0, 0)

    @property
    def distractors_above(self) -> tuple[int, int]:
        """Number of unannotated digits over the annotated ones."""
        return (0, 1) if self.is_hard else (0, 0)

    @property
    def blur(self) -> tuple[int, int]:
        """Smoothing passes."""
        return self.span((0, 0), (0, 3))

    @property
    def noise(self) -> tuple[int, int]:
        """Standard deviation of the noise, quarters of a gray level."""
        return self.span((8, 16), (24, 64))


def render_scene(
    rng: np.random.RandomState, pool: DigitPool, level: int
) -> tuple[np.ndarray, list[PaintedObject]]:
    """Draw one picture.

    Args:
        rng: the picture's own stream; nothing else decides what is drawn.
        pool: the digits it may show.
        level: difficulty in 1/1000, 0 to 1000.

    Returns:
        uint8 ``[128, 128, 3]`` RGB, and its annotated digits.
    """
    return _Composer(rng, pool, Difficulty(level)).compose()


class _Composer:
    """The state of one picture's composition."""

    def __init__(self, rng: np.random.RandomState, pool: DigitPool, difficulty: Difficulty):
        self.rng, self.pool, self.difficulty = rng, pool, difficulty
        self.ground = rng.randint(50, 206, size=3).astype(np.int64)
        self.canvas = Canvas(texture.background(rng, SIDE, self.ground, difficulty.texture))
        self.taken: list[tuple[int, int, int, int]] = []  # boxes of the digits placed so far

    def compose(self) -> tuple[np.ndarray, list[PaintedObject]]:
        d = self.difficulty
        self._add_strokes(self._draw(d.strokes))
        for _ in range(self._draw(d.distractors)):
            self._add_digit(DISTRACTORS)
        for _ in range(self._draw(d.objects)):
            self._add_digit(CLASSES)
        self._add_strokes(self._draw(d.strokes_above))
        for _ in range(self._draw(d.distractors_above)):
            self._add_digit(DISTRACTORS)
        pixels = texture.blur(self.canvas.pixels, self._draw(d.blur))
        pixels = texture.add_noise(self.rng, pixels, self._draw(d.noise))
        return np.clip(pixels, 0, 255).astype(np.uint8), self.canvas.objects

    def _draw(self, span: tuple[int, int]) -> int:
        return int(self.rng.randint(span[0], span[1] + 1))

    def _color(self) -> np.ndarray:
        """Draw a color at the difficulty's distance from the ground, where there is room for it."""
        lighter = self._draw((96, 160)) > int(self.ground.sum()) // 3
        sign = 1 if lighter else -1
        per_channel = self.rng.randint(70, 131, size=3).astype(np.int64)
        return self.ground + sign * self._draw(self.difficulty.contrast) * per_channel // 100

    def _add_strokes(self, count: int) -> None:
        for _ in range(count):
            draw_mask = texture.line_mask if self.rng.randint(2) else texture.arc_mask
            width = self._draw((1, 3))
            layer = Layer(
                draw_mask(self.rng, SIDE, width), 0, 0, self._color(), self._draw((50, 100))
            )
            if self.canvas.keeps_objects_visible(layer, MIN_VISIBLE):
                self.canvas.paint(layer)

    def _add_digit(self, digits: tuple[int, ...]) -> None:
        """Paint one digit where it and all others stay visible; smaller if there is no room."""
        digit, scan = self.pool.draw(self.rng, digits)
        size = self._draw(self.difficulty.size)
        degrees = self._draw((-self.difficulty.max_degrees, self.difficulty.max_degrees))
        boldness = self._draw((0, 100))
        color, opacity = self._color(), self._draw(self.difficulty.opacity)
        for attempt in range(_TRIES):
            if attempt % _TRIES_PER_SIZE == 0:
                smaller = size * (10 - attempt // _TRIES_PER_SIZE) // 10
                alpha = render_digit(scan, max(18, smaller), degrees, boldness)
            layer = Layer(alpha, *self._place(alpha.shape), color, opacity)
            if self._fits(layer):
                break
        else:
            return
        self.taken.append(_box_of(layer))
        if digit in CLASSES:
            self.canvas.paint_object(layer, digit, scan)
        else:
            self.canvas.paint(layer)

    def _place(self, shape: tuple[int, int]) -> tuple[int, int]:
        height, width = shape
        beyond = max(height, width) * self.difficulty.outside // 100
        return (
            self._draw((-beyond, SIDE - width + beyond)),
            self._draw((-beyond, SIDE - height + beyond)),
        )

    def _fits(self, layer: Layer) -> bool:
        box, limit = _box_of(layer), self.difficulty.max_overlap
        return (
            all(_overlap_percent(box, other) <= limit for other in self.taken)
            and self.canvas.visible_percent(layer) >= MIN_VISIBLE
            and self.canvas.keeps_objects_visible(layer, MIN_VISIBLE)
        )


def _box_of(layer: Layer) -> tuple[int, int, int, int]:
    height, width = layer.alpha.shape
    return layer.x, layer.y, layer.x + width, layer.y + height


def _overlap_percent(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    """Give the intersection over the smaller box's area, percent."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height * 100 // smaller
