"""Hide the truth of real galaxies, draw small labelled samples, and see how often the interval of the share holds it.

    for name in rings gz1 euclid_mergers gz2_classes ceers; do
        hf-galaxy embed --model spaces_app/models/lite0 --dataset pictures/$name --out features/$name
    done
    python results/prevalence/measure.py

in a folder with `features/`, and `labels/` with a table of each set, whose columns `LABELS` names. Takes some ten minutes on one core. Writes
records.parquet.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm, rankdata

from hf_galaxy.evaluation.prevalence import Sample, prevalence
from hf_galaxy.randomness import key_of
from hf_galaxy.reports.records_file import FILE, write_records

HERE = Path(__file__).parent
LABELLED, DRAWS, LEVEL = (50, 100, 200, 400), 500, 0.9
PENALTY = 30.0  # of the weights of standardised features


def is_class(column: str, name: object) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda table: (table[column] == name).astype(float)


def fraction(question: str, answers: tuple[str, ...]) -> Callable[[pd.DataFrame], pd.Series]:
    """The share of volunteers with one of the answers, of at least 5."""

    def of(table: pd.DataFrame) -> pd.Series:
        votes = table[f"{question}__total-votes"]
        return sum(table[f"{question}__{answer}"] for answer in answers) / votes.where(votes >= 5)

    return of


@dataclass(frozen=True)
class Case:
    """A class of a set, and the galaxies that the classifier learns from.

    Attributes:
        dataset: the set; its table has the pictures' names in `file`.
        label: the labels of all galaxies.
        trained: how many galaxies the classifier learns from: half of them of the class, whatever its share; of fractions at random.
        change: what is done to the predictions.
    """

    dataset: str
    label: Callable[[pd.DataFrame], pd.Series]
    trained: int
    kind: str = "yes/no"
    change: str = ""


MERGER = fraction("t11_is_the_galaxy_merging_or_disturbed", ("merging",))
BAR = fraction("t4_is_there_a_bar", ("strong_bar", "weak_bar"))
CASES = {
    "rings": Case("rings", is_class("ring", 1), 100),
    "mergers of Euclid": Case("euclid_mergers", is_class("label", "merger"), 60),
    "edge-on": Case("gz2_classes", is_class("label", "edge_on"), 200),
    "edge-on, useless": Case("gz2_classes", is_class("label", "edge_on"), 200, change="shuffled"),
    "edge-on, inverted": Case("gz2_classes", is_class("label", "edge_on"), 200, change="inverted"),
    "spiral": Case("gz2_classes", is_class("label", "spiral"), 200),
    "cigar-shaped": Case("gz2_classes", is_class("label", "cigar_shaped_smooth"), 60),
    "mergers of Galaxy Zoo 1": Case("gz1", is_class("class", "merger"), 60),
    "votes for a bar": Case("ceers", BAR, 200, "fraction"),
    "votes for a merger": Case("ceers", MERGER, 200, "fraction"),
}


def galaxies_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) features and (N,) labels of the galaxies that have both."""
    parts = [pd.read_parquet(file) for file in sorted(Path("features", case.dataset).glob("*.parquet"))]
    features = pd.concat(parts).set_index("id_str")["embedding"]
    (file,) = Path("labels", case.dataset).glob("*.csv")
    table = pd.read_csv(file)
    labels = case.label(table).set_axis([PurePosixPath(name).name for name in table["file"]]).dropna()
    labels = labels[labels.index.isin(features.index)]
    return np.stack(features.loc[labels.index].to_list()).astype(float), labels.to_numpy()


def predictions_of(case: Case, features: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple:
    """Predictions and labels of the galaxies that a logistic regression on the others did not learn from."""
    order = rng.permutation(len(labels))
    learnt = order[: case.trained]
    if case.kind == "yes/no":
        learnt = np.concatenate([order[labels[order] == value][: case.trained // 2] for value in (0, 1)])
    mean, deviation = features[learnt].mean(0), features[learnt].std(0) + 1e-6
    inputs = (features - mean) / deviation

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = inputs[learnt] @ weights[1:] + weights[0]
        residuals = expit(scores) - labels[learnt]
        value = np.logaddexp(0, scores).sum() - labels[learnt] @ scores + PENALTY / 2 * weights[1:] @ weights[1:]
        return value, np.concatenate([[residuals.sum()], residuals @ inputs[learnt] + PENALTY * weights[1:]])

    weights = minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B").x
    rest = np.setdiff1d(order, learnt)
    predictions = expit(inputs[rest] @ weights[1:] + weights[0])
    if case.change == "shuffled":
        predictions = rng.permutation(predictions)
    elif case.change == "inverted":
        predictions = 1 - predictions
    return predictions, labels[rest]


def usual_interval(predictions: np.ndarray, chosen: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """That of PPI++ with the normal distribution."""
    own, n = predictions[chosen], len(chosen)
    slope = np.cov(own, labels)[0, 1] / own.var(ddof=1)
    value = labels.mean() + slope * (predictions.mean() - own.mean())
    variance = (labels - slope * own).var(ddof=1) * (1 / n - 1 / len(predictions))
    half = norm.ppf((1 + LEVEL) / 2) * variance**0.5
    return value - half, value + half


def measure(case: Case, predictions: np.ndarray, labels: np.ndarray, n: int, rng: np.random.Generator) -> dict:
    """How often the intervals of random samples hold the mean label."""
    truth, rows = labels.mean(), []
    for _ in range(DRAWS):
        chosen = rng.choice(len(labels), n, replace=False)
        result = prevalence(predictions, Sample.random(chosen, labels[chosen], case.kind), LEVEL)
        low, high = usual_interval(predictions, chosen, labels[chosen])
        rows.append((result.share.holds(truth), result.alone.holds(truth), low <= truth <= high, result.is_counting_excluded,
                     result.share.width, result.alone.width, result.share.value - truth, result.effective_labels))  # fmt: skip
    held, alone, usual, excluded, width, width_alone, error, effective = np.array(rows, float).T
    return {
        "labelled": n, "draws": DRAWS, "held": int(held.sum()), "held_alone": int(alone.sum()), "held_usual": int(usual.sum()),
        "counting_excluded": int(excluded.sum()), "width": width.mean(), "width_alone": width_alone.mean(),
        "mean_error": error.mean(), "effective_labels": float(np.median(effective)),
    }  # fmt: skip


def auc_of(predictions: np.ndarray, labels: np.ndarray) -> float:
    """How often a galaxy of the class has a higher prediction than another one."""
    positive = labels > 0.5
    ranks = rankdata(predictions)[positive]
    count = positive.sum()
    return (ranks.sum() - count * (count + 1) / 2) / count / (len(labels) - count)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    records = {}
    for name, case in CASES.items():
        rng = np.random.default_rng(key_of(name))
        predictions, labels = predictions_of(case, *galaxies_of(case), rng)
        counted = float((predictions > 0.5).mean() if case.kind == "yes/no" else predictions.mean())
        correlation = float(np.corrcoef(predictions, labels)[0, 1])
        about = {"dataset": case.dataset, "kind": case.kind, "galaxies": len(labels), "trained": case.trained}
        about |= {"truth": labels.mean(), "counting": counted, "correlation": correlation}
        about["auc"] = auc_of(predictions, labels) if case.kind == "yes/no" else None
        sizes = [n for n in LABELLED if n <= len(labels) * 0.75]
        samples = [measure(case, predictions, labels, n, rng) for n in sizes]
        records[name] = {"about": about, "samples": samples}
        print(name, about, *samples, sep="\n    ", flush=True)
    write_records(HERE / FILE, records)


if __name__ == "__main__":
    main()
