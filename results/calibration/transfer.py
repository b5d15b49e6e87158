"""Calibrate runs for surveys that they were not trained on, from 50 to 400 of their galaxies, many times; all figures in transfer.json.

    python results/calibration/transfer.py

in a folder with `data/`, the published surveys, and the runs of the study in results/calibration/runs/.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.evaluation.pit import OUTSIDE, PIT_BINS, pit_histogram
from hf_galaxy.files import write_json
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.reading import VotesReading
from hf_galaxy.models.calibration import calibrated_logs
from hf_galaxy.models.calibration_fit import VoteLikelihood, fit_votes
from hf_galaxy.models.start import load_run
from hf_galaxy.training.calibrating import HeldOut
from hf_galaxy.training.task import collect, target_of

RUNS = Path("results/calibration/runs")
PAIRS = (("gz2_votes", "gz2_hart"), ("gz2_hart", "gz2_votes"), ("mock", "gz2_votes"), ("mock", "gz2_hart"))
HEADS = ("mixture", "softplus")
COUNTS = (50, 100, 200, 400)
DRAWS = 40
FOLD = 1  # of the runs
LEVEL = 90
FEWEST = 100  # galaxies that were asked a question
MOST = 1000  # further galaxies on which a draw is measured


def predictions(run: Path, survey: str) -> tuple[HeldOut, tuple[np.ndarray, ...]]:
    """What a run predicts for all galaxies of a survey that it has not seen; votes, x as of `calibration_fit.VoteLikelihood`, and keys."""
    model, record = load_run(run)
    target = target_of(record, model.config)
    rows = list(open_dataset(f"data/{survey}", VotesReading()).values())
    parts = target.measurable(rows, [survey] * len(rows), "all", partly=True)
    held_out = collect(model, target, parts, 128, 0, Accelerator(cpu=True), HeldOut(target, model.config), keyed=True)
    return held_out, tuple(each.numpy() for each in held_out.sample())


def coverage(votes: np.ndarray, x: np.ndarray, tree: DecisionTree, questions: Sequence[int]) -> list[float]:
    """Of each question, the share of its answers whose votes are in the central interval."""
    covered, outside = [], OUTSIDE[LEVEL]
    logs, weights = np.split(x, [votes.shape[1]], axis=-1)
    for q in questions:
        where = tree.slices[q]
        k, a = (torch.from_numpy(np.asarray(each[..., where], float)) for each in (votes, np.exp(logs)))
        asked = k.sum(1) > 0
        k, a = k[asked], a[asked]
        others, w = a.sum(-1, keepdim=True) - a, None
        if weights.size:
            a, others = (each.movedim(1, -1) for each in (a, others))
            w = torch.from_numpy(weights[:, :, q])[asked][:, None].expand_as(a)
        shares = pit_histogram(k, k.sum(1, keepdim=True).expand_as(k), a, others, w)
        covered.append(shares[..., outside : PIT_BINS - outside].sum(-1).mean().item())
    return covered


def calibrated(x: np.ndarray, numbers: dict, tree: DecisionTree) -> np.ndarray:
    """x', and of a mixture its weights."""
    logs, weights = np.split(x, [len(tree.columns)], axis=-1)
    return np.concatenate([calibrated_logs(torch.from_numpy(logs), numbers, tree).numpy(), weights], axis=-1)


def draws(held_out: HeldOut, count: int, asked: list[int], votes: np.ndarray, x: np.ndarray, keys: np.ndarray) -> dict:
    """Means over draws of `count` galaxies: the gain of a calibration by them for the others, and the coverage of each question."""
    tree, rng = held_out.target.tree, np.random.default_rng(0)
    rows = []
    for _ in range(DRAWS):
        order = rng.permutation(len(votes))
        own, others = order[:count], order[count : count + MOST]
        fitted = fit_votes(x[own], VoteLikelihood(votes[own], tree), keys[own])
        after = calibrated(x[others], fitted.numbers, tree)
        likelihood = VoteLikelihood(votes[others], tree)
        gain = (likelihood(x[others])[0] - likelihood(after)[0]).sum(1).mean()
        rows.append([fitted.helps, fitted.gain.mean(), gain, *coverage(votes[others], after, tree, asked)])
    used, foretold, brought, *covered = np.array(rows, float).T
    ends = np.quantile(covered, [0.05, 0.95], axis=1)
    return {
        "count": count, "used": used.mean(), "foretold": foretold.mean(), "gain": brought.mean(), "worst_gain": brought.min(),
        "after": np.mean(covered, axis=1).tolist(), "low": ends[0].tolist(), "high": ends[1].tolist(),
    }  # fmt: skip


def main() -> None:
    results = []
    for head, (trained, survey) in itertools.product(HEADS, PAIRS):
        held_out, (votes, x, keys) = predictions(RUNS / trained / f"head={head},fold={FOLD}", survey)
        x, tree = x.astype(float), held_out.target.tree
        asked = [q for q, where in enumerate(tree.slices) if (votes[:, where].sum(1) > 0).sum() >= FEWEST]
        results.append(
            {
                "head": head, "trained": trained, "survey": survey, "galaxies": len(votes), "questions": [tree.questions[q].name for q in asked],
                "before": coverage(votes, x, tree, asked),
                "draws": [draws(held_out, count, asked, votes, x, keys) for count in COUNTS],
            }
        )  # fmt: skip
        print(head, trained, survey, results[-1]["draws"], flush=True)
    write_json(Path("results/calibration/transfer.json"), {"draws": DRAWS, "results": results})


if __name__ == "__main__":
    main()
