"""Cells of the downstream benchmark -> plain numbers for results.json: what pretraining on galaxies brought, and what not.

A cell is one task, learnt from one start in one mode (linear probe or full finetuning), with one share of the labels and one
seed. Figures are losses: less is better. Cells of equal task, share and seed learnt from the same galaxies and were measured
on the same, and their replicates count the same galaxies; so whatever is compared is drawn together (`benchmark_draws`).
"""

import itertools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_galaxy.downstream.intervals import error_of, estimate_of, is_main, mean_and_draws, plain
from hf_galaxy.downstream.label_efficiency import amounts_of, labels_of
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.bootstrap import ratios
from hf_galaxy.reports.records_file import FILE, in_order, read_records

if TYPE_CHECKING:
    import pandas as pd

CELLS, ABOUT = "cells", "benchmark.json"  # what the benchmark leaves in its folder
LINEAR, FULL = "linear", "full"
KIND = ["task", "start", "mode", "share"]  # cells alike in these differ in their seed only
_IN_CELL = {
    "task": str, "start": str, "mode": str, "share": (int, float), "seed": int, "galaxies": int, "test_galaxies": int,
    "measure": str, "grid": dict, "chosen": (int, float), "hyperparameter": str, "figures": dict, "parameters": int,
    "backbone": str, "seconds": (int, float),
}  # fmt: skip
_IN_ABOUT = {
    "title": str, "command": str, "tasks": dict, "starts": dict, "modes": list, "shares": list, "seeds": list,
    "reference": str, "grids": dict, "fixed": dict,
}  # fmt: skip


def read_about(file: Path) -> dict:
    """benchmark.json: what the benchmark is of.

    Raises:
        BadInput: it is missing or broken.
    """
    about = _read(file, _IN_ABOUT)
    if about["reference"] not in about["starts"]:
        raise BadInput(f"{file}: the reference {about['reference']} is not among the starts")
    return about


def read_cells(folder: Path, about: dict) -> list[dict]:
    """All cells below a folder, and those of that folder in the records file beside it, in the order of their names.

    Raises:
        BadInput: there is none; one is broken, or of another task, start or mode than `about` has, or there twice; it is of a
            task that its start has learnt from; or cells that belong together are not of the same galaxies.
    """
    cells, files, of_seed = [], {}, {}
    paths = {file.relative_to(folder.parent).as_posix(): file for file in folder.rglob("*.json")}
    recorded = {
        name: cell for name, cell in read_records(folder.parent / FILE).items() if name.startswith(f"{folder.name}/")
    }
    for name in in_order(paths.keys() | recorded.keys()):
        file = folder.parent / name
        cell = _read(file, _IN_CELL) if name in paths else _with_keys(file, recorded[name], _IN_CELL)
        _check(file, cell, about)
        kind = tuple(cell[key] for key in (*KIND, "seed"))
        if kind in files:
            raise BadInput(f"{files[kind]} and {file} are the same cell; take one away")
        files[kind] = file
        galaxies = tuple(cell[key] for key in ("galaxies", "test_galaxies")), len(_replicates(cell)[0])
        other, theirs = of_seed.setdefault((cell["task"], cell["share"], cell["seed"]), (file, galaxies))
        if theirs != galaxies:
            raise BadInput(
                f"{other} and {file} are not of the same galaxies, and cannot be compared; measure one again"
            )
        cells.append(cell)
    if not cells:
        raise BadInput(f"{folder}: there is no cell of a benchmark in it")
    if len({len(each) for cell in cells for each in _replicates(cell)}) > 1:
        raise BadInput(f"{folder}: its cells have different numbers of replicates; measure them again")
    return cells


def _read(file, keys):
    try:
        data = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be read as JSON ({error})") from error
    return _with_keys(file, data, keys)


def _with_keys(file, data, keys):
    for key, kind in keys.items():
        if not isinstance(data, dict) or not isinstance(data.get(key), kind):
            raise BadInput(
                f"{file}: is broken, as its {key} is missing or of a wrong kind; remove it, and make it again"
            )
    return data


def _check(file, cell, about):
    for key, known in (("task", "tasks"), ("start", "starts"), ("mode", "modes")):
        if cell[key] not in about[known]:
            raise BadInput(f"{file}: its {key} {cell[key]} is not among those of {ABOUT} ({', '.join(about[known])})")
    task = about["tasks"][cell["task"]]
    if cell["task"] in about["starts"][cell["start"]]["learnt_from"]:
        raise BadInput(f"{file}: {cell['start']} has learnt from galaxies of {cell['task']}; remove the cell")
    if cell["measure"] != task["measure"] or cell["measure"] not in cell["figures"]:
        raise BadInput(f"{file}: lacks the measure of its task, {task['measure']}")
    for name, figure in cell["figures"].items():
        least = -1e-9  # an excess of 0, rounded
        value = figure.get("model")
        if (value is None and name == cell["measure"]) or (value is not None and not least <= value < math.inf):
            raise BadInput(f"{file}: {name} is {value}, but losses are numbers of 0 or more; measure it again")
        if not figure.get("replicates"):
            raise BadInput(f"{file}: {name} lacks the replicates of a bootstrap; measure it again")


def _replicates(cell):
    return [figure["replicates"] for figure in cell["figures"].values()]


def points_of(cells: list[dict], about: dict) -> "pd.DataFrame":
    """What the cells measured, one row for each cell and figure, in the order of tasks, starts, modes and shares.

    Columns: `task`, `start`, `mode`, `share` (of the labels), `seed`; `galaxies` (learnt from), `test_galaxies`; `measure`,
    and `main`, whether it is the one of the task; `loss`, `baseline`; `replicates`, (R,) the loss in those of a bootstrap over
    test galaxies, no number where it is not defined; `backbone`, `parameters`, `seconds`; `hyperparameter`, the one `chosen`
    on validation, and the `edge` of its grid that it lies at, "lowest", "highest" or "none".
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
                        "replicates": np.array(figure["replicates"], float),  # None becomes no number
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


def results_of(cells: list[dict], about: dict) -> dict:
    """All that the benchmark shows, as plain numbers for results.json. Intervals are of 90 %.

    `seeds` says how many are in a number; with one there is no interval, and `low` and `high` are None, as they are where a
    figure is not defined in more than a tenth of the replicates, for lack of galaxies. Intervals are those of seeds that are
    drawn anew with the folds and subsets they have; that all learn from parts of the same galaxies is not in them.

    Args:
        cells: as `read_cells` gives them.
        about: as `read_about` gives it.

    Returns:
        `data`: what was measured, and `missing`, what was not, in words; `means`: for each kind of cells and measure the
        `runs` and their mean `value`, beside the `baseline`; `reductions`: the relative error-rate reduction
        (reference - start) / reference, for each measure; `averages`: its mean over the `tasks` of which the start and the
        reference have the main measure; `linear`: for each start the loss of linear probes over that of full finetuning, and
        `linear_averages`, over tasks; `labels`: how many galaxies a start needs to fall to the loss that the reference has
        with all, how many times fewer that are, and how many that saves; `amounts`: the exponents of power laws in the
        galaxies that starts have learnt from, and `amount_averages`, over tasks; `sizes`: what a larger model brings, of starts that say `size_of` which
        family they are; `choices`: which hyper-parameters were chosen, and of the cells `choosing` among several, how many took
        the lowest and the highest. An `error` that is "less" or "more" than what it is compared with is so at 90 %; "not
        shown" is neither, "not known" has no interval.
    """
    points = points_of(cells, about)
    kinds = {}
    for row in points.itertuples():
        kinds.setdefault((row.measure, row.task, row.start, row.mode, row.share), {})[row.seed] = row
    reductions, drawn = _reductions(kinds, about)
    linear, of_linear = _linear(kinds, about)
    amounts, of_amounts = amounts_of(kinds, about)
    return {
        "data": _data(cells, points, about),
        "means": [_mean(*each) for each in kinds.items()],
        "reductions": reductions,
        "averages": _averages(reductions, drawn, ["start", "mode", "share"], about, lambda value: -value),
        "linear": linear,
        "linear_averages": _averages(linear, of_linear, ["start", "share"], about, lambda value: value - 1),
        "labels": labels_of(kinds, about),
        "amounts": amounts,
        "amount_averages": _averages(amounts, of_amounts, ["series", "mode", "share"], about, lambda value: -value),
        "sizes": _sizes(kinds, about),
        "choices": _choices(cells, about),
    }


def _mean(key, part):
    value, draws, seeds = mean_and_draws([part], "mean", *key)
    runs = list(part.values())
    return dict(zip(["measure", *KIND], key, strict=True)) | {
        "main": runs[0].main,
        "galaxies": round(np.mean([run.galaxies for run in runs])),
        "test_galaxies": round(np.mean([run.test_galaxies for run in runs])),
        "seeds": seeds,
        "runs": [run.loss for run in runs],
        **estimate_of(value[0], draws[0]),
        "baseline": plain(np.mean([run.baseline for run in runs])),
    }


def _reductions(kinds, about):
    """(measure, task, start, mode, share) -> cells of each seed: what each start brought against the reference; and the draws of that for the main measure of each task."""
    found, drawn = [], {}
    for key, part in kinds.items():
        measure, task, start, mode, share = key
        other = kinds.get((measure, task, about["reference"], mode, share))
        if start == about["reference"] or other is None:
            continue
        (reference, value), draws, seeds = mean_and_draws([other, part], "reduction", *key)
        estimate = estimate_of(1 - ratios(value, reference), 1 - ratios(draws[1], draws[0]))
        main = is_main(part)
        row = dict(zip(["measure", *KIND], key, strict=True)) | {"main": main, "seeds": seeds, **estimate}
        found.append(row | {"error": error_of(estimate, lambda value: -value)})
        if main:
            drawn[task, start, mode, share] = 1 - ratios(draws[1], draws[0])
    return found, drawn


def _linear(kinds, about):
    found, drawn = [], {}
    for (measure, task, start, mode, share), part in kinds.items():
        other = kinds.get((measure, task, start, FULL, share))
        if mode != LINEAR or other is None or not is_main(part):
            continue
        (full, value), draws, seeds = mean_and_draws([other, part], "linear", task, start, share)
        estimate = estimate_of(ratios(value, full), ratios(draws[1], draws[0]))
        row = {"task": task, "start": start, "share": share, "measure": measure, "main": True, "seeds": seeds}
        found.append(row | estimate | {"error": error_of(estimate, lambda value: value - 1)})
        drawn[task, start, share] = ratios(draws[1], draws[0])
    return found, drawn


def _averages(rows, drawn, alike, about, change):
    """Means over tasks, of main measures; replicates of tasks with galaxies in common belong together, seeds do not."""
    groups = {}
    for row in rows:
        if row["main"] and row["value"] is not None:
            groups.setdefault(tuple(row[key] for key in alike), []).append(row)
    found = []
    for key, group in groups.items():
        tasks = [row["task"] for row in group]
        draws = np.mean([drawn[task, *key] for task in tasks], axis=0)
        estimate = estimate_of(np.mean([row["value"] for row in group]), draws)
        own = dict(zip(alike, key, strict=True))
        own |= {"tasks": tasks, "without": [task for task in about["tasks"] if task not in tasks]}
        found.append(own | estimate | {"error": error_of(estimate, change)})
    return found


# Sizes of models, and choices


def _sizes(kinds, about):
    """The next larger model beside each of a family."""
    families = {}
    for name, start in about["starts"].items():
        if start.get("size_of"):
            families.setdefault(start["size_of"], []).append(name)
    found = []
    for family, names in families.items():
        sizes = {key[2]: run.parameters for key, part in kinds.items() for run in part.values() if key[2] in names}
        names = sorted(sizes, key=sizes.get)
        for small, large in itertools.pairwise(names):
            for key, part in kinds.items():
                measure, task, start, mode, share = key
                other = kinds.get((measure, task, small, mode, share))
                if start != large or other is None or not is_main(part):
                    continue
                (less, more), draws, seeds = mean_and_draws([other, part], "size", *key)
                estimate = estimate_of(1 - ratios(more, less), 1 - ratios(draws[1], draws[0]))
                parameters = [int(sizes[name]) for name in (small, large)]
                row = {
                    "family": family,
                    "small": small,
                    "large": large,
                    "parameters": parameters,
                    "task": task,
                    "mode": mode,
                }
                row |= {"share": share, "measure": measure, "seeds": seeds, **estimate}
                found.append(row | {"error": error_of(estimate, lambda value: -value)})
    return found


def _choices(cells, about):
    found = []
    for mode, start in itertools.product(about["modes"], about["starts"]):
        own = [cell for cell in cells if (cell["mode"], cell["start"]) == (mode, start)]
        if not own:
            continue
        chosen, edges = {}, {"choosing": 0, "lowest": 0, "highest": 0}
        for cell in own:
            value, grid = float(cell["chosen"]), sorted(map(float, cell["grid"]))
            chosen[value] = chosen.get(value, 0) + 1
            if len(grid) > 1:  # else another cell has chosen for it
                edges["choosing"] += 1
                edges["lowest"] += value == grid[0]
                edges["highest"] += value == grid[-1]
        found.append({
            "mode": mode, "start": start, "hyperparameter": own[0]["hyperparameter"], "cells": len(own),
            "grids": [list(grid) for grid in sorted({tuple(sorted(map(float, cell["grid"]))) for cell in own})],
            "chosen": {f"{value:g}": chosen[value] for value in sorted(chosen)}, **edges,
        })  # fmt: skip
    return found


def _data(cells, points, about):
    pairs = list(itertools.product(about["starts"], about["tasks"]))
    purpose = [(start, task) for start, task in pairs if task in about["starts"][start]["learnt_from"]]
    lacking = []
    for start, mode in itertools.product(about["starts"], about["modes"]):
        tasks = sum((start, task) not in purpose for task in about["tasks"])
        expected = tasks * len(about["shares"]) * len(about["seeds"])
        there = sum((cell["start"], cell["mode"]) == (start, mode) for cell in cells)
        if there < expected:
            lacking.append(f"{start}, {mode}: {there} of {expected} cells are there")
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
        "learnt_from": [f"{start} on {task}" for start, task in purpose],
        "missing": lacking,
    }
