"""Figures of a study of scaling, each with the table of the numbers in it.

All is drawn from what `study.study_of` returns, that is from scaling.json. A backbone has the same colour and marker in all
figures of a study, and the marker is filled, or hollow, after what it started from.
"""

import textwrap

import numpy as np
import pandas as pd

from hf_galaxy.errors import BadInput
from hf_galaxy.reports.charts import (
    COLORS,
    FILLS,
    LABEL,
    MARKERS,
    PALE,
    QUIET,
    Figure,
    beside,
    chart,
    csv_text,
    draw_law,
    draw_level,
    draw_point,
    handle,
    label,
    limits,
    log_axis,
    png,
    style,
)
from hf_galaxy.reports.text import figure_interval, figure_number, shortened
from hf_galaxy.scaling.laws import EXPONENT, FALLS
from hf_galaxy.scaling.points import ALL, MEASURES

PANELS, ROWS = 12, 72  # of one picture: small panels; lines of a forest plot
NAMED = 10  # models whose names have room beside their points
BEYOND = 1.6  # how far outside of what was measured a joint law is drawn
LAW, PLAIN, JOINT = "c + a D⁻ᵇ", "a D⁻ᵇ", "E + A N⁻ᵅ + B D⁻ᵝ"
ABOUT = ["start", "backbone", "measure", "figure"]
GALAXIES, PARAMETERS = "galaxies learnt from (D)", "parameters of the model (N)"

KINDS = ("curves-", "exponents-", "parameters-", "joint-")  # as the names of figures of a study begin


def figures_of(study: dict) -> list[Figure]:
    """All figures that a study has data for, in the order in which a page shows them.

    For each measure: `curves-*` of the loss against galaxies, `exponents-*` of its laws, `parameters-*` of the loss against
    the size of the model, and `joint-*`, the law over both. Names end in the measure, those of single questions in
    `-questions`, and in a number where one picture cannot hold them all.

    Raises:
        BadInput: the study is of several datasets.
    """
    if len(study["data"]["datasets"]) > 1:
        raise BadInput(f"figures are of one dataset; the study is of {study['data']['datasets']}: make one of each")
    figures = []
    with style():
        for measure in dict.fromkeys(law["measure"] for law in study["laws"]):
            laws = [law for law in study["laws"] if law["measure"] == measure]
            whole = [law for law in laws if law["figure"] == ALL]
            questions = _pages(f"{measure}-questions", [law for law in laws if law["figure"] != ALL], PANELS)
            pages = ({measure: whole} if whole else {}) | questions
            figures += [_curves(f"curves-{name}", study, page) for name, page in pages.items()]
            fitted = [law for law in laws if law["law"]]
            lines = 1 + max(map(len, _by_figure(fitted).values()), default=0)
            forests = _pages(measure, fitted, max(1, ROWS // lines))
            figures += [_exponents(f"exponents-{name}", study, page) for name, page in forests.items()]
            sizes = {name: _sizes(study, page) for name, page in pages.items()}
            figures += [
                _parameters(f"parameters-{name}", study, rows)
                for name, rows in sizes.items()
                if len({row["backbone"] for row in rows}) > 1
            ]
            joint = [law for law in study["joint"] if law["measure"] == measure and law["figure"] == ALL]
            for law in joint:
                start = f"-{law['start']}" if len(joint) > 1 else ""
                figures.append(_joint(f"joint-{measure}{start}", law))
    return figures


def _pages(name, laws, most):
    """The laws of each picture, by its name; no more than so many figures (questions) in each."""
    groups = _by_figure(laws)
    parts = np.array_split(list(groups), -(-len(groups) // most)) if groups else []
    names = [f"{name}-{i}" for i in range(1, len(parts) + 1)] if len(parts) > 1 else [name]
    return dict(zip(names, ([law for each in part for law in groups[each]] for part in parts), strict=bool(parts)))


def _by_figure(laws):
    groups = {}
    for law in laws:
        groups.setdefault(law["figure"], []).append(law)
    return groups


def looks_of(study: dict) -> dict[tuple[str, str], tuple[str, str, str, str]]:
    """(backbone, start) -> colour, marker, how it is filled, and what it is called."""
    starts = study["data"]["starts"]
    return {
        (backbone, start): (
            COLORS[i % len(COLORS)],
            MARKERS[i % len(MARKERS)],
            FILLS[k % len(FILLS)],
            f"{backbone}, {start}" if len(starts) > 1 else backbone,
        )
        for i, backbone in enumerate(study["data"]["backbones"])
        for k, start in enumerate(starts)
    }


def panel_titles(questions):
    return [None if question == ALL else question for question in questions]


# Loss against galaxies


def _curves(name, study, laws):
    groups, looks = _by_figure(laws), looks_of(study)
    figure, panels = chart(len(groups))
    large = len(panels) == 1
    rows, words = [], []
    for axes, (question, group) in zip(panels, groups.items(), strict=True):
        levels = draw_laws(axes, group, looks, large)
        rows += [{key: law[key] for key in ABOUT} | row for law in group for row in _curve_rows(law)]
        about = {"measure": group[0]["measure"], "figure": question}
        rows += [about | {"kind": level, "loss": value} for level, value in levels.items()]
        best = min(group, key=lambda law: law["points"][-1]["value"])
        words += [_last_of(law, looks) for law in (group if large else [best])]

    handles = []
    for each in dict.fromkeys((law["backbone"], law["start"]) for law in laws):
        color, marker, fill, called = looks[each]
        handles.append(handle(called, color, marker=marker, fillstyle=fill, ls="-"))
    if any(len(point["runs"]) > 1 for law in laws for point in law["points"]):
        handles.append(handle("mean of runs, 90 %", QUIET, marker="o", ls="-", lw=1))
        handles.append(handle("single run", QUIET, marker="o", ms=2.5, alpha=0.5))
    if any(law["law"] for law in laws):
        handles += [handle(f"law {LAW}, 90 % band", QUIET, ls="-"), handle("beyond the data", QUIET, ls="--")]
    if any(law["plain"] for law in laws):
        handles.append(handle(f"plain law {PLAIN}", QUIET, ls=":", lw=1))
    measure = MEASURES[laws[0]["measure"]]
    label(figure, panels, panel_titles(groups), GALAXIES, measure)
    alt = f"{measure} against galaxies learnt from, both logarithmic. {' '.join(words)}"
    return Figure(name, png(figure, "Loss against galaxies learnt from", handles), csv_text(rows), alt)


def draw_laws(axes, group: list[dict], looks: dict, large: bool) -> dict[str, float]:
    """The laws of one figure (question) on one measure, what was measured, and the baseline where there is room for it.

    Args:
        axes: of matplotlib, which become logarithmic.
        group: laws of a study, which differ in backbone and start only.
        looks: as `looks_of` gives them.
        large: lines and markers, for a panel that stands alone.

    Returns:
        The levels that are drawn, by name.
    """
    for law in group:
        color, marker, fill, _ = looks[law["backbone"], law["start"]]
        if law["plain"]:
            curve = law["plain"]["curve"]
            axes.plot(curve["galaxies"], curve["loss"], ":", color=color, lw=0.9)
        if law["law"]:
            draw_law(axes, law["law"]["curve"], law["law"]["range"][1], color, 1.6 if large else 1.1)
        for point in law["points"]:
            draw_point(axes, point["galaxies"], point, color, marker, fill, 6 if large else 4)
    low, high, levels = _losses_shown(group)
    for level, value in levels.items():
        draw_level(axes, value, level, "-.", right=level == "baseline")
    sizes = [point["galaxies"] for law in group for point in law["points"]]
    sizes += [law["law"]["curve"]["galaxies"][-1] for law in group if law["law"]]
    log_axis(axes.xaxis, min(sizes) / 1.25, max(sizes) * 1.25)
    log_axis(axes.yaxis, low, high)
    return levels


def _curve_rows(law):
    yield from point_rows(law["points"])
    for kind, fit in (("law", law["law"]), ("plain law", law["plain"])):
        if fit:
            # The plain law is drawn without its band.
            shown = ("galaxies", "loss", "low", "high") if kind == "law" else ("galaxies", "loss")
            yield from pd.DataFrame({"kind": kind} | {key: fit["curve"][key] for key in shown}).to_dict("records")


def point_rows(points):
    for point in points:
        yield from ({"kind": "run", "galaxies": point["galaxies"], "loss": run} for run in point["runs"])
        mean = {"kind": "mean", "galaxies": point["galaxies"], "loss": point["value"]}
        yield mean | {"low": point["low"], "high": point["high"]}


def _losses_shown(group):
    """Limits of the axis of losses; and the baseline, where it does not squeeze all else."""
    values = [run for law in group for point in law["points"] for run in point["runs"]]
    values += [loss for law in group if law["law"] for loss in law["law"]["curve"]["loss"]]
    low, high = _with_ends(limits(values), [point for law in group for point in law["points"]])
    room = max(high / low, 1.2) ** 0.6
    levels = {"baseline": group[0]["baseline"]}
    levels = {name: value for name, value in levels.items() if value and low / room <= value <= high * room}
    return *limits([low, high, *levels.values()], 0.03 if levels else 0), levels


def _with_ends(shown, points):
    """Limits that show the intervals of points, too; but one of few runs may be far wider than all that was measured."""
    ends = [point[end] for point in points for end in ("low", "high") if point[end] is not None]
    return limits([*shown, *np.clip(ends, shown[0] / 1.3, shown[1] * 1.3)], 0)


def _last_of(law, looks):
    point = law["points"][-1]
    called = looks[law["backbone"], law["start"]][-1]
    words = f"{law['figure']}, {called}: {figure_interval(point)} with {point['galaxies']:,} galaxies"
    if law["law"]:
        words += f", exponent b {figure_interval(law['law']['b'])}{'' if _pinned_down(law) else ' (not pinned down)'}"
    return f"{words}."


# Exponents


def _exponents(name, study, laws):
    groups, looks, measure = _by_figure(laws), looks_of(study), MEASURES[laws[0]["measure"]]
    figure, (axes,) = chart(1, height=0.165 * (len(laws) + len(groups)) + 0.6)
    common = {
        (each["figure"], each["start"]): each
        for each in study["exponents"]
        if (each["across"], each["fit"], each["measure"]) == ("backbone", "law", laws[0]["measure"])
    }
    y, rows, words = 0, [], []
    for i, (question, group) in enumerate(groups.items()):
        if i % 2 == 0:
            axes.axhspan(y - 0.5, y + len(group) + 0.5, color="#F1F1F1", lw=0, zorder=0)
        beside(axes, y, shortened(question, 36), left=True, weight="bold")
        group = sorted(group, key=lambda law: study["data"]["starts"].index(law["start"]))
        means = {}
        for start in dict.fromkeys(law["start"] for law in group):
            if mean := common.get((question, start)):
                lines = [y + k for k, law in enumerate(group, 1) if law["start"] == start]
                axes.plot([mean["mean"]] * 2, [lines[0] - 0.4, lines[-1] + 0.4], color="black", lw=1.2, ls="--")
                means[start] = f"{figure_number(mean['mean'])}, p = {mean['p']:.2g}"
        if means:
            beside(axes, y, f"common {'; '.join(means.values())}", left=False, color=QUIET)
        for y, law in enumerate(group, y + 1):  # noqa: B020
            b, sure = law["law"]["b"], _pinned_down(law)
            color, marker, _, called = looks[law["backbone"], law["start"]]
            color = color if sure else PALE
            axes.plot([b["low"], b["high"]], [y, y], "-" if sure else ":", color=color, lw=1.4)
            axes.plot([b["value"]], [y], marker, color=color, mfc=color if sure else "white", ms=5.5)
            beside(axes, y, shortened(called, 40), left=True)
            beside(axes, y, figure_interval(b), left=False)
            mean = common.get((question, law["start"]), {"mean": None, "p": None})
            row = {"b": b["value"], "low": b["low"], "high": b["high"], "pinned_down": sure}
            rows.append({key: law[key] for key in ABOUT} | row | {"common": mean["mean"], "p": mean["p"]})
            words.append(f"{question}, {called}: {figure_interval(b)}{'' if sure else ' (not pinned down)'}.")
        y += 1
    axes.set(ylim=(y - 0.5, -0.5), yticks=[], xlabel="b: a doubling of galaxies leaves 2⁻ᵇ of what lies above c")
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="#DDDDDD", lw=0.6, zorder=0)
    log_axis(axes.xaxis, *limits([row[key] for row in rows for key in ("b", "low", "high", "common") if row[key]]))
    handles = [handle("exponent, 90 %", QUIET, marker="o", ls="-")]
    if not all(row["pinned_down"] for row in rows):
        handles.append(handle("not pinned down by the data", PALE, marker="o", mfc="white", ls=":"))
    if common:
        means = "common to all backbones; p: chance of such differences if all were equal"
        handles.append(handle(means, "black", ls="--", lw=1.2))
    picture = png(figure, f"Exponents b of {LAW}: {measure}", handles)
    return Figure(name, picture, csv_text(rows), f"Exponents b of {LAW}, {measure}. {' '.join(words)}")


def _pinned_down(law):
    """Whether the data tell the exponent; what is left at the end is another question."""
    return not any(doubt.startswith((FALLS, EXPONENT)) for doubt in law["law"]["doubts"])


# Loss against parameters


def _sizes(study, laws):
    """What was measured with the most galaxies; and what a larger model brought, beside the next smaller of its family."""
    steps = {tuple(step[key] for key in ("start", "large", "measure", "figure")): step for step in study["parameters"]}
    rows = []
    for law in sorted(laws, key=lambda law: law["parameters"]):
        alike = [other for other in laws if (other["figure"], other["start"]) == (law["figure"], law["start"])]
        point = law["points"][-1]
        if point["galaxies"] < max(other["points"][-1]["galaxies"] for other in alike):
            continue
        row = {key: law[key] for key in (*ABOUT, "family", "parameters")}
        row |= {"galaxies": point["galaxies"], "loss": point["value"], "low": point["low"], "high": point["high"]}
        step = steps.get(tuple(law[key] for key in ABOUT), {})
        names = {"smaller": "small", "change": "value", "change_low": "low", "change_high": "high"}
        names |= {"verdict": "loss"}
        relative = (step.get("relative") or {}).get("value")
        rows.append(row | {new: step.get(old) for new, old in names.items()} | {"relative": relative})
    return [row for question in _by_figure(laws) for row in rows if row["figure"] == question]


def _parameters(name, study, rows):
    groups, measure = _by_figure(rows), MEASURES[rows[0]["measure"]]
    families = list(dict.fromkeys(each["family"] for each in study["data"]["backbones"].values()))
    starts = study["data"]["starts"]

    def look(row):
        # From the other end, as colours of families are not those of backbones.
        i, k = families.index(row["family"]), starts.index(row["start"])
        return COLORS[-1 - i % len(COLORS)], MARKERS[i % len(MARKERS)], FILLS[k % len(FILLS)]

    figure, panels = chart(len(groups))
    for axes, group in zip(panels, groups.values(), strict=True):
        low, high = _with_ends(limits([row["loss"] for row in group]), group)
        by_name = {(row["start"], row["backbone"]): row for row in group}
        for row in group:
            draw_point(axes, row["parameters"], {"value": row["loss"], "runs": []} | row, *look(row), 6)
            if row["smaller"]:
                _draw_step(axes, by_name[row["start"], row["smaller"]], row, look(row)[0])
            if len(panels) == 1 and len(group) <= NAMED:
                # Of every other family below, since models of two families may be alike in size and loss.
                end, away = (("high", 7), ("low", -14))[families.index(row["family"]) % 2]
                axes.annotate(
                    row["backbone"], (row["parameters"], np.clip(row[end] or row["loss"], low, high)), (0, away),
                    textcoords="offset points", ha="center", fontsize=8, zorder=3.5, bbox=LABEL,
                )  # fmt: skip
        sizes = [row["parameters"] for row in group]
        log_axis(axes.xaxis, *limits([min(sizes) / 1.6, max(sizes) * 1.6], 0.1))
        log_axis(axes.yaxis, *limits([low, high], 0.12))
    label(figure, panels, panel_titles(groups), PARAMETERS, measure)

    handles = []
    for family, start in dict.fromkeys((row["family"], row["start"]) for row in rows):
        color, marker, fill = look({"family": family, "start": start})
        handles.append(
            handle(f"{family}, {start}" if len(starts) > 1 else family, color, marker=marker, fillstyle=fill)
        )
    changed = [row for row in rows if row["smaller"]]
    if changed:
        handles += [handle("change shown (90 %)", QUIET, ls="-"), handle("not shown, or not known", QUIET, ls=":")]
    most = max(row["galaxies"] for row in rows)
    words = [f"{row['figure']}: {row['backbone']} instead of {row['smaller']}, {_verdict(row)}." for row in changed]
    words = words or [f"{row['figure']}, {row['backbone']}: {figure_number(row['loss'])}." for row in rows]
    picture = png(figure, f"Loss against the size of the model, with {most:,} galaxies", handles)
    alt = f"{measure} against parameters with {most:,} galaxies. {' '.join(words)}"
    return Figure(name, picture, csv_text(rows), alt)


def _draw_step(axes, small, large, color):
    """From the smaller model of a family to the larger, and what that brought."""
    ends = np.array([[row["parameters"], row["loss"]] for row in (small, large)])
    axes.plot(*ends.T, "-" if large["verdict"] in ("less", "more") else ":", color=color, lw=1.3, zorder=2)
    axes.text(
        *ends.prod(axis=0) ** 0.5, _verdict(large), fontsize=7.5, ha="center", va="center", zorder=3.5, bbox=LABEL
    )


def _verdict(row):
    change = "" if row["relative"] is None else f": {100 * row['relative']:+.1f} %".replace("-", "−")  # noqa: RUF001
    return f"{row['verdict']}{change}"


# Loss against both


def _joint(name, law):
    from matplotlib.colors import BoundaryNorm

    measured, measure = pd.DataFrame(law["points"]), MEASURES[law["measure"]]
    (n_low, n_high), (d_low, d_high) = (
        (measured[key].min() / BEYOND, measured[key].max() * BEYOND) for key in ("parameters", "galaxies")
    )
    e, a, alpha, b, beta = (law[key]["value"] for key in ("E", "A", "alpha", "B", "beta"))
    n, d = np.meshgrid(np.geomspace(n_low, n_high, 120), np.geomspace(d_low, d_high, 120))
    loss = e + a * n**-alpha + b * d**-beta
    levels = _levels(e, np.append(loss, measured["loss"]))
    figure, (axes,) = chart(1, height=5)
    colors = {"cmap": "YlGnBu", "norm": BoundaryNorm(levels, 256)}
    filled = axes.contourf(n, d, loss, levels, **colors)
    if crossed := [level for level in levels if loss.min() < level < loss.max()]:
        axes.contour(n, d, loss, crossed, colors="black", linewidths=0.7)
    scale = figure.colorbar(filled, ax=axes, ticks=levels[1:-1], aspect=30, pad=0.02)
    scale.ax.set_yticklabels([figure_number(level) for level in levels[1:-1]])
    places = measured["parameters"], measured["galaxies"]
    axes.scatter(*places, c="white", s=130, linewidths=0, zorder=4)  # or it would vanish where the law is right
    axes.scatter(*places, c=measured["loss"], **colors, s=70, edgecolors="black", linewidths=1, zorder=5)
    gaps = np.diff(np.log(sorted(set(measured["parameters"]))))
    if gaps.min() > 0.08 * np.log(n_high / n_low):
        for x, y, value in zip(*places, measured["loss"], strict=True):
            axes.annotate(
                figure_number(value),
                (x, y),
                (9, 0),
                textcoords="offset points",
                fontsize=7.5,
                va="center",
                zorder=5,
                bbox=LABEL,
            )
    handles = [
        handle(f"law {JOINT}", "black", ls="-", lw=0.7),
        handle("measured, in the colour of its loss", "black", marker="o", mfc="white", ms=8),
    ]
    frontier = pd.DataFrame(law["frontier"] or {"parameters": [], "galaxies": []})
    frontier = frontier[frontier["parameters"].between(n_low, n_high) & frontier["galaxies"].between(d_low, d_high)]
    if law["frontier"]:
        where = "" if len(frontier) else "outside of this map: "
        meaning = "least loss of all with the same N · D"
        handles.append(handle(where + meaning, COLORS[1], ls="--", lw=2.5))
        axes.plot(*frontier[["parameters", "galaxies"]].to_numpy().T, color="white", lw=4.5, zorder=3)
        axes.plot(*frontier[["parameters", "galaxies"]].to_numpy().T, color=COLORS[1], lw=2.5, ls="--", zorder=3)
    log_axis(axes.xaxis, n_low, n_high)
    log_axis(axes.yaxis, d_low, d_high)
    axes.set(xlabel=PARAMETERS, ylabel=GALAXIES)
    doubts = "; ".join(doubt.split(",")[0].split(" (")[0] for doubt in law["doubts"])
    doubts = f"Not pinned down by the data: {doubts}" if doubts else ""
    axes.set_title(textwrap.fill(doubts, 100), loc="left")

    coefficients = {key: law[key] for key in ("E", "A", "alpha", "B", "beta", "share") if key in law}
    rows = [{"kind": "measured", **point} for point in law["points"]]
    rows += [{"kind": "frontier", **point} for point in frontier.to_dict("records")]
    rows += [{"kind": key, **each} for key, each in coefficients.items()]
    words = ", ".join(f"{key} {figure_interval(coefficients[key])}" for key in ("E", "alpha", "beta"))
    title = f"{measure[0].upper()}{measure[1:]} over models and galaxies"
    alt = f"{title}: the law {JOINT} with {words}. {doubts}".strip()
    return Figure(name, png(figure, title, handles), csv_text(rows), alt)


def _levels(end, losses):
    """Of contours, in equal steps of the logarithm of what lies above the end, to which all falls."""
    low, high = losses.min(), losses.max()
    most = max(high - end, 0.001 * high)
    inner = {float(f"{level:.3g}") for level in end + np.geomspace(max(low - end, 0.02 * most), most, 10)[1:-1]}
    return [0.99 * low, *sorted(level for level in inner if low < level < high), 1.01 * high]
