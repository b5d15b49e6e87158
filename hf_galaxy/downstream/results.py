"""The results of a downstream benchmark, computed from its cells: plain numbers for results.json.

A cell is one task, trained from one start in one mode (linear probe or full finetuning), with one share of the labels and one
seed. Figures are losses: less is better. Cells of the same task, share and seed were trained and tested on the same galaxies,
and their replicates count the same galaxies; so the terms of a comparison are drawn together (`bootstrap.mean_draws`).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_galaxy.downstream.label_efficiency import is_main, labels_of
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.bootstrap import estimate_of, mean_and_draws, or_none, ratios, verdict_of
from hf_galaxy.plain_json import parsed, text_of, texts_of
from hf_galaxy.plain_values import number
from hf_galaxy.reports.records_file import FILE, in_order, read_records

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]  # of results.json
Kinds = dict[tuple, dict[int, Any]]  # (measure, task, start, mode, share) -> seed -> row of `points_of`
Draws = dict[tuple, np.ndarray]

CELLS, ABOUT = "cells", "benchmark.json"  # the folder of cells and the description, in the folder of a benchmark
LINEAR, FULL = "linear", "full"
MOST = 1e150  # the square of a larger number is none
KIND = ["task", "start", "mode", "share"]  # cells of a kind differ only in their seed
_CELL_TYPES = {
    "task": str, "start": str, "mode": str, "share": (int, float), "seed": int, "galaxies": int, "test_galaxies": int,
    "measure": str, "grid": dict, "chosen": (int, float), "hyperparameter": str, "figures": dict, "parameters": int,
    "backbone": str, "seconds": (int, float),
}  # fmt: skip
_ABOUT_TYPES = {
    "title": str, "command": str, "tasks": dict, "starts": dict, "modes": list, "shares": list, "seeds": list,
    "reference": str, "grids": dict, "fixed": dict,
}  # fmt: skip


def read_about(file: Path) -> dict[str, Any]:
    """The description of a benchmark, benchmark.json.

    Raises:
        BadInput: it is missing or broken.
    """
    about = _read(file, _ABOUT_TYPES)
    try:
        for group, lists in (("tasks", ()), ("starts", ("learnt_from",))):
            for each in about[group].values():
                text_of(each, "title" if group == "starts" else "measure")
                for key in lists:
                    texts_of(each, key)
        texts_of(about, "modes")
        _numbers_of(about, "shares")
        _numbers_of(about, "seeds")
    except ValueError as error:
        raise BadInput(f"{file}: is broken: {error}; write it again with the benchmark") from error
    if about["reference"] not in about["starts"]:
        raise BadInput(f"{file}: the reference {about['reference']} is not among the starts")
    return about


def read_cells(folder: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """All cells below a folder, and those of that folder in the records file beside it, in the order of their names.

    Raises:
        BadInput: there is no cell; one is broken, repeated, or of a task, start or mode that `about` lacks; its start was
            pretrained with its task; or cells of the same task, share and seed are not of the same galaxies.
    """
    cells, files, of_seed = [], {}, {}
    paths = {file.relative_to(folder.parent).as_posix(): file for file in folder.rglob("*.json")}
    recorded = {
        name: cell for name, cell in read_records(folder.parent / FILE).items() if name.startswith(f"{folder.name}/")
    }
    for name in in_order(paths.keys() | recorded.keys()):
        file = folder.parent / name
        cell = _read(file, _CELL_TYPES) if name in paths else _typed(file, recorded[name], _CELL_TYPES)
        _check(file, cell, about)
        kind = tuple(cell[key] for key in (*KIND, "seed"))
        if kind in files:
            raise BadInput(f"{files[kind]} and {file} are the same cell; remove one")
        files[kind] = file
        galaxies = tuple(cell[key] for key in ("galaxies", "test_galaxies")), len(_replicates(cell)[0])
        other, theirs = of_seed.setdefault((cell["task"], cell["share"], cell["seed"]), (file, galaxies))
        if theirs != galaxies:
            raise BadInput(
                f"{other} and {file} are not of the same galaxies, so they cannot be compared; measure one again"
            )
        cells.append(cell)
    if not cells:
        raise BadInput(f"{folder}: contains no cell of a benchmark")
    if len({len(each) for cell in cells for each in _replicates(cell)}) > 1:
        raise BadInput(f"{folder}: its cells have different numbers of replicates; measure them again")
    return cells


def _read(file: Path, types: dict[str, Any]) -> dict[str, Any]:
    try:
        data = parsed(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be read as JSON ({error})") from error
    return _typed(file, data, types)


def _typed(file: Path, data: Any, types: dict[str, Any]) -> dict[str, Any]:
    for key, kind in types.items():
        if not isinstance(data, dict) or not isinstance(data.get(key), kind):
            raise BadInput(
                f"{file}: is broken: its {key} is missing or of a wrong type; remove the file, and measure the cell again"
            )
    return data


def _check(file: Path, cell: dict[str, Any], about: dict[str, Any]) -> None:
    for key, group in (("task", "tasks"), ("start", "starts"), ("mode", "modes")):
        if cell[key] not in about[group]:
            raise BadInput(f"{file}: its {key} {cell[key]} is not among those of {ABOUT} ({', '.join(about[group])})")
    task = about["tasks"][cell["task"]]
    if cell["task"] in about["starts"][cell["start"]]["learnt_from"]:
        raise BadInput(f"{file}: {cell['start']} was pretrained with galaxies of {cell['task']}; remove the cell")
    if cell["measure"] != task["measure"] or cell["measure"] not in cell["figures"]:
        raise BadInput(f"{file}: lacks the measure of its task, {task['measure']}")
    for key in ("share", "seed", "galaxies", "test_galaxies", "chosen", "parameters", "seconds"):
        if not _is_number(cell[key]):
            raise BadInput(f"{file}: its {key} is no usual number; remove the file, and measure the cell again")
    try:
        grid = [number(value) for value in cell["grid"]]
    except ValueError:
        grid = []
    if not grid:
        raise BadInput(f"{file}: its grid has other keys than numbers; remove the file, and measure the cell again")
    for name, figure in cell["figures"].items():
        if not isinstance(figure, dict) or not {"model", "baseline", "replicates"} <= figure.keys():
            raise BadInput(f"{file}: {name} lacks a loss, its baseline or replicates; measure it again")
        value, replicates = figure["model"], figure["replicates"]
        least = -1e-9  # an excess of 0, rounded
        if (value is None and name == cell["measure"]) or (
            value is not None and not (_is_number(value) and value >= least)
        ):
            raise BadInput(f"{file}: {name} is {value}, but losses are numbers of 0 or more; measure it again")
        if not isinstance(replicates, list) or not replicates or not all(map(_is_number_or_none, replicates)):
            raise BadInput(f"{file}: {name} lacks the replicates of a bootstrap; measure it again")
        if not _is_number_or_none(figure["baseline"]):
            raise BadInput(f"{file}: {name} has a baseline that is no number; measure it again")


def _is_number(value: object) -> bool:
    """Whether a value of JSON is a number that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


def _is_number_or_none(value: object) -> bool:
    return value is None or _is_number(value)


def _numbers_of(about: dict[str, Any], key: str) -> None:
    """Raise a ValueError unless it is a list of numbers."""
    if not about[key] or not all(map(_is_number, about[key])):
        raise ValueError(f"its {key} are no list of numbers")


def _replicates(cell: dict[str, Any]) -> list[list[float | None]]:
    return [figure["replicates"] for figure in cell["figures"].values()]


def points_of(cells: list[dict[str, Any]], about: dict[str, Any]) -> "pd.DataFrame":
    """The measured losses, one row for each cell and measure, in the order of tasks, starts, modes and shares.

    Columns: `task`, `start`, `mode`, `share` (of the labels), `seed`; `galaxies` (of the training set), `test_galaxies`;
    `measure`, and `main`, whether the task is compared by it; `loss`, `baseline`; `replicates`, (R,) the loss in the replicates
    of a bootstrap over test galaxies, NaN where it is not defined; `backbone`, `parameters`, `seconds`; `hyperparameter`, its
    value `chosen` on the validation split, and the `edge` of its grid where this value lies, "lowest", "highest" or "none".
    """
    import pandas as pd

    rows = []
    for cell in cells:
        grid = sorted(map(float, cell["grid"]))
        edges = {grid[0]: "lowest", grid[-1]: "highest"} if len(grid) > 1 else {}
        own = {key: cell[key] for key in (*KIND, "seed", "galaxies", "test_galaxies")}
        for name, figure in cell["figures"].items():
            if figure["model"] is not None:
                rows.append(
                    own
                    | {
                        "measure": name,
                        "main": name == cell["measure"],
                        "loss": max(float(figure["model"]), 0.0),
                        "baseline": math.nan if figure["baseline"] is None else float(figure["baseline"]),
                        "replicates": np.array(figure["replicates"], float),  # None becomes NaN
                        **{key: cell[key] for key in ("backbone", "parameters", "seconds", "hyperparameter")},
                        "chosen": float(cell["chosen"]),
                        "edge": edges.get(float(cell["chosen"]), "none"),
                    }
                )
    points = pd.DataFrame(rows)
    order = [points[key].map(list(about[f"{key}s"]).index) for key in ("task", "start", "mode")]
    points = points.assign(_task=order[0], _start=order[1], _mode=order[2], _other=~points["main"])
    by = ["_task", "_start", "_mode", "share", "seed", "_other", "measure"]
    return points.sort_values(by, ignore_index=True).drop(columns=[name for name in by if name.startswith("_")])


def kinds_of(points: "pd.DataFrame") -> Kinds:
    """The rows of `points_of` by kind of cells, then by seed."""
    kinds: Kinds = {}
    for row in points.itertuples():
        kinds.setdefault((row.measure, row.task, row.start, row.mode, row.share), {})[row.seed] = row
    return kinds


def results_of(cells: list[dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    """The results of the benchmark as plain numbers, for results.json. Intervals are of 90 %.

    `seeds` is the number of seeds in a number. `low` and `high` are None with one seed, and where a figure is not defined in
    more than a tenth of the replicates, for lack of galaxies. Intervals hold for other seeds with the same folds and subsets;
    that all train on parts of the same galaxies is not in them.

    Args:
        cells: from `read_cells`.
        about: from `read_about`.

    Returns:
        `data`: the extent of the benchmark, and in `missing` the cells that it lacks, in words.
        `means`: for each kind of cells and measure the losses of the `runs` and their mean `value`, beside the `baseline`.
        `reductions`: the relative error-rate reduction (reference - start) / reference, for each measure.
        `averages`: its mean over the `tasks` of which the start and the reference have the main measure.
        `linear`: for each start the loss of linear probes over that of full finetuning; `linear_averages`: over tasks.
        `labels`: see `label_efficiency.labels_of`.
        `choices`: the hyper-parameters chosen, and of the cells `choosing` among several, how many took the lowest and the highest.
        An `error` that is "less" or "more" than that of the comparison is so at 90 %; "not shown" is neither, "not known" has
        no interval.
    """
    points = points_of(cells, about)
    kinds = kinds_of(points)
    reductions, draws = _reductions(kinds, about)
    linear, linear_draws = _linear(kinds, about)
    return {
        "data": _data(cells, points, about),
        "means": [_mean(*each) for each in kinds.items()],
        "reductions": reductions,
        "averages": _averages(reductions, draws, ["start", "mode", "share"], about, lambda value: -value),
        "linear": linear,
        "linear_averages": _averages(linear, linear_draws, ["start", "share"], about, lambda value: value - 1),
        "labels": labels_of(kinds, about),
        "choices": _choices(cells, about),
    }


def _mean(key: tuple, part: dict[int, Any]) -> Row:
    value, draws, seeds = mean_and_draws([part], "mean", *key)
    runs = list(part.values())
    return dict(zip(["measure", *KIND], key, strict=True)) | {
        "main": runs[0].main,
        "galaxies": round(np.mean([run.galaxies for run in runs])),
        "test_galaxies": round(np.mean([run.test_galaxies for run in runs])),
        "seeds": seeds,
        "runs": [run.loss for run in runs],
        **estimate_of(value[0], draws[0]),
        "baseline": or_none(np.mean([run.baseline for run in runs])),
    }


def _reductions(kinds: Kinds, about: dict[str, Any]) -> tuple[list[Row], Draws]:
    """The error-rate reductions of each start against the reference, and the draws of those in the main measure of each task."""
    rows, drawn = [], {}
    for key, part in kinds.items():
        measure, task, start, mode, share = key
        other = kinds.get((measure, task, about["reference"], mode, share))
        if start == about["reference"] or other is None:
            continue
        (reference, value), draws, seeds = mean_and_draws([other, part], "reduction", *key)
        estimate = estimate_of(1 - ratios(value, reference), 1 - ratios(draws[1], draws[0]))
        main = is_main(key, about)
        row = dict(zip(["measure", *KIND], key, strict=True)) | {"main": main, "seeds": seeds, **estimate}
        rows.append(row | {"error": verdict_of(estimate, lambda value: -value)})
        if main:
            drawn[task, start, mode, share] = 1 - ratios(draws[1], draws[0])
    return rows, drawn


def _linear(kinds: Kinds, about: dict[str, Any]) -> tuple[list[Row], Draws]:
    """The losses of linear probes over those of full finetuning, and their draws."""
    rows, drawn = [], {}
    for key, part in kinds.items():
        measure, task, start, mode, share = key
        other = kinds.get((measure, task, start, FULL, share))
        if mode != LINEAR or other is None or not is_main(key, about):
            continue
        (full, value), draws, seeds = mean_and_draws([other, part], "linear", task, start, share)
        estimate = estimate_of(ratios(value, full), ratios(draws[1], draws[0]))
        row = {"task": task, "start": start, "share": share, "measure": measure, "main": True, "seeds": seeds}
        rows.append(row | estimate | {"error": verdict_of(estimate, lambda value: value - 1)})
        drawn[task, start, share] = ratios(draws[1], draws[0])
    return rows, drawn


def _averages(
    rows: list[Row], drawn: Draws, keys: Sequence[str], about: dict[str, Any], change: Callable[[float], float]
) -> list[Row]:
    """Means over tasks, of main measures, for each combination of the values of `keys`.

    Replicates of tasks that share galaxies belong together, seeds do not.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["main"] and row["value"] is not None:
            groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    averages = []
    for key, group in groups.items():
        tasks = [row["task"] for row in group]
        draws = np.mean([drawn[task, *key] for task in tasks], axis=0)
        estimate = estimate_of(np.mean([row["value"] for row in group]), draws)
        own = dict(zip(keys, key, strict=True))
        own |= {"tasks": tasks, "without": [task for task in about["tasks"] if task not in tasks]}
        averages.append(own | estimate | {"error": verdict_of(estimate, change)})
    return averages


def with_most_labels(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the largest share of the labels."""
    return [row for row in rows if row["share"] == max(each["share"] for each in rows)]


def _choices(cells: list[dict[str, Any]], about: dict[str, Any]) -> list[Row]:
    rows = []
    for mode, start in itertools.product(about["modes"], about["starts"]):
        own = [cell for cell in cells if (cell["mode"], cell["start"]) == (mode, start)]
        if not own:
            continue
        chosen: dict[float, int] = {}
        edges = {"choosing": 0, "lowest": 0, "highest": 0}
        for cell in own:
            value, grid = float(cell["chosen"]), sorted(map(float, cell["grid"]))
            chosen[value] = chosen.get(value, 0) + 1
            if len(grid) > 1:  # else another cell chose for it
                edges["choosing"] += 1
                edges["lowest"] += value == grid[0]
                edges["highest"] += value == grid[-1]
        rows.append({
            "mode": mode, "start": start, "hyperparameter": own[0]["hyperparameter"], "cells": len(own),
            "grids": [list(grid) for grid in sorted({tuple(sorted(map(float, cell["grid"]))) for cell in own})],
            "chosen": {f"{value:g}": chosen[value] for value in sorted(chosen)}, **edges,
        })  # fmt: skip
    return rows


def _data(cells: list[dict[str, Any]], points: "pd.DataFrame", about: dict[str, Any]) -> dict[str, Any]:
    pairs = list(itertools.product(about["starts"], about["tasks"]))
    pretrained = [(start, task) for start, task in pairs if task in about["starts"][start]["learnt_from"]]
    missing = []
    for start, mode in itertools.product(about["starts"], about["modes"]):
        tasks = sum((start, task) not in pretrained for task in about["tasks"])
        expected = tasks * len(about["shares"]) * len(about["seeds"])
        measured = sum((cell["start"], cell["mode"]) == (start, mode) for cell in cells)
        if measured < expected:
            missing.append(f"{start}, {mode}: {measured} of {expected} cells are there")
    main = points[points["main"]]
    return {
        "cells": len(cells),
        "reference": about["reference"],
        "tasks": {
            task: {
                "measure": part["measure"].iloc[0],
                "galaxies": {f"{share:g}": round(own.mean()) for share, own in part.groupby("share")["galaxies"]},
                "test_galaxies": round(part["test_galaxies"].mean()),
            }
            for task, part in main.groupby("task", sort=False)
        },
        "shares": sorted(map(float, set(points["share"]))),
        "seeds": sorted(map(int, set(points["seed"]))),
        "backbones": sorted(set(points["backbone"])),
        "hours": float(main["seconds"].sum() / 3600),
        "learnt_from": [f"{start} on {task}" for start, task in pretrained],
        "missing": missing,
    }
