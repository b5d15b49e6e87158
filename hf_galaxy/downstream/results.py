"""The results of a downstream benchmark, computed from its cells: plain numbers for results.json.

A cell is one task, trained from one start in one mode (linear probe or full finetuning), with one share of the labels and one
seed. Figures are losses: less is better. Cells of the same task, share and seed were trained and tested on the same galaxies,
and their replicates count the same galaxies; so the terms of a comparison are drawn together (`comparison.Comparison`).
"""

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_galaxy.downstream.cell_files import KIND, pretrainings_of
from hf_galaxy.downstream.comparison import Comparison, Contrast, average_draws
from hf_galaxy.downstream.families import FAMILIES, HEADLINE, measure_in
from hf_galaxy.downstream.label_efficiency import is_main, labels_of
from hf_galaxy.evaluation.bootstrap import estimate_of, or_none, ratios, verdict_of

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]  # of results.json
Kinds = dict[tuple, dict[int, Any]]  # (measure, task, start, mode, share) -> seed -> row of `points_of`
Comparisons = dict[tuple, Comparison]

LINEAR, FULL = "linear", "full"


def points_of(cells: list[dict[str, Any]], about: dict[str, Any]) -> "pd.DataFrame":
    """The measured losses, one row for each cell and measure, in the order of tasks, starts, modes and shares.

    Columns: `task`, `start`, `mode`, `share` (of the labels), `seed`; `galaxies` (of the training set), `test_galaxies`;
    `measure`, and `main`, whether the task is compared by it; `loss`, `baseline`; `replicates`, (R,) the loss in the replicates
    of a bootstrap over test galaxies, NaN where it is not defined; `pretraining`, which of the `pretrainings` of its start it is of;
    `backbone`, `parameters`, `seconds`; `hyperparameter`, its value `chosen` on the validation split, and the `edge` of its grid where this value lies, "lowest", "highest" or "none".
    """
    import pandas as pd

    rows = []
    for cell in cells:
        grid = sorted(map(float, cell["grid"]))
        edges = {grid[0]: "lowest", grid[-1]: "highest"} if len(grid) > 1 else {}
        own = {key: cell[key] for key in (*KIND, "seed", "galaxies", "test_galaxies")}
        own["pretrainings"] = pretrainings_of(about, cell["start"])
        # Cells of before there were several have one, but for random weights.
        own["pretraining"] = cell.get(
            "pretraining", cell["seed"] if about["starts"][cell["start"]]["weights"] is None else 1
        )
        measure = about["tasks"][cell["task"]]["measure"]
        for name, figure in cell["figures"].items():
            if figure["model"] is not None:
                rows.append(
                    own
                    | {
                        "measure": name,
                        "main": name == measure,
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

    `seeds` is the number of seeds in a number. `low` and `high` are None with one seed, or with one of several pretrainings, and
    where a figure is not defined in more than a tenth of the replicates, for lack of galaxies. Intervals hold for other seeds, folds
    and subsets, and for other pretrainings where a start has several (`data.pretrainings`); that all train on parts of
    the same galaxies is not in them.

    Args:
        cells: from `read_cells`.
        about: from `read_about`.

    Returns:
        `data`: the extent of the benchmark, and in `missing` the cells that it lacks, in words.
        `means`: for each kind of cells and measure the losses of the `runs` and their mean `value`, beside the `baseline`, and the
            relative reduction against this constant prediction (`constant`).
        `reductions`: the relative error-rate reduction (reference - start) / reference, for each measure.
        `averages`: its mean over the `tasks` of which the start and the reference have a measure of the `family`.
        `linear`: for each start the loss of linear probes over that of full finetuning; `linear_averages`: over tasks.
        `labels`: see `label_efficiency.labels_of`.
        `choices`: the hyper-parameters chosen, and of the cells `choosing` among several, how many took the lowest and the highest.
        An `error` that is "less" or "more" than that of the comparison is so at 90 %; "not shown" is neither, "not known" has
        no interval.
    """
    points = points_of(cells, about)
    kinds = kinds_of(points)
    reductions, compared = _reductions(kinds, about)
    linear, linear_compared = _linear(kinds, about)
    return {
        "data": _data(cells, points, about),
        "means": [_mean(*each) for each in kinds.items()],
        "reductions": reductions,
        "averages": _averages(reductions, compared, about),
        "linear": linear,
        "linear_averages": _means_over_tasks(
            linear, linear_compared, ["start", "share"], about, _ratio, lambda value: value - 1
        ),
        "labels": labels_of(kinds, about),
        "choices": _choices(cells, about),
    }


def _mean(key: tuple, part: dict[int, Any]) -> Row:
    comparison = Comparison.of([_constant(part), part])
    assert comparison is not None, "a kind has a cell"
    draws = comparison.draws("mean", *key)
    runs = list(part.values())
    (constant, value), gain = comparison.means, estimate_of(_reduction(comparison.means), _reduction(draws))
    return dict(zip(["measure", *KIND], key, strict=True)) | {
        "main": runs[0].main,
        "galaxies": round(np.mean([run.galaxies for run in runs])),
        "test_galaxies": round(np.mean([run.test_galaxies for run in runs])),
        "seeds": comparison.seeds,
        "runs": [run.loss for run in runs],
        **estimate_of(value, draws[1]),
        "baseline": or_none(constant),
        "constant": gain | {"error": verdict_of(gain, operator.neg)},
    }


def _constant(part: dict[int, Any]) -> dict[int, Any]:
    """The constant prediction in place of the model, as a row of each seed. Its replicates are not in the cells: it has no galaxies to be unlucky with."""
    return {
        seed: SimpleNamespace(
            loss=row.baseline, replicates=np.full_like(row.replicates, row.baseline),
            pretraining=row.pretraining, pretrainings=row.pretrainings,
        )
        for seed, row in part.items()
    }  # fmt: skip


def _reduction(losses: np.ndarray) -> Any:
    """The error-rate reduction of the second kind against the first."""
    return 1 - ratios(losses[1], losses[0])


def _ratio(losses: np.ndarray) -> Any:
    """The second kind over the first."""
    return ratios(losses[1], losses[0])


def _reductions(kinds: Kinds, about: dict[str, Any]) -> tuple[list[Row], Comparisons]:
    """The error-rate reductions of each start against the reference, and the comparisons that they are of."""
    rows, compared = [], {}
    for key, part in kinds.items():
        measure, task, start, mode, share = key
        other = kinds.get((measure, task, about["reference"], mode, share))
        if start == about["reference"] or other is None or (comparison := Comparison.of([other, part])) is None:
            continue
        estimate = estimate_of(_reduction(comparison.means), _reduction(comparison.draws("reduction", *key)))
        row = dict(zip(["measure", *KIND], key, strict=True))
        row |= {"main": is_main(key, about), "seeds": comparison.seeds, **estimate}
        rows.append(row | {"error": verdict_of(estimate, operator.neg)})
        compared[key] = comparison
    return rows, compared


def _linear(kinds: Kinds, about: dict[str, Any]) -> tuple[list[Row], Comparisons]:
    """The losses of linear probes over those of full finetuning, and the comparisons that they are of."""
    rows, compared = [], {}
    for key, part in kinds.items():
        measure, task, start, mode, share = key
        other = kinds.get((measure, task, start, FULL, share))
        if mode != LINEAR or other is None or not is_main(key, about):
            continue
        if (comparison := Comparison.of([other, part])) is None:
            continue
        estimate = estimate_of(_ratio(comparison.means), _ratio(comparison.draws("linear", task, start, share)))
        row = {
            "task": task,
            "start": start,
            "share": share,
            "measure": measure,
            "main": True,
            "seeds": comparison.seeds,
        }
        rows.append(row | estimate | {"error": verdict_of(estimate, lambda value: value - 1)})
        compared[key] = comparison
    return rows, compared


def _averages(rows: list[Row], compared: Comparisons, about: dict[str, Any]) -> list[Row]:
    """Mean reductions over tasks, for each start, mode and share; with the most labels by each family of measures."""
    averages = []
    most = max((row["share"] for row in rows), default=None)
    measures = {task: {row["measure"] for row in rows if row["task"] == task} for task in about["tasks"]}
    for family in FAMILIES:
        chosen = {task: measure_in(family, own, about["tasks"][task]["measure"]) for task, own in measures.items()}
        of_family = (row for row in rows if row["measure"] == chosen[row["task"]])
        own = [row for row in of_family if family == HEADLINE or row["share"] == most]
        for row in _means_over_tasks(own, compared, ["start", "mode", "share"], about, _reduction, operator.neg):
            averages.append({"family": family, "measures": [chosen[task] for task in row["tasks"]], **row})
    return averages


def _means_over_tasks(
    rows: list[Row], compared: Comparisons, keys: Sequence[str], about: dict[str, Any], contrast: Contrast,
    change: Callable[[float], float],
) -> list[Row]:  # fmt: skip
    """Means over tasks for each combination of the values of `keys`, of rows that have one measure for each task."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["value"] is not None:
            groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    averages = []
    datasets = {name: task["dataset"] for name, task in about["tasks"].items()}
    for key, group in groups.items():
        own = {row["task"]: compared[tuple(row.get(k, LINEAR) for k in ("measure", *KIND))] for row in group}
        measures = " ".join(row["measure"] for row in group)
        draws = average_draws(own, datasets, contrast, "average", contrast.__name__, measures, *key)
        estimate = estimate_of(np.mean([row["value"] for row in group]), draws)
        averages.append(dict(zip(keys, key, strict=True)) | {
            "tasks": list(own), "without": [task for task in about["tasks"] if task not in own],
            **estimate, "error": verdict_of(estimate, change),
        })  # fmt: skip
    return averages


def headline_averages(results: dict[str, Any]) -> list[Row]:
    """The average reductions in the measure of each task."""
    return [row for row in results["averages"] if row["family"] == HEADLINE]


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
        "pretrainings": {start: pretrainings_of(about, start) for start in about["starts"]},
        "backbones": sorted(set(points["backbone"])),
        "hours": float(main["seconds"].sum() / 3600),
        "learnt_from": [f"{start} on {task}" for start, task in pretrained],
        "missing": missing,
    }
