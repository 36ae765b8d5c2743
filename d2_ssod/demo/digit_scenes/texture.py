"""Backgrounds, strokes, blur and noise, all in integer arithmetic (the same on every machine)."""

from __future__ import annotations

import numpy as np

_BITS = 8


def value_noise(rng: np.random.RandomState, side: int, cells: int) -> np.ndarray:
    """Draw a smooth relief: int64 ``[side, side]`` in -256..256, ``cells`` bumps a side."""
    grid = rng.randint(-256, 257, size=(cells + 1, cells + 1)).astype(np.int64)
    position = np.arange(side, dtype=np.int64) * cells * (1 << _BITS) // side
    cell, part = position >> _BITS, position & ((1 << _BITS) - 1)
    rest = (1 << _BITS) - part
    columns = grid[:, cell] * rest + grid[:, cell + 1] * part
    relief = columns[cell] * rest[:, None] + columns[cell + 1] * part[:, None]
    return relief >> (2 * _BITS)


def background(
    rng: np.random.RandomState, side: int, color: np.ndarray, texture: int
) -> np.ndarray:
    """Draw a shaded, textured ground around one color.

    Args:
        rng: source of randomness.
        side: pixels along the square picture.
        color: int64 ``[3]``, RGB.
        texture: strength of the relief in gray levels.

    Returns:
        int64 ``[side, side, 3]``.
    """
    shading = value_noise(rng, side, 1) * (12 + texture) // 256
    coarse = value_noise(rng, side, 5) * texture // 256
    fine = value_noise(rng, side, 22) * texture // 256
    tint = rng.randint(60, 101, size=3).astype(np.int64)
    return color + (shading + coarse + fine)[..., None] * tint // 100


def line_mask(rng: np.random.RandomState, side: int, width: int) -> np.ndarray:
    """Draw a straight stroke of ``width`` pixels: uint8 alpha ``[side, side]``."""
    while True:
        x0, y0, x1, y1 = (int(v) for v in rng.randint(-side // 8, side + side // 8, size=4))
        dx, dy = x1 - x0, y1 - y0
        squared = dx * dx + dy * dy
        if squared * 9 >= side * side:  # not shorter than a third of the picture
            break
    x = np.arange(side, dtype=np.int64)[None, :] - x0
    y = np.arange(side, dtype=np.int64)[:, None] - y0
    length = int(np.sqrt(squared * 256))  # in 1/16 pixel
    distance = np.abs(x * dy - y * dx) * 4096 // length  # in 1/256 pixel
    along = x * dx + y * dy
    return _soft(distance, width) * ((along >= 0) & (along <= squared))


def arc_mask(rng: np.random.RandomState, side: int, width: int) -> np.ndarray:
    """Draw about a half of a circle, ``width`` pixels wide: uint8 alpha ``[side, side]``."""
    cx, cy = (int(v) for v in rng.randint(0, side, size=2))
    radius = int(rng.randint(side // 12, side // 3))
    nx, ny = (int(v) for v in rng.randint(-100, 101, size=2))
    x = np.arange(side, dtype=np.int64)[None, :] - cx
    y = np.arange(side, dtype=np.int64)[:, None] - cy
    # sqrt is correctly rounded everywhere, unlike the trigonometric functions
    reach = np.sqrt(((x * x + y * y) << 16).astype(np.float64)).astype(np.int64)
    return _soft(np.abs(reach - radius * 256), width) * (nx * x + ny * y >= 0)


def _soft(distance: np.ndarray, width: int) -> np.ndarray:
    """Give the alpha of a stroke from the distance to its middle line in 1/256 pixel."""
    return np.clip(width * 128 + 128 - distance, 0, 255).astype(np.uint8)


def blur(pixels: np.ndarray, passes: int) -> np.ndarray:
    """Smooth both directions by (1 2 1) weights, ``passes`` times; int64 ``[H, W, C]``."""
    for _ in range(passes):
        for axis in (0, 1):
            border = [(1, 1) if a == axis else (0, 0) for a in range(3)]
            p = np.moveaxis(np.pad(pixels, border, mode="edge"), axis, 0)
            pixels = np.moveaxis((p[:-2] + 2 * p[1:-1] + p[2:] + 2) >> 2, 0, axis)
    return pixels


def add_noise(rng: np.random.RandomState, pixels: np.ndarray, sigma: int) -> np.ndarray:
    """Add bell-shaped noise (a sum of four uniform bytes) of ``sigma`` quarter gray levels."""
    total = rng.randint(0, 256, size=(4, *pixels.shape), dtype=np.uint8).sum(axis=0, dtype=np.int64)
    # The sum has mean 510 and standard deviation 147.8 = 591 / 4.
    return pixels + ((total - 510) * sigma * 128 // 591 + 64 >> 7)
