"""Simulated cells of a downstream benchmark, for tests of its results, page and figures."""

import json
from pathlib import Path

import numpy as np

TASKS = {
    "gz1": ("Galaxy Zoo 1 in six classes", "classes", "error", 0.30, 4645),
    "merger": ("Galaxy Zoo 1: mergers against all the rest", "classes", "balanced_error", 0.25, 4645),
    "rings": ("Rings in DECaLS", "classes", "error", 0.35, 376),
    "hart": ("Galaxy Zoo 2 votes on bars, arms and bulges", "votes", "excess", 9.0, 800),
    "ceers": ("CEERS votes", "votes", "excess", 22.0, 2921),
}  # title, kind, measure, loss of ImageNet's full finetuning with all labels, galaxies
STARTS = {  # share of ImageNet's loss; tasks that it was pretrained with
    "random": ("Random weights", 1.6, []),
    "imagenet": ("ImageNet", 1.0, []),
    "gz2_votes": ("ImageNet, then the vote fractions of Galaxy Zoo 2", 0.75, []),
    "gz2_classes": ("ImageNet, then five classes cut from Galaxy Zoo 2", 0.85, []),
    "ceers": ("ImageNet, then the votes of CEERS", 1.1, ["ceers"]),
    "mixed": ("ImageNet, then the votes of Galaxy Zoo 2, of CEERS and five classes, mixed by weights", 0.7, ["ceers"]),
    "mock": ("ImageNet, then 100,000 galaxies of the mock survey, then the votes of Galaxy Zoo 2", 0.8, []),
}
SHARES, SEEDS, MODES = (1 / 64, 1 / 16, 1 / 4, 1.0), (1, 2, 3), ("linear", "full")
GRIDS = {"linear": [1e-4, 1e-3, 1e-2], "full": [1e-5, 1e-4, 1e-3]}
FALLS, WORSE = 0.25, 1.1  # exponent of galaxies; linear over full


def truth(task, start, mode, share):
    """The loss without noise."""
    return TASKS[task][3] * STARTS[start][1] * share**-FALLS * (WORSE if mode == "linear" else 1)


def about(tasks=TASKS, starts=STARTS, shares=SHARES, seeds=SEEDS) -> dict:
    """benchmark.json"""
    return {
        "title": "Downstream tasks: made up",
        "command": "python scripts/benchmark_downstream.py --out results/made_up",
        "tasks": {
            name: {
                "title": TASKS[name][0], "dataset": f"data/{name}", "kind": TASKS[name][1], "measure": TASKS[name][2],
                "note": "made up", "folds": True,
            }
            for name in tasks
        },
        "starts": {
            name: {
                "title": STARTS[name][0], "weights": f"weights/{name}", "galaxies": name not in ("random", "imagenet"),
                "learnt_from": STARTS[name][2], "looked": True, "began": "weights/imagenet" if STARTS[name][2] else None,
                "pretraining": [{"dataset": f"data/{each}", "galaxies": 30_000, "command": ""} for each in STARTS[name][2]],
            }
            for name in starts
        },
        "modes": list(MODES), "shares": list(shares), "seeds": list(seeds), "reference": "imagenet", "grids": GRIDS,
        "fixed": {"backbone": "tf_efficientnet_lite0", "pictures": "64 px", "linear": "L-BFGS", "full": "AdamW"},
    }  # fmt: skip


def cells(
    tasks=TASKS, starts=STARTS, shares=SHARES, seeds=SEEDS, modes=MODES, noise=0.02, replicates=50, seed=0
) -> list:
    """One for each task, start, mode, share and seed, except for tasks that a start was pretrained with."""
    rng = np.random.default_rng(seed)
    measured = []
    for task in tasks:
        _, kind, measure, _, galaxies = TASKS[task]
        for each in seeds:
            # Folds are harder or easier for all starts alike, and so are the galaxies in the replicates.
            fold = np.exp(2 * noise * rng.standard_normal())
            luck = 1 + 2 * noise * rng.standard_normal(replicates)
            for share in shares:
                for start in starts:
                    if task in STARTS[start][2]:
                        continue
                    for mode in modes:
                        loss = truth(task, start, mode, share) * fold * np.exp(noise * rng.standard_normal())
                        replicated = loss * luck * (1 + noise / 2 * rng.standard_normal(replicates))
                        figures = {measure: figure(loss, replicated, 1.5)}
                        if kind == "classes":
                            figures |= {"nll": figure(3 * loss, 3 * replicated, 1.5)}
                        if task == "merger":
                            holes = [None, *(replicated[1:] / 2)]
                            figures["missed_precision"] = {"model": loss / 2, "baseline": 0.9, "replicates": holes}
                        grid = GRIDS[mode]
                        measured.append({
                            "task": task, "start": start, "mode": mode, "share": share, "seed": each,
                            "galaxies": max(8, int(galaxies * share)), "test_galaxies": galaxies // 4, "measure": measure,
                            "grid": {str(value): 0.6 for value in grid}, "chosen": grid[(each + len(start)) % 3],
                            "hyperparameter": "penalty" if mode == "linear" else "learning_rate", "figures": figures,
                            "parameters": 3_400_000, "backbone": "tf_efficientnet_lite0", "seconds": 10.0, "command": "",
                            "environment": {},
                        })  # fmt: skip
    return measured


def figure(loss, replicated, baseline):
    return {"model": float(loss), "baseline": baseline, "replicates": [float(value) for value in replicated]}


def write(folder: Path, measured: list, of: dict) -> Path:
    """As the benchmark leaves them."""
    for cell in measured:
        name = f"{cell['mode']},share=1-{round(1 / cell['share'])},seed={cell['seed']}.json"
        file = folder / "cells" / cell["task"] / cell["start"] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(cell))
    (folder / "benchmark.json").write_text(json.dumps(of))
    return folder
