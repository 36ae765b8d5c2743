"""Curves and bars, as SVG that takes the page's colors."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from markupsafe import Markup

from .collect import Phase
from .results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's, which the color-blind tell apart.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933", "#882255")
_INK = "#010203"  # stands for the page's text color
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a "$" in a name is a "$"
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "grid.color"), _INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
    "legend.frameon": False,
}


@contextmanager
def _drawing(description: str, width: float = 5.2, height: float = 2.6) -> Iterator[_Drawing]:
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": description}):
        yield _Drawing(description, width, height)


class _Drawing:
    """A figure that becomes SVG."""

    def __init__(self, description: str, width: float, height: float) -> None:
        from matplotlib.figure import Figure  # slow to import, in each process of a run

        self._description = description
        self._figure = Figure(figsize=(width, height), layout="constrained")
        self.axes: Axes = self._figure.add_subplot()

    def svg(self) -> Markup:
        """Give the figure, for screen readers with its description."""
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        self._figure.patch.set_alpha(0)
        self.axes.patch.set_alpha(0)
        stream = io.StringIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that the font lacks are the browser's
            FigureCanvasSVG(self._figure).print_svg(stream, metadata={"Date": None})
        text = stream.getvalue()
        text = text[text.index("<svg") :].replace(_INK, "currentColor")
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        label = Markup.escape(self._description)
        return Markup(text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def ap_bars(results: Results) -> Markup | None:
    """Draw AP50 and AP of each model."""
    rows, shown = results.rows, [name for name in ("AP50", "AP") if name in results.columns]
    if not rows or not shown:
        return None
    title = f"{' and '.join(shown)} of each model on the {results.images} images"
    with _drawing(title, width=max(4.0, 0.9 * len(rows) + 1.5)) as drawing:
        places = np.arange(len(rows))
        for number, name in enumerate(shown):
            values = [row.value(name) or 0.0 for row in rows]
            offset = (number - (len(shown) - 1) / 2) * 0.4
            bars = drawing.axes.bar(places + offset, values, 0.38, color=COLORS[number], label=name)
            drawing.axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
        drawing.axes.set_xticks(places, [row.short for row in rows])
        drawing.axes.set_xlabel("phase, or phases together")
        drawing.axes.legend(ncols=2, loc="upper left", bbox_to_anchor=(0, 1.18))
        return drawing.svg()


def score_histogram(scores: Mapping[str, np.ndarray], title: str) -> Markup | None:
    """Draw how scores are spread, for several kinds of boxes."""
    if not scores:
        return None
    edges = np.linspace(0, 1, 41)
    with _drawing(title) as drawing:
        for (name, values), color in zip(scores.items(), COLORS, strict=False):
            counts, _ = np.histogram(values, edges)
            drawing.axes.stairs(counts, edges, color=color, label=name, linewidth=1.5)
        drawing.axes.set(xlabel="score", ylabel="boxes", yscale="symlog", xlim=(0, 1))
        drawing.axes.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
        drawing.axes.legend()
        return drawing.svg()


def boxes_per_image(counts: Mapping[str, np.ndarray], title: str) -> Markup | None:
    """Draw how many boxes images have, for several kinds of labels."""
    usable = {name: values for name, values in counts.items() if len(values)}
    if not usable:
        return None
    most = int(max(np.quantile(values, 0.99) for values in usable.values())) + 1
    edges = np.arange(min(most, 60) + 2) - 0.5
    with _drawing(title) as drawing:
        for (name, values), color in zip(usable.items(), COLORS, strict=False):
            part, _ = np.histogram(np.minimum(values, edges[-1] - 0.5), edges)
            drawing.axes.stairs(part / len(values), edges, color=color, label=name, linewidth=1.5)
        drawing.axes.set(xlabel="boxes per image", ylabel="share of images")
        drawing.axes.legend()
        return drawing.svg()


def label_quality(quality: Mapping[str, Mapping[str, float]], title: str) -> Markup | None:
    """Draw precision and recall of the labels after each step."""
    steps = [step for step, found in quality.items() if found.get("precision") is not None]
    if not steps:
        return None
    with _drawing(title) as drawing:
        for name, color, marker in (("precision", COLORS[0], "o"), ("recall", COLORS[1], "s")):
            values = [quality[step].get(name) for step in steps]
            drawing.axes.plot(steps, values, marker=marker, color=color, label=name)
        drawing.axes.set(ylim=(0, 1.02))
        drawing.axes.legend()
        return drawing.svg()


def curves(phases: Sequence[Phase], key: str, title: str, label: str) -> Markup | None:
    """Draw a number of each phase over its iterations; between its q10 and q90 if there are."""
    known = [(p, [row for row in p.curves if row.get(key) is not None]) for p in phases]
    known = [(phase, rows) for phase, rows in known if len(rows) > 1]
    if not known:
        return None
    low, high = (key.replace("_mean", end) for end in ("_q10", "_q90"))
    with _drawing(title) as drawing:
        for phase, rows in known:
            color = COLORS[phase.number % len(COLORS)]
            x = [row["iteration"] for row in rows]
            drawing.axes.plot(
                x, [row[key] for row in rows], color=color, label=f"phase {phase.number}"
            )
            if low != key and all(low in row and high in row for row in rows):
                drawing.axes.fill_between(
                    x, [r[low] for r in rows], [r[high] for r in rows], color=color, alpha=0.15
                )
        drawing.axes.set(xlabel="iteration of the phase", ylabel=label)
        drawing.axes.legend()
        return drawing.svg()
