"""Figures of a downstream benchmark, each with the table of the numbers in it.

All is drawn from what `results.results_of` returns, that is from results.json, and from the titles in benchmark.json.
A start has the same colour and marker in all figures.
"""

import numpy as np

from hf_galaxy.downstream.results import FULL, LINEAR
from hf_galaxy.reports.charts import (
    COLORS,
    COLUMNS,
    GREY,
    LOG_FLOOR,
    MARKERS,
    Figure,
    chart,
    csv_text,
    draw_level,
    draw_points,
    handle,
    label_axes,
    limits,
    log_axis,
    margin_text,
    png,
    style,
)
from hf_galaxy.reports.text import interval, percent, truncated

KINDS = ("labels-", "reductions-", "linear-against-full", "amounts-")  # as the names of figures of a benchmark begin
GALAXIES = "galaxies learnt from"
LINES = ("-", (0, (4, 1.5)), (0, (1, 1)))  # once all colours were taken
MODES = {LINEAR: "linear probe", FULL: "full finetuning"}
LETTERS, FEW_LETTERS = 96, 46  # of a start's title in a legend, and beside a line
STEP = 1.03  # markers of equal galaxies stand so far apart, or their intervals would hide each other


def figures_of(results: dict, about: dict) -> list[Figure]:
    """All figures that a benchmark has data for, in the order in which a page shows them.

    For each mode `labels-*`, the loss against galaxies learnt from, a panel for each task; `reductions-*`, the relative
    error-rate reductions with all labels and with the fewest; `linear-against-full`; and for each series of starts and mode
    `amounts-*`, the loss with all labels against galaxies that the starts have learnt from.

    Args:
        results: as `results.results_of` gives them.
        about: as `results.read_about` gives it.
    """
    looks, figures = _looks(results, about), []
    with style():
        for mode in about["modes"]:
            if means := [each for each in results["means"] if each["main"] and each["mode"] == mode]:
                figures.append(_labels(f"labels-{mode}", mode, means, about, looks))
        for mode in about["modes"]:
            rows = [each for each in results["reductions"] if each["main"] and each["mode"] == mode]
            averages = [each for each in results["averages"] if each["mode"] == mode]
            if rows := [row for row in rows if row["value"] is not None]:
                figures.append(_reductions(f"reductions-{mode}", mode, rows, averages, about, looks))
        if pairs := _pairs(results):
            figures.append(_linear(pairs, about, looks))
        for (series, mode), rows in _groups(most_labels(results["amounts"]), "series", "mode").items():
            figures.append(_amounts(series, mode, rows, results, about))
    return figures


def _looks(results, about):
    """Start -> colour, marker, line, and what it is called in a legend."""
    there = {each["start"] for each in results["means"]}
    called = _called([name for name in about["starts"] if name in there], about, LETTERS)
    return {
        name: (COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], LINES[i // len(COLORS) % len(LINES)], title)
        for i, (name, title) in enumerate(called.items())
    }


def _called(names, about, letters):
    """Titles of starts, cut short; their names, if that makes two alike."""
    titles = [truncated(about["starts"][name]["title"], letters) for name in names]
    return dict(zip(names, titles if len(set(titles)) == len(titles) else names, strict=True))


def _groups(rows, *keys):
    groups = {}
    for row in rows:
        of = tuple(row[key] for key in keys)
        groups.setdefault(of if len(of) > 1 else of[0], []).append(row)
    return groups


def most_labels(rows: list[dict]) -> list[dict]:
    """Those with the largest share of the labels."""
    return [row for row in rows if row["share"] == max(each["share"] for each in rows)]


def _title(about, task):
    return f"{truncated(about['tasks'][task]['title'], 48)} ({about['tasks'][task]['measure']})"


def _legend(looks, starts):
    return [
        handle(called, color, marker=marker, ls=line, lw=1.2)
        for start, (color, marker, line, called) in looks.items()
        if start in starts
    ]


# Loss against labels


def _labels(name, mode, means, about, looks):
    tasks = _groups(means, "task")
    figure, panels = _panels(len(tasks), 2.75)
    rows, words = [], []
    for axes, (task, of_task) in zip(panels, tasks.items(), strict=True):
        starts = _groups(of_task, "start")
        for start, points in starts.items():
            color, marker, line, _ = looks[start]
            points = sorted(points, key=lambda point: point["galaxies"])
            aside = STEP ** ([*looks].index(start) - (len(looks) - 1) / 2)
            x = [point["galaxies"] * aside for point in points]
            axes.plot(x, [max(point["value"], LOG_FLOOR) for point in points], color=color, ls=line, lw=1.2, zorder=2)
            for place, point in zip(x, points, strict=True):
                draw_points(axes, [place], [{**point, "runs": []}], color, marker, "full", 4.5)
            columns = (
                "task",
                "start",
                "mode",
                "share",
                "galaxies",
                "measure",
                "seeds",
                "value",
                "low",
                "high",
                "baseline",
            )
            rows += [{key: point[key] for key in columns} for point in points]
        sizes = [point["galaxies"] for point in of_task]
        room = STEP ** (len(looks) / 2 + 1)
        low, high, baseline = _losses_shown(of_task)
        log_axis(axes.xaxis, min(sizes) / room / 1.05, max(sizes) * room * 1.05)
        log_axis(axes.yaxis, low, high)
        if baseline:
            draw_level(axes, baseline, "baseline", "-.", right=True)
        most = [point for point in of_task if point["share"] == max(each["share"] for each in of_task)]
        best = min(most, key=lambda point: point["value"])
        words.append(f"{task}: least with {best['galaxies']:,} galaxies from {best['start']}, {interval(best)}.")
    label_axes(figure, panels, [_title(about, task) for task in tasks], GALAXIES, "loss on test galaxies")
    handles = _legend(looks, {each["start"] for each in means})
    handles.append(handle("mean of seeds, 90 %; moved sideways a little", GREY, marker="|", ms=9))
    title = f"Loss against galaxies learnt from: {MODES.get(mode, mode)}"
    return Figure(name, png(figure, title, handles), csv_text(rows), f"{title}, both logarithmic. {' '.join(words)}")


def _losses_shown(points):
    """Limits of the axis; and the baseline, where it does not squeeze all else."""
    values = [point["value"] for point in points]
    low, high = limits(values)
    ends = [point[end] for point in points for end in ("low", "high") if point[end] is not None]
    low, high = limits([low, high, *np.clip(ends, low / 1.2, high * 1.2)], 0)
    baseline = max(points, key=lambda point: point["share"])["baseline"]  # of the most labels
    if baseline and low < baseline <= high * max(high / low, 1.2) ** 0.4:
        return *limits([low, high, baseline], 0.03), baseline
    return low, high, None


# Relative reductions


def _reductions(name, mode, rows, averages, about, looks):
    most, fewest = (choose(row["share"] for row in rows) for choose in (max, min))
    groups = {about["tasks"][task]["title"]: own for task, own in _groups(rows, "task").items()}
    several = len(groups) > 1
    if several:
        groups = {"Average over tasks": averages} | groups
    starts = [start for start in looks if any(row["start"] == start for row in rows)]
    called = _called(starts, about, FEW_LETTERS)
    lines = sum(1 + len({row["start"] for row in group}) for group in groups.values())
    figure, (axes,) = chart(1, height=0.185 * lines + 0.6)
    y, table, words = 0, [], []
    for i, (title, group) in enumerate(groups.items()):
        own = [start for start in starts if any(row["start"] == start for row in group)]
        if i % 2 == 0:
            axes.axhspan(y - 0.5, y + len(own) + 0.5, color="#F1F1F1", lw=0, zorder=0)
        margin_text(axes, y, truncated(title, FEW_LETTERS), left=True, weight="bold")
        for y, start in enumerate(own, y + 1):  # noqa: B020
            color, marker, *_ = looks[start]
            margin_text(axes, y, called[start], left=True)
            for share, fill, aside in ((fewest, "none", 0.2), (most, "full", -0.1)):
                if share == fewest == most and fill == "none":
                    continue
                row = next((row for row in group if (row["start"], row["share"]) == (start, share)), None)
                if row is None:
                    continue
                _draw_interval(axes, y + aside, row, color, marker, fill)
                over = len(row["tasks"]) if "tasks" in row else 1
                if fill == "full":
                    text = interval(row, percent) + (f", {over} task{'s' * (over > 1)}" if "tasks" in row else "")
                    margin_text(axes, y, text, left=False, color="black" if row["error"] != "more" else COLORS[1])
                    words.append(f"{title}, {start}: {text}.")
                average = "tasks" in row
                table.append({
                    "task": "average" if average else row["task"], "start": start, "mode": mode, "share": share,
                    "tasks": over, **{key: row[key] for key in ("value", "low", "high", "error")},
                })  # fmt: skip
        y += 1
    ends = [row[key] for row in table for key in ("value", "low", "high") if row[key] is not None]
    values = [row["value"] for row in table] + [0.0]
    span = max(max(values) - min(values), 0.05)
    left, right = max(min(ends), min(values) - 0.5 * span), min(max(ends), max(values) + 0.5 * span)
    axes.axvline(0, color="black", lw=1, zorder=1)
    axes.set(
        ylim=(y - 0.5, -0.5), yticks=[], xlim=(100 * (min(left, 0) - 0.04 * span), 100 * (max(right, 0) + 0.04 * span)),
        xlabel=f"relative error-rate reduction against {truncated(about['starts'][about['reference']]['title'], 40)} (%)",
    )  # fmt: skip
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="#DDDDDD", lw=0.6, zorder=0)
    handles = [handle(f"with {_share(most)}, 90 %", GREY, marker="o", ls="-")]
    if fewest < most:
        handles.append(handle(f"with {_share(fewest)}, 90 %", GREY, marker="o", fillstyle="none", ls="-", lw=1))
    handles.append(handle("in red: more error, at 90 %", COLORS[1], marker="_", ms=9))
    title = f"What each start brings: {MODES.get(mode, mode)}"
    alt = f"{title}. Relative error-rate reductions with {_share(most)}. {' '.join(words)}"
    return Figure(name, png(figure, title, handles), csv_text(table), alt)


def _draw_interval(axes, y, row, color, marker, fill):
    full = fill == "full"
    if row["low"] is not None:
        axes.plot([100 * row["low"], 100 * row["high"]], [y, y], color=color, lw=1.6 if full else 0.9, zorder=2)
    axes.plot(
        [100 * row["value"]], [y], marker, color=color, mfc=color if full else "white", ms=5.5 if full else 3.5, zorder=3
    )  # fmt: skip


def _share(share):
    return "all labels" if share == 1 else f"1/{1 / share:.3g} of the labels"


# Linear against full


def _pairs(results):
    """With the most labels: what a start came to in both modes."""
    main = [each for each in results["means"] if each["main"]]
    both = {(row["task"], row["start"], row["share"]): row for row in results["linear"] if row["value"] is not None}
    most = max((share for *_, share in both), default=None)
    of = {(each["task"], each["start"], each["mode"]): each for each in main if each["share"] == most}
    return [
        {
            "task": task,
            "start": start,
            "share": share,
            "ratio": row,
            "modes": {m: of[task, start, m] for m in (LINEAR, FULL)},
        }
        for (task, start, share), row in both.items()
        if share == most
    ]


def _linear(pairs, about, looks):
    tasks = _groups(pairs, "task")
    figure, panels = _panels(len(tasks), 3.3)
    rows, words = [], []
    for axes, (task, of_task) in zip(panels, tasks.items(), strict=True):
        values = [each["value"] for pair in of_task for each in pair["modes"].values()]
        low, high = limits(values)
        ends = [each[end] for pair in of_task for each in pair["modes"].values() for end in ("low", "high")]
        low, high = limits(
            [low, high, *np.clip([end for end in ends if end is not None], low / 1.15, high * 1.15)], 0.02
        )
        for pair in of_task:
            color, marker, *_ = looks[pair["start"]]
            linear, full = (pair["modes"][mode] for mode in (LINEAR, FULL))
            draw_points(axes, [full["value"]], [{**linear, "runs": []}], color, marker, "full", 5.5)
            if full["low"] is not None:
                axes.hlines(linear["value"], max(full["low"], LOG_FLOOR), full["high"], color=color, lw=1.1, zorder=3)
            row = {key: pair[key] for key in ("task", "start", "share")}
            for mode, each in pair["modes"].items():
                row |= {mode: each["value"], f"{mode}_low": each["low"], f"{mode}_high": each["high"]}
            ratio = pair["ratio"]
            row |= {"ratio": ratio["value"], "ratio_low": ratio["low"], "ratio_high": ratio["high"]}
            rows.append(row)
            words.append(f"{task}, {pair['start']}: {interval(ratio)}.")
        axes.plot([low, high], [low, high], "--", color=GREY, lw=1, zorder=1)
        for axis in (axes.xaxis, axes.yaxis):
            log_axis(axis, low, high)
        axes.set_box_aspect(1)
    label_axes(
        figure, panels, [_title(about, task) for task in tasks], "loss of full finetuning", "loss of a linear probe"
    )
    handles = [
        handle(called, color, marker=marker)
        for start, (color, marker, _, called) in looks.items()
        if any(pair["start"] == start for pair in pairs)
    ]
    handles.append(handle("equal: above it the linear probe is worse", GREY, ls="--", lw=1))
    title = f"Linear probe against full finetuning, with {_share(pairs[0]['share'])}"
    alt = f"{title}: loss of the first over loss of the second. {' '.join(words)}"
    return Figure("linear-against-full", png(figure, title, handles), csv_text(rows), alt)


# More galaxies to pretrain with


def _amounts(series, mode, rows, results, about):
    means = {
        (each["task"], each["start"]): each
        for each in most_labels([each for each in results["means"] if each["main"] and each["mode"] == mode])
    }
    figure, panels = _panels(len(rows), 2.75)
    table, words = [], []
    for axes, row in zip(panels, rows, strict=True):
        points = [means[row["task"], start] for start in row["starts"]]
        reference = means.get((row["task"], about["reference"]))
        levels = [reference["value"]] if reference else []
        values = [point["value"] for point in points]
        low, high = limits([*values, *levels])
        ends = [point[end] for point in points for end in ("low", "high") if point[end] is not None]
        log_axis(axes.xaxis, *limits(row["galaxies"]))
        log_axis(axes.yaxis, *limits([low, high, *np.clip(ends, low / 1.2, high * 1.2)], 0.03))
        # The power law goes through the middle of what was measured, as lines by least squares do.
        logs = np.log(np.maximum(values, LOG_FLOOR))
        law = np.exp(logs.mean() - row["value"] * (np.log(row["galaxies"]) - np.log(row["galaxies"]).mean()))
        axes.plot(row["galaxies"], law, color=COLORS[0], lw=1.2, zorder=2)
        for galaxies, point in zip(row["galaxies"], points, strict=True):
            draw_points(axes, [galaxies], [{**point, "runs": []}], COLORS[0], MARKERS[0], "full", 4.5)
            table.append({
                "task": row["task"], "start": point["start"], "mode": mode, "pretrained_with": galaxies, "measure": point["measure"],
                **{key: point[key] for key in ("seeds", "value", "low", "high")},
            })  # fmt: skip
        for level in levels:
            axes.axhline(level, color=GREY, lw=0.9, ls="-.", zorder=1)
        words.append(f"{row['task']}: galaxies to the power of minus {interval(row)}.")
    label_axes(
        figure,
        panels,
        [_title(about, row["task"]) for row in rows],
        "galaxies pretrained with",
        "loss on test galaxies",
    )
    handles = [
        handle("mean of seeds, 90 %", COLORS[0], marker=MARKERS[0]),
        handle("power law in galaxies", COLORS[0], ls="-", lw=1.2),
        handle(truncated(about["starts"][about["reference"]]["title"], FEW_LETTERS), GREY, ls="-.", lw=0.9),
    ]
    title = f"More galaxies of {about['starts'][series]['pretraining'][0]['dataset']} to pretrain with: {MODES.get(mode, mode)}"
    return Figure(
        f"amounts-{mode}-{series}", png(figure, title, handles), csv_text(table), f"{title}. {' '.join(words)}"
    )


def _panels(count, height):
    return chart(count) if count == 1 else chart(count, height=height * -(-count // COLUMNS))
