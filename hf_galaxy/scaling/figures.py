"""The figures of a study of scaling, drawn from scaling.json (`study.study_of`), each with its numbers (`figure_data`) as CSV.

A backbone has the same colour and marker in all figures of a study, and the marker is filled, or hollow, by its start.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hf_galaxy.errors import BadInput
from hf_galaxy.reports import charts
from hf_galaxy.reports.charts import Figure
from hf_galaxy.reports.measures import ALL, MEASURES
from hf_galaxy.reports.text import interval, number, percent, truncated
from hf_galaxy.scaling.convergence import is_converged
from hf_galaxy.scaling.figure_data import (
    Row,
    by_figure,
    curve_rows,
    exponent_rows,
    frontier_in,
    is_constrained,
    joint_rows,
    laws_to_show,
    loss_axis,
    map_range,
    pages_of,
    size_rows,
    with_ends,
)
from hf_galaxy.scaling.length_figure import length_figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D

PANELS, ROWS = 12, 72  # of one picture: small panels; lines of a forest plot
NAMED = 10  # largest number of models whose names are written beside their points
LAW, PLAIN, JOINT = "c + a D⁻ᵇ", "a D⁻ᵇ", "E + A N⁻ᵅ + B D⁻ᵝ"
GALAXIES, PARAMETERS = "training galaxies (D)", "parameters of the model (N)"
UNCONSTRAINED = "not constrained"
STATED = 2  # statements of an alternative text

KINDS = ("lengths-", "curves-", "exponents-", "parameters-", "joint-")  # beginnings of the names of figures of a study


class Style(NamedTuple):
    """The look of one backbone and start in all figures, and its name in legends."""

    color: str
    marker: str
    fill: str
    name: str


def figures_of(study: Row) -> list[Figure]:
    """All figures that a study has data for, in the order in which a page shows them.

    For each measure: `curves-*` of the loss against galaxies, `exponents-*` of its laws, `parameters-*` of the loss against
    the size of the model, and `joint-*`, the law over both. Names end in the measure, those of single questions in
    `-questions`, and in a number where one picture cannot hold them all. Trainings that have not converged are
    drawn without laws. `lengths-*` show the loss against the length of training.

    Raises:
        BadInput: the study is of several datasets.
    """
    if len(study["data"]["datasets"]) > 1:
        raise BadInput(f"figures are of one dataset; the study is of {study['data']['datasets']}: make one of each")
    measures = dict.fromkeys(law["measure"] for law in study["laws"])
    with charts.style():
        laws = [figure for measure in measures for figure in _figures_of_measure(study, measure)]
    return [*laws, *length_figures(study)]


def _figures_of_measure(study: Row, measure: str) -> Iterator[Figure]:
    laws = [law for law in laws_to_show(study) if law["measure"] == measure]
    whole = [law for law in laws if law["figure"] == ALL]
    questions = pages_of(f"{measure}-questions", [law for law in laws if law["figure"] != ALL], PANELS)
    pages = ({measure: whole} if whole else {}) | questions
    yield from (_curves(f"curves-{name}", study, page) for name, page in pages.items())

    fitted = [law for law in laws if law["law"]]
    lines = 1 + max(map(len, by_figure(fitted).values()), default=0)
    forests = pages_of(measure, fitted, max(1, ROWS // lines))
    yield from (_exponents(f"exponents-{name}", study, exponent_rows(study, page)) for name, page in forests.items())

    sizes = {name: size_rows(study, page) for name, page in pages.items()}
    for name, rows in sizes.items():
        if len({row["backbone"] for row in rows}) > 1:
            yield _parameters(f"parameters-{name}", study, rows)

    joint = [law for law in study["joint"] if law["measure"] == measure and law["figure"] == ALL]
    for law in joint if is_converged(study) else ():
        start = f"-{law['start']}" if len(joint) > 1 else ""
        yield _joint(f"joint-{measure}{start}", law)


def styles_of(study: Row) -> dict[tuple[str, str], Style]:
    """(backbone, start) -> its look."""
    return _styles(list(study["data"]["backbones"]), study["data"]["starts"], charts.COLORS)


def _family_styles(study: Row) -> dict[tuple[str, str], Style]:
    """(family, start) -> its look; colours from the other end, as those of families are not those of backbones."""
    families = list(dict.fromkeys(each["family"] for each in study["data"]["backbones"].values()))
    return _styles(families, study["data"]["starts"], charts.COLORS[::-1])


def _styles(names: Sequence[str], starts: Sequence[str], colors: Sequence[str]) -> dict[tuple[str, str], Style]:
    markers, fills = charts.MARKERS, charts.FILLS
    return {
        (name, start): Style(
            colors[i % len(colors)], markers[i % len(markers)], fills[k % len(fills)],
            f"{name}, {start}" if len(starts) > 1 else name,
        )
        for i, name in enumerate(names)
        for k, start in enumerate(starts)
    }  # fmt: skip


def panel_titles(questions: Iterable[str]) -> list[str | None]:
    """The questions; no title for all of them together."""
    return [None if question == ALL else question for question in questions]


def _shortened(words: Sequence[str]) -> str:
    """The first two statements of an alternative text, which is a line or two, and how many more the table of the figure holds."""
    more = len(words) - STATED
    return " ".join(words[:STATED]) + (f" {more} more in the table of the figure." if more > 0 else "")


# Loss against galaxies


def _curves(name: str, study: Row, laws: list[Row]) -> Figure:
    groups, styles, measure = by_figure(laws), styles_of(study), MEASURES[laws[0]["measure"]]
    figure, panels = charts.chart(len(groups))
    large = len(panels) == 1
    words = []
    for axes, group in zip(panels, groups.values(), strict=True):
        draw_laws(axes, group, styles, large)
        best = min(group, key=lambda law: law["points"][-1]["value"])
        words += [_curve_in_words(law, styles) for law in (group if large else [best])]
    charts.label_axes(figure, panels, panel_titles(groups), GALAXIES, measure)
    rows = [row for group in groups.values() for row in curve_rows(group)]
    alt = f"{measure} against training galaxies, both logarithmic. {_shortened(words)}"
    picture = charts.png(figure, "Loss against training galaxies", _curve_legend(laws, styles))
    return Figure(name, picture, charts.csv_text(rows), alt)


def _curve_legend(laws: list[Row], styles: Mapping[tuple[str, str], Style]) -> list[Line2D]:
    handles, line = [], "-" if any(law["law"] for law in laws) else "none"
    for each in dict.fromkeys((law["backbone"], law["start"]) for law in laws):
        color, marker, fill, name = styles[each]
        handles.append(charts.handle(name, color, marker=marker, fillstyle=fill, ls=line))
    if any(len(point["runs"]) > 1 for law in laws for point in law["points"]):
        handles.append(charts.handle("mean of runs, 90 %", charts.GREY, marker="o", ls="-", lw=1))
        handles.append(charts.handle("single run", charts.GREY, marker="o", ms=2.5, alpha=0.5))
    if any(law["law"] for law in laws):
        handles += [
            charts.handle(f"law {LAW}, 90 % band", charts.GREY, ls="-"),
            charts.handle("beyond the data", charts.GREY, ls="--"),
        ]
    if any(law["plain"] for law in laws):
        handles.append(charts.handle(f"plain law {PLAIN}", charts.GREY, ls=":", lw=1))
    return handles


def draw_laws(axes: Axes, group: list[Row], styles: Mapping[tuple[str, str], Style], large: bool) -> None:
    """The laws of one figure (question) and one measure, their points, and the baseline where there is room for it.

    Args:
        axes: of matplotlib, which become logarithmic.
        group: laws of a study, which differ in backbone and start only.
        styles: as `styles_of` returns them.
        large: large lines and markers, for a panel that stands alone.
    """
    for law in group:
        color, marker, fill, _ = styles[law["backbone"], law["start"]]
        if law["plain"]:
            curve = law["plain"]["curve"]
            axes.plot(curve["galaxies"], curve["loss"], ":", color=color, lw=0.9)
        if law["law"]:
            charts.draw_curve_with_band(axes, law["law"]["curve"], law["law"]["range"][1], color, 1.6 if large else 1.1)
        galaxies = [point["galaxies"] for point in law["points"]]
        charts.draw_points(axes, galaxies, law["points"], color, marker, fill, 6 if large else 4)
    low, high, levels = loss_axis(group)
    for level, value in levels.items():
        charts.draw_level(axes, value, level, "-.", right=level == "baseline")
    sizes = [point["galaxies"] for law in group for point in law["points"]]
    sizes += [law["law"]["curve"]["galaxies"][-1] for law in group if law["law"]]
    charts.log_axis(axes.xaxis, min(sizes) / 1.25, max(sizes) * 1.25)
    charts.log_axis(axes.yaxis, low, high)


def _curve_in_words(law: Row, styles: Mapping[tuple[str, str], Style]) -> str:
    point, name = law["points"][-1], styles[law["backbone"], law["start"]].name
    words = f"{law['figure']}, {name}: {interval(point)} with {point['galaxies']:,} galaxies"
    if law["law"]:
        words += f", exponent b {interval(law['law']['b'])}{'' if is_constrained(law) else f' ({UNCONSTRAINED})'}"
    return f"{words}."


# Exponents


def _exponents(name: str, study: Row, rows: list[Row]) -> Figure:
    groups, styles, measure = by_figure(rows), styles_of(study), MEASURES[rows[0]["measure"]]
    lines = len(rows) + len(groups)
    figure, (axes,) = charts.chart(1, height=0.165 * lines + 0.6)
    top, words = 0, []
    for i, (question, group) in enumerate(groups.items()):
        if i % 2 == 0:
            axes.axhspan(top - 0.5, top + len(group) + 0.5, color=charts.STRIPE, lw=0, zorder=0)
        charts.margin_text(axes, top, truncated(question, 36), left=True, weight="bold")
        _draw_common_exponents(axes, top, group)
        for y, row in enumerate(group, top + 1):
            _draw_exponent(axes, y, row, styles[row["backbone"], row["start"]])
            unsure = "" if row["pinned_down"] else f" ({UNCONSTRAINED})"
            words.append(f"{question}, {styles[row['backbone'], row['start']].name}: {_exponent(row)}{unsure}.")
        top += len(group) + 1
    charts.forest_axes(axes, lines, "b: a doubling of galaxies leaves 2⁻ᵇ of the loss above c")
    charts.log_axis(
        axes.xaxis, *charts.limits([row[key] for row in rows for key in ("b", "low", "high", "common") if row[key]])
    )
    handles = [charts.handle("exponent, 90 %", charts.GREY, marker="o", ls="-")]
    if not all(row["pinned_down"] for row in rows):
        handles.append(charts.handle("not constrained by the data", charts.LIGHT_GREY, marker="o", mfc="white", ls=":"))
    if any(row["common"] for row in rows):
        means = "common to all backbones; p: probability of such differences if all were equal, adjusted"
        handles.append(charts.handle(means, "black", ls="--", lw=1.2))
    picture = charts.png(figure, f"Exponents b of {LAW}: {measure}", handles)
    return Figure(name, picture, charts.csv_text(rows), f"Exponents b of {LAW}, {measure}. {_shortened(words)}")


def _draw_common_exponents(axes: Axes, top: int, group: list[Row]) -> None:
    """The exponent that all backbones would share, of each start, as a line beside its exponents below the line `top`."""
    means = {}
    for start in dict.fromkeys(row["start"] for row in group if row["common"]):
        lines = [top + k for k, row in enumerate(group, 1) if row["start"] == start]
        row = group[lines[0] - top - 1]
        axes.plot([row["common"]] * 2, [lines[0] - 0.4, lines[-1] + 0.4], color="black", lw=1.2, ls="--")
        means[start] = f"{number(row['common'])}, p = {row['p']:.2g}"
    if means:
        charts.margin_text(axes, top, f"common {'; '.join(means.values())}", left=False, color=charts.GREY)


def _draw_exponent(axes: Axes, y: int, row: Row, look: Style) -> None:
    sure = row["pinned_down"]
    color = look.color if sure else charts.LIGHT_GREY
    axes.plot([row["low"], row["high"]], [y, y], "-" if sure else ":", color=color, lw=1.4)
    axes.plot([row["b"]], [y], look.marker, color=color, mfc=color if sure else "white", ms=5.5)
    charts.margin_text(axes, y, truncated(look.name, 40), left=True)
    charts.margin_text(axes, y, _exponent(row), left=False)


def _exponent(row: Row) -> str:
    return interval(row | {"value": row["b"]})


# Loss against parameters


def _parameters(name: str, study: Row, rows: list[Row]) -> Figure:
    groups, measure = by_figure(rows), MEASURES[rows[0]["measure"]]
    styles = _family_styles(study)
    figure, panels = charts.chart(len(groups))
    for axes, group in zip(panels, groups.values(), strict=True):
        _draw_sizes(axes, group, styles, named=len(panels) == 1 and len(group) <= NAMED)
    charts.label_axes(figure, panels, panel_titles(groups), PARAMETERS, measure)

    handles = []
    for each in dict.fromkeys((row["family"], row["start"]) for row in rows):
        color, marker, fill, title = styles[each]
        handles.append(charts.handle(title, color, marker=marker, fillstyle=fill))
    changed = [row for row in rows if row["smaller"]]
    if changed:
        handles += [
            charts.handle("significant change (90 %)", charts.GREY, ls="-"),
            charts.handle("not shown, or not known", charts.GREY, ls=":"),
        ]
    most = max(row["galaxies"] for row in rows)
    words = [f"{row['figure']}: {row['backbone']} instead of {row['smaller']}, {_change(row)}." for row in changed]
    words = words or [f"{row['figure']}, {row['backbone']}: {number(row['loss'])}." for row in rows]
    picture = charts.png(figure, f"Loss against the size of the model, with {most:,} galaxies", handles)
    alt = f"{measure} against parameters with {most:,} galaxies. {_shortened(words)}"
    return Figure(name, picture, charts.csv_text(rows), alt)


def _draw_sizes(axes: Axes, group: list[Row], styles: Mapping[tuple[str, str], Style], named: bool) -> None:
    """The models of one panel, with lines between neighbours of a family, and their names."""
    low, high = with_ends(charts.limits([row["loss"] for row in group]), group)
    by_name = {(row["start"], row["backbone"]): row for row in group}
    families = list(dict.fromkeys(family for family, _ in styles))
    for row in group:
        color, marker, fill, _ = styles[row["family"], row["start"]]
        charts.draw_points(axes, [row["parameters"]], [row | {"value": row["loss"]}], color, marker, fill)
        # Names are below the points of every other family, since models of two families may be alike in size and loss; a change
        # is on the other side of its line.
        end, offset, side = (("high", 7, "top"), ("low", -14, "bottom"))[families.index(row["family"]) % 2]
        if row["smaller"]:
            # In small panels, whose points are close together, the line alone shows the verdict.
            text = _change(row) if named else _change(row).rpartition(": ")[2]
            _draw_step(axes, by_name[row["start"], row["smaller"]], row, color, text, side)
        if named:
            axes.annotate(
                row["backbone"], (row["parameters"], np.clip(row[end] or row["loss"], low, high)), (0, offset),
                textcoords="offset points", ha="center", fontsize=8, zorder=3.5, bbox=charts.TEXT_BOX,
            )  # fmt: skip
    sizes = [row["parameters"] for row in group]
    charts.log_axis(axes.xaxis, *charts.limits([min(sizes) / 1.6, max(sizes) * 1.6], 0.1))
    charts.log_axis(axes.yaxis, *charts.limits([low, high], 0.12))


def _draw_step(axes: Axes, small: Row, large: Row, color: str, text: str, side: str) -> None:
    """A line from the smaller model of a family to the larger, with a text whose `side` ("top" or "bottom") is at the line."""
    ends = np.array([[row["parameters"], row["loss"]] for row in (small, large)])
    axes.plot(*ends.T, "-" if large["verdict"] in ("less", "more") else ":", color=color, lw=1.3, zorder=2)
    place = ends[0] ** 0.65 * ends[1] ** 0.35  # not in the middle, where a model of another family may be
    axes.annotate(
        text, place, (0, {"top": -7, "bottom": 7}[side]), textcoords="offset points",
        fontsize=7.5, ha="center", va=side, zorder=3.5, bbox=charts.TEXT_BOX,
    )  # fmt: skip


def _change(row: Row) -> str:
    return row["verdict"] + ("" if row["relative"] is None else f": {percent(row['relative'], '+')}")


# Loss against both


def _joint(name: str, law: Row) -> Figure:
    figure, (axes,) = charts.chart(1, height=5)
    _draw_map(figure, axes, law)
    handles = [
        charts.handle(f"law {JOINT}", "black", ls="-", lw=0.7),
        charts.handle("measured, in the colour of its loss", "black", marker="o", mfc="white", ms=8),
    ]
    if law["frontier"]:
        frontier = frontier_in(law)
        line = frontier[["parameters", "galaxies"]].to_numpy().T
        axes.plot(*line, color="white", lw=4.5, zorder=3)
        axes.plot(*line, color=charts.COLORS[1], lw=2.5, ls="--", zorder=3)
        outside = "" if len(frontier) else "outside of this map: "
        handles.append(
            charts.handle(f"{outside}least loss of all with the same N · D", charts.COLORS[1], ls="--", lw=2.5)
        )
    charts.log_axis(axes.xaxis, *map_range(law, "parameters"))
    charts.log_axis(axes.yaxis, *map_range(law, "galaxies"))
    axes.set(xlabel=PARAMETERS, ylabel=GALAXIES)
    doubts = "; ".join(doubt.split(",")[0].split(" (")[0] for doubt in law["doubts"])
    doubts = f"Not constrained by the data: {doubts}" if doubts else ""
    axes.set_title(textwrap.fill(doubts, 100), loc="left")
    measure = MEASURES[law["measure"]]
    title = f"{measure[0].upper()}{measure[1:]} over models and galaxies"
    words = ", ".join(f"{key} {interval(law[key])}" for key in ("E", "alpha", "beta"))
    alt = f"{title}: the law {JOINT} with {words}. {doubts}".strip()
    return Figure(name, charts.png(figure, title, handles), charts.csv_text(joint_rows(law)), alt)


def _draw_map(figure: Canvas, axes: Axes, law: Row) -> None:
    """Contours of the law, and the measured losses as circles in the same colours."""
    from matplotlib.colors import BoundaryNorm

    e, a, alpha, b, beta = (law[key]["value"] for key in ("E", "A", "alpha", "B", "beta"))
    n, d = np.meshgrid(*(np.geomspace(*map_range(law, key), 120) for key in ("parameters", "galaxies")))
    loss = e + a * n**-alpha + b * d**-beta
    x, y, measured = ([point[key] for point in law["points"]] for key in ("parameters", "galaxies", "loss"))
    levels = _contour_levels(e, np.append(loss, measured))
    colors = {"cmap": "YlGnBu", "norm": BoundaryNorm(levels, 256)}
    filled = axes.contourf(n, d, loss, levels, **colors)
    if crossed := [level for level in levels if loss.min() < level < loss.max()]:
        axes.contour(n, d, loss, crossed, colors="black", linewidths=0.7)
    scale = figure.colorbar(filled, ax=axes, ticks=levels[1:-1], aspect=30, pad=0.02)
    scale.ax.set_yticklabels([number(level) for level in levels[1:-1]])
    axes.scatter(x, y, c="white", s=130, linewidths=0, zorder=4)  # or a point would vanish where the law is exact
    axes.scatter(x, y, c=measured, **colors, s=70, edgecolors="black", linewidths=1, zorder=5)
    gaps = np.diff(np.log(sorted(set(x))))
    if gaps.min() > 0.08 * np.log(n.max() / n.min()):
        for place, value in zip(zip(x, y, strict=True), measured, strict=True):
            axes.annotate(
                number(value), place, (9, 0), textcoords="offset points", fontsize=7.5, va="center", zorder=5, bbox=charts.TEXT_BOX,
            )  # fmt: skip


def _contour_levels(end: float, losses: np.ndarray) -> list[float]:
    """Contours in equal steps of the logarithm of the loss above the end, to which it falls."""
    low, high = losses.min(), losses.max()
    most = max(high - end, 0.001 * high)
    inner = {float(f"{level:.3g}") for level in end + np.geomspace(max(low - end, 0.02 * most), most, 10)[1:-1]}
    return [0.99 * low, *sorted(level for level in inner if low < level < high), 1.01 * high]
