"""Curves and bars as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def curves(
    path: Path,
    x: Sequence[object],
    series: Mapping[str, Sequence[float]],
    *,
    labels: tuple[str, str],
) -> None:
    """Draw a line for each series.

    Args:
        path: of the PNG file.
        x: where the points stand; texts are evenly spaced.
        series: y values by name.
        labels: of the axes.
    """
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, values in series.items():
        axes.plot(list(map(str, x)), values, marker="o", label=name)
    _finish(path, figure, labels)


def bars(
    path: Path,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    labels: tuple[str, str],
) -> None:
    """Draw a bar for each series in each group; their axis begins near the lowest."""
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        places = [group + (number - (len(series) - 1) / 2) * width for group in range(len(groups))]
        axes.bar(places, values, width, label=name)
    axes.set_xticks(range(len(groups)), groups)
    lowest = min(min(values) for values in series.values())
    axes.set_ylim(bottom=max(0.0, lowest - 10))
    _finish(path, figure, labels)


def _finish(path: Path, figure: Figure, labels: tuple[str, str]) -> None:
    axes = figure.axes[0]
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(alpha=0.25)
    figure.legend(frameon=False, loc="outside upper center", ncols=3)
    save(path, figure)


def save(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))
