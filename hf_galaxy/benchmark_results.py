"""Cells of the downstream benchmark -> plain numbers for results.json: what pretraining on galaxies brought, and what not.

A cell is one task, learnt from one start in one mode (linear probe or full finetuning), with one share of the labels and one
seed. Figures are losses: less is better. Cells of equal task, share and seed learnt from the same galaxies and were measured
on the same, and their replicates count the same galaxies; so whatever is compared is drawn together (`draws_of`).

C: kinds of runs; S: seeds; R: replicates of the bootstrap over test galaxies; D = TIMES x R: draws; K: numbers of galaxies.
"""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from hf_galaxy.bootstrap import key_of, ratios
from hf_galaxy.errors import BadInput
from hf_galaxy.scaling import LEVEL

CELLS, ABOUT = "cells", "benchmark.json"  # what the benchmark leaves in its folder
LINEAR, FULL = "linear", "full"
TIMES = 5  # draws of seeds for each replicate
DEFINED = 0.9  # share of the replicates that a figure must be defined in; those left would not be typical
LEAST = 1e-12  # in place of a loss of 0, whose logarithm is none
FEWER, MORE = "fewer", "more"  # than was measured
MEASURES = {
    "error": "share of galaxies in a wrong class",
    "balanced_error": "the same, each class counted alike",
    "nll": "cross-entropy (nats per galaxy)",
    "missed_auc": "1 - area under the ROC curve",
    "missed_precision": "1 - average precision",
    "rmse": "root of the mean squared error (of values, or of vote fractions)",
    "excess": "likelihood loss above the least possible (nats per galaxy)",
}
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
    """All cells below a folder, in the order of their names.

    Raises:
        BadInput: there is none; one is broken, or of another task, start or mode than `about` has, or there twice; it is of a
            task that its start has learnt from; or cells that belong together are not of the same galaxies.
    """
    cells, files, of_seed = [], {}, {}
    for file in sorted(folder.rglob("*.json")):
        cell = _read(file, _IN_CELL)
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


def points_of(cells: list[dict], about: dict) -> pd.DataFrame:
    """What the cells measured, one row for each cell and figure, in the order of tasks, starts, modes and shares.

    Columns: `task`, `start`, `mode`, `share` (of the labels), `seed`; `galaxies` (learnt from), `test_galaxies`; `measure`,
    and `main`, whether it is the one of the task; `loss`, `baseline`; `replicates`, (R,) the loss in those of a bootstrap over
    test galaxies, no number where it is not defined; `backbone`, `parameters`, `seconds`; `hyperparameter`, the one `chosen`
    on validation, and the `edge` of its grid that it lies at, "lowest", "highest" or "none".
    """
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
        with all, and how many times fewer that are; `sizes`: what a larger model brings, of starts that say `size_of` which
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
    return {
        "data": _data(cells, points, about),
        "means": [_mean(*each) for each in kinds.items()],
        "reductions": reductions,
        "averages": _averages(reductions, drawn, ["start", "mode", "share"], about, lambda value: -value),
        "linear": linear,
        "linear_averages": _averages(linear, of_linear, ["start", "share"], about, lambda value: value - 1),
        "labels": _labels(kinds, about),
        "sizes": _sizes(kinds, about),
        "choices": _choices(cells, about),
    }


def draws_of(values: np.ndarray, replicates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(C, D) mean losses of several kinds of runs, as they could have come out together with other seeds and other galaxies.

    As `bootstrap.mean_draws`, but of all kinds at once: seeds and galaxies that are hard for one are hard for the others as
    far as they were so here. Both change a loss by a factor, so that none falls below 0. Where seeds have test galaxies of
    their own (folds), these are a part of how seeds differ; `_not_of_seeds` keeps them from being counted twice. No number
    with a single seed, nor in replicates that one kind is not defined in.

    Args:
        values: (C, S) of seeds that all kinds have.
        replicates: (C, S, R) the same in the replicates of a bootstrap over galaxies.
    """
    kinds, seeds, count = replicates.shape
    if seeds < 2:
        return np.full((kinds, TIMES * count), np.nan)  # nothing is known of how seeds differ
    mean = np.maximum(values.mean(axis=1, keepdims=True), LEAST)
    off = values / mean - 1
    galaxies = np.log(np.maximum(replicates.mean(axis=1), LEAST) / mean)
    galaxies = galaxies * _not_of_seeds(replicates / mean[..., None] - 1 - off[..., None], galaxies)
    # A deviate of Student's t for each draw, which moves all kinds by what they have in common in their seeds.
    normal = rng.standard_normal((seeds, TIMES * count)) / (seeds * (seeds - 1)) ** 0.5
    student = (normal - normal.mean(axis=0)) / (rng.chisquare(seeds - 1, TIMES * count) / (seeds - 1)) ** 0.5
    draws = mean * np.exp(np.clip(np.repeat(galaxies, TIMES, axis=1) + off @ student, -50, 50))
    return np.where(np.isfinite(draws).all(axis=0), draws, np.nan)


def _not_of_seeds(own, galaxies):
    """How much of what galaxies change in comparisons of kinds is not in the differences among seeds already: a factor.

    A mean over seeds varies by what replicates have in common in all seeds, and by 1 / S of what each seed has for itself; of
    the latter the differences among seeds tell by themselves.

    Args:
        own: (C, S, R) relative deviations in the replicates of each seed.
        galaxies: (C, R) those of the means over seeds.
    """
    known = np.isfinite(galaxies).all(axis=0)
    if not known.any():
        return 0.0
    own, galaxies = own[..., known], galaxies[:, known]
    if len(own) > 1:
        own, galaxies = own - own.mean(axis=0), galaxies - galaxies.mean(axis=0)
    of_mean, of_seeds = galaxies.var(axis=1).sum(), own.var(axis=1, ddof=1).mean(axis=1).sum() / own.shape[1]
    return max(0.0, 1 - of_seeds / of_mean) ** 0.5 if of_mean > 0 else 0.0


def _drawn(parts, *name):
    """(C,) mean losses over the seeds that all parts have, draws of them (C, D), and how many seeds there are."""
    seeds = sorted(set.intersection(*map(set, parts)))
    if not seeds:
        return np.full(len(parts), np.nan), np.full((len(parts), 1), np.nan), 0
    values = np.array([[part[seed].loss for seed in seeds] for part in parts])
    replicates = np.array([[part[seed].replicates for seed in seeds] for part in parts])
    # By name, so that a number does not change when others are added, and tasks are not drawn alike.
    rng = np.random.default_rng(key_of(" ".join(map(str, name))))
    return values.mean(axis=1), draws_of(values, replicates, rng), len(seeds)


def _estimate(value, draws):
    known = np.isfinite(draws)
    low = high = None
    if np.isfinite(value) and known.mean() >= DEFINED:
        low, high = np.quantile(draws[known], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return {"value": _plain(value), "low": low, "high": high}


def _error(estimate, change=lambda value: value):
    """Whether the error is less or more, by how an estimate says that it changes."""
    if estimate["low"] is None:
        return "not known"
    ends = change(estimate["low"]), change(estimate["high"])
    return "less" if max(ends) < 0 else "more" if min(ends) > 0 else "not shown"


def _plain(value):
    return float(value) if np.isfinite(value) else None


def _mean(key, part):
    value, draws, seeds = _drawn([part], "mean", *key)
    runs = list(part.values())
    return dict(zip(["measure", *KIND], key, strict=True)) | {
        "main": runs[0].main,
        "galaxies": round(_galaxies(part)),
        "test_galaxies": round(np.mean([run.test_galaxies for run in runs])),
        "seeds": seeds,
        "runs": [run.loss for run in runs],
        **_estimate(value[0], draws[0]),
        "baseline": _plain(np.mean([run.baseline for run in runs])),
    }


def _galaxies(part):
    return np.mean([run.galaxies for run in part.values()])


def _main(part):
    """Whether a figure is the measure of its task."""
    return next(iter(part.values())).main


def _reductions(kinds, about):
    """(measure, task, start, mode, share) -> cells of each seed: what each start brought against the reference; and the draws of that for the main measure of each task."""
    found, drawn = [], {}
    for key, part in kinds.items():
        measure, task, start, mode, share = key
        other = kinds.get((measure, task, about["reference"], mode, share))
        if start == about["reference"] or other is None:
            continue
        (reference, value), draws, seeds = _drawn([other, part], "reduction", *key)
        estimate = _estimate(1 - ratios(value, reference), 1 - ratios(draws[1], draws[0]))
        main = _main(part)
        row = dict(zip(["measure", *KIND], key, strict=True)) | {"main": main, "seeds": seeds, **estimate}
        found.append(row | {"error": _error(estimate, lambda value: -value)})
        if main:
            drawn[task, start, mode, share] = 1 - ratios(draws[1], draws[0])
    return found, drawn


def _linear(kinds, about):
    found, drawn = [], {}
    for (measure, task, start, mode, share), part in kinds.items():
        other = kinds.get((measure, task, start, FULL, share))
        if mode != LINEAR or other is None or not _main(part):
            continue
        (full, value), draws, seeds = _drawn([other, part], "linear", task, start, share)
        estimate = _estimate(ratios(value, full), ratios(draws[1], draws[0]))
        row = {"task": task, "start": start, "share": share, "measure": measure, "main": True, "seeds": seeds}
        found.append(row | estimate | {"error": _error(estimate, lambda value: value - 1)})
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
        estimate = _estimate(np.mean([row["value"] for row in group]), draws)
        own = dict(zip(alike, key, strict=True))
        own |= {"tasks": tasks, "without": [task for task in about["tasks"] if task not in tasks]}
        found.append(own | estimate | {"error": _error(estimate, change)})
    return found


# Labels


def _labels(kinds, about):
    found = []
    main = {key[1:]: (key[0], part) for key, part in kinds.items() if _main(part)}
    for task, start, mode in itertools.product(about["tasks"], about["starts"], about["modes"]):
        shares = [
            share
            for share in sorted({key[-1] for key in main})
            if {(task, who, mode, share) for who in (start, about["reference"])} <= main.keys()
        ]
        if start == about["reference"] or len(shares) < 2:
            continue
        parts = [main[task, who, mode, share][1] for who in (about["reference"], start) for share in shares]
        means, draws, seeds = _drawn(parts, "labels", task, start, mode)
        if not seeds:
            continue
        sizes = np.array([_galaxies(part) for part in parts[: len(shares)]])
        (target,), (needed,), (factor,) = (each.tolist() for each in _needed(sizes, means[:, None]))
        _, of_needed, of_factor = _needed(sizes, draws)
        found.append({
            "task": task, "start": start, "mode": mode, "measure": main[task, start, mode, shares[0]][0], "seeds": seeds,
            "target": target, "least": round(sizes[0]), "most": round(sizes[-1]),
            "galaxies": _ends(needed, of_needed, lambda value: math.ceil(value - 1e-6)),
            "factor": _ends(factor, of_factor, float),
        })  # fmt: skip
    return found


def _needed(sizes, losses):
    """Of (2 K, D) losses of the reference and of a start: the reference's with all galaxies, the galaxies that the start
    needs for it, and the reference's need over that."""
    reference, start = (falling(np.log(np.maximum(part, LEAST)).T) for part in np.split(losses, 2))
    target = reference[:, -1]
    theirs = np.clip(galaxies_for(sizes, reference, target), sizes[0], sizes[-1])
    needed = galaxies_for(sizes, start, target)
    with np.errstate(divide="ignore"):  # a start that needs less than was measured saves more than can be told
        factor = np.where(needed > 0, theirs / np.abs(needed), np.inf)
    return np.exp(target), needed, np.where(np.isnan(needed), np.nan, factor)


def falling(curves: np.ndarray) -> np.ndarray:
    """(D, K) the nearest curves, by least squares, that never rise: chance alone lets a loss rise with more labels.

    The min-max formula of isotonic regression (Barlow et al. 1972).
    """
    sums = np.cumsum(np.pad(curves, ((0, 0), (1, 0))), axis=1)
    size = curves.shape[1]

    def mean(first, last):
        return (sums[:, last + 1] - sums[:, first]) / (last + 1 - first)

    return np.stack(
        [
            np.min([np.max([mean(j, k) for k in range(i, size)], axis=0) for j in range(i + 1)], axis=0)
            for i in range(size)
        ],
        axis=1,
    )


def galaxies_for(sizes: np.ndarray, curves: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(D,) where falling curves reach their targets: between two sizes by a power law, beyond them -inf or inf.

    Args:
        sizes: (K,) galaxies, rising.
        curves: (D, K) logarithms of losses, which never rise.
        targets: (D,) such logarithms.
    """
    reached = curves <= targets[:, None] + 1e-12
    after = np.clip(reached.argmax(axis=1), 1, None)
    rows = np.arange(len(curves))
    above, below = curves[rows, after - 1], curves[rows, after]
    part = np.clip(ratios(above - targets, above - below), 0, 1)
    logs = np.log(sizes)
    needed = np.exp(logs[after - 1] + part * (logs[after] - logs[after - 1]))
    needed = np.where(reached[:, 0], -np.inf, np.where(reached[:, -1], needed, np.inf))
    return np.where(np.isfinite(curves).all(axis=1) & np.isfinite(targets), needed, np.nan)


def _ends(value, draws, number):
    """A value and its interval, any of which may lie beyond what was measured."""

    def said(each):
        return MORE if each == np.inf else FEWER if each in (-np.inf, 0) else number(each)

    known = np.sort(draws[~np.isnan(draws)])
    low = high = None
    if len(known) >= DEFINED * len(draws):
        low, high = (said(known[math.ceil(q * len(known)) - 1]) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return {"value": said(value), "low": low, "high": high}


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
                if start != large or other is None or not _main(part):
                    continue
                (less, more), draws, seeds = _drawn([other, part], "size", *key)
                estimate = _estimate(1 - ratios(more, less), 1 - ratios(draws[1], draws[0]))
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
                found.append(row | {"error": _error(estimate, lambda value: -value)})
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
