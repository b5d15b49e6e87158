"""The marks, axes and legends of all charts, drawn as PNG (two pixels for each of a card 800 px wide) or as SVG for a page.

Only this module sets up matplotlib, which is imported when a chart is drawn. Lines are laws and markers are measurements, so
that a chart can be read without colours. A point is a mapping with `runs`, `value`, `low` and `high`, as in scaling.json;
`low` and `high` are None where there is no interval. A curve has lists `galaxies`, `loss`, `low` and `high`.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_galaxy.reports.text import compact_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D

PIXELS = 1600  # width of the picture

# Okabe and Ito's colours, the darker ones for lines
LINES = ("#0072B2", "#D55E00", "#009E73", "#AA4F85", "#000000")

COLORS = (*LINES[:4], "#E69F00", "#56B4E9", LINES[4])  # all of Okabe and Ito that are visible on white
MARKERS, FILLS = "os^DvPX*<>", ("full", "none", "left", "bottom")
GREY, LIGHT_GREY = "#555555", "#8A8A8A"
STRIPE, GRID = "#F1F1F1", "#DDDDDD"
WIDTH, COLUMNS = 8, 3  # inches, of 100 px on a card; small panels beside each other
TEXT_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}  # behind a text upon lines
LOG_FLOOR = 1e-12  # drawn in place of 0, which no logarithmic axis has


@dataclass(frozen=True)
class Figure:
    """A picture (PNG), the numbers in it (CSV), and what it shows in words."""

    name: str
    png: bytes
    csv: str
    alt: str


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as a table with a header; a row may lack columns."""
    import pandas as pd

    return pd.DataFrame(rows).to_csv(index=False)


# Figures


@contextmanager
def style() -> Iterator[None]:
    """The same letters and lines, whatever settings a machine has."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({
            "font.size": 9, "axes.labelsize": 9, "axes.titlesize": 9, "legend.fontsize": 8.5, "figure.titlesize": 11,
            "figure.titleweight": "bold", "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False,
        })  # fmt: skip
        yield


def chart(panels: int, height: float | None = None, width: float = WIDTH) -> tuple[Canvas, list[Axes]]:
    """A matplotlib figure and its axes: one large panel, or small ones beside each other. Lengths are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    columns = min(panels, COLUMNS)
    rows = -(-panels // columns)
    figure = Canvas(
        (width, height or (4.2 if panels == 1 else max(2.1 * rows, 2.9))), dpi=PIXELS / WIDTH, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels]


def png(figure: Canvas, title: str, handles: Sequence[Line2D]) -> bytes:
    """The picture, made higher for a title above and a legend below."""
    from PIL import Image

    figure.set_figheight(figure.get_figheight() + 0.26)
    _add_legend(figure, handles, 100)
    figure.suptitle(title, x=0.01, ha="left")
    figure.canvas.draw()
    file = io.BytesIO()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    picture.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def svg(figure: Canvas, handles: Sequence[Line2D], name: str) -> str:
    """The picture as an SVG element without a background, its letters as letters, with a legend below.

    Args:
        name: unique on the page, since the ids in the picture are made from it.
    """
    import matplotlib

    _add_legend(figure, handles, 12 * figure.get_figwidth())
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    # The ids of groups are the same in every picture, and nothing refers to them.
    return re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])


def _add_legend(figure: Canvas, handles: Sequence[Line2D], letters: float) -> None:
    """Below the axes, in as many columns as fit into a line of `letters`; the picture is made higher."""
    longest = max(len(handle.get_label()) for handle in handles)
    columns = int(max(1, min(3, letters // (longest + 6))))
    figure.set_figheight(figure.get_figheight() + 0.19 * -(-len(handles) // columns) + 0.19)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def handle(label: str, color: str, **look: Any) -> Line2D:
    """An entry of a legend."""
    from matplotlib.lines import Line2D

    look = {"ls": "none", "ms": 6} | look
    if look.get("fillstyle") == "none":
        look["mfc"] = "white"
    return Line2D([], [], color=color, label=label, **look)


# Axes


def label_axes(figure: Canvas, panels: Sequence[Axes], titles: Sequence[str | None], x: str, y: str) -> None:
    """Name the axes, those of small panels once for all in a row or column; a panel without a title gets none."""
    for axes in panels[-COLUMNS:]:
        axes.set_xlabel(x)
    if len(panels) == 1:
        panels[0].set_ylabel(y)
    else:
        figure.supylabel(y, fontsize=9)
    for axes, title in zip(panels, titles, strict=True):
        if title:
            axes.set_title(textwrap.fill(title, 28), loc="left", fontweight="bold")


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Logarithmic from low to high, with few ticks at round numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    alone = axis.axes.get_subplotspec().get_gridspec().ncols == 1
    room = 9 if alone and axis.axes.figure.get_figwidth() > WIDTH / 2 else 6
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [tick for k in decades for step in steps if low <= (tick := float(f"{step}e{k}")) <= high]
        if len(ticks) <= room:
            break
    if len(ticks) < 3:
        evenly = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        ticks = [tick for tick in evenly if low <= tick <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: compact_number(value, 6)))


def limits(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """Ends of a logarithmic axis that shows all values above 0, with a margin as a share of its length."""
    logs = np.log([value for value in values if value > 0] or [1.0])
    margin = max(margin * np.ptp(logs), 0.02)
    return float(np.exp(logs.min() - margin)), float(np.exp(logs.max() + margin))


# Marks


def draw_points(
    axes: Axes, x: Sequence[float], points: Sequence[Mapping[str, Any]], color: str, marker: str = "o",
    fill: str = "full", size: float = 6,
) -> None:  # fmt: skip
    """Means with their intervals, and small beside them the `runs` (none, or a list) that each is the mean of."""
    for place, point in zip(x, points, strict=True):
        runs = point.get("runs") or []
        if len(runs) > 1:
            axes.plot([place] * len(runs), runs, marker, color=color, ms=size / 2, alpha=0.4, mew=0, zorder=2)
        if point["low"] is not None:
            axes.vlines(place, max(point["low"], LOG_FLOOR), point["high"], color=color, lw=1.1, zorder=3)
        axes.plot(
            [place], [point["value"]], marker, color=color, ms=size, fillstyle=fill, mfcalt="white",
            mfc="white" if fill == "none" else color, zorder=4,
        )  # fmt: skip


def draw_curve_with_band(
    axes: Axes, curve: Mapping[str, Sequence[float]], measured: float, color: str, width: float = 1.5
) -> None:
    """A law with its band, dashed beyond the largest number of galaxies that was measured."""
    galaxies, loss, low, high = (np.array(curve[key]) for key in ("galaxies", "loss", "low", "high"))
    axes.fill_between(galaxies, np.maximum(low, LOG_FLOOR), high, color=color, alpha=0.14, lw=0, zorder=1)
    inside = galaxies <= measured
    edge = np.interp(np.log(measured), np.log(galaxies), loss)
    axes.plot([*galaxies[inside], measured], [*loss[inside], edge], color=color, lw=width, zorder=2)
    axes.plot([measured, *galaxies[~inside]], [edge, *loss[~inside]], "--", color=color, lw=width, zorder=2)


def draw_level(axes: Axes, y: float, text: str, ls: str, right: bool) -> None:
    """A horizontal line with a text at one of its ends: below it at the right, as losses fall, or above it at the left."""
    axes.axhline(y, color=GREY, lw=0.9, ls=ls)
    axes.annotate(
        text, (0.99 if right else 0.01, y), (0, -2 if right else 1.5), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        fontsize=8, ha="right" if right else "left", va="top" if right else "bottom", color=GREY,
    )  # fmt: skip


def margin_text(axes: Axes, y: float, text: str, left: bool, **look: Any) -> None:
    """A text in the margin at the left or at the right of the axes."""
    place = {"x": -0.01, "ha": "right"} if left else {"x": 1.01, "ha": "left"}
    axes.text(y=y, s=text, transform=axes.get_yaxis_transform(), fontsize=8.5, va="center", **place, **look)


def forest_axes(axes: Axes, lines: int, xlabel: str) -> None:
    """Set up a forest plot: lines 0, 1, ... from the top down, and a grid for the values."""
    axes.set(ylim=(lines - 0.5, -0.5), yticks=[], xlabel=xlabel)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, lw=0.6, zorder=0)


def diagonals(panels: Sequence[Axes]) -> None:
    """Square panels of shares against shares, with the line on which both are equal."""
    for axes in panels:
        axes.plot([0, 1], [0, 1], "--", color=GREY, lw=0.9, zorder=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def coverage(histogram: Sequence[float]) -> tuple[list[float], list[float]]:
    """Levels of central intervals, and the shares of what was observed in them, from a PIT histogram."""
    half = len(histogram) // 2
    levels = [2 * n / len(histogram) for n in range(half + 1)]
    return levels, [sum(histogram[half - n : half + n]) for n in range(half + 1)]
