"""Intervals of reductions, of tasks and of averages, hold the truth as often as they say, with one pretraining and with several."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import t

from hf_galaxy.downstream.comparison import Comparison, average_draws, units_of, welch
from hf_galaxy.downstream.families import headline_measure, measure_in
from hf_galaxy.evaluation.bootstrap import estimate_of
from hf_galaxy.reports.measures import MEASURES
from hf_galaxy.targets import TARGETS, report_class
from tests.coverage import band

# Dataset, and standard deviations of the logarithm of the loss: of a fold, of a cell, of a pretraining; about those of results/downstream.
TASKS = {
    "gz1": ("gz1", 0.06, 0.04, 0.03), "merger": ("gz1", 0.12, 0.10, 0.05), "rings": ("rings", 0.15, 0.18, 0.05),
    "hart": ("hart", 0.04, 0.03, 0.03), "ceers": ("ceers", 0.015, 0.007, 0.01),
}  # fmt: skip
DATASETS = {task: dataset for task, (dataset, *_) in TASKS.items()}
GAIN = 0.15


def reduction(losses):
    return 1 - losses[1] / losses[0]


def simulated(rng, pretrainings, seeds, folds=True, replicates=20):
    """The comparisons of a start of some pretrainings with a reference of one, by task, and the true reductions: of these
    weights if there is one pretraining, else the mean over all."""
    comparisons, truth = {}, {}
    common = rng.standard_normal(seeds)  # what a pretraining does to all tasks alike
    for task, (_, fold, own, pretraining) in TASKS.items():
        effects = pretraining * (common + rng.standard_normal(seeds)) / 2**0.5
        effects = effects[np.arange(seeds) % pretrainings]
        parts = [{}, {}]
        for seed in range(1, seeds + 1):
            if folds or seed == 1:  # galaxies that all have in common, and what they do to one of the two
                luck, lucks = rng.standard_normal(replicates + 1), rng.standard_normal((2, replicates + 1))
            for start in (0, 1):
                gain = start * (effects[seed - 1] - GAIN)
                noise = np.exp(fold * luck + 0.6 * own * lucks[start] + 0.8 * own * rng.standard_normal() + gain)
                number = pretrainings if start else 1
                parts[start][seed] = SimpleNamespace(
                    loss=noise[0], replicates=noise[0] * np.exp(fold * luck[1:] + 0.6 * own * lucks[start, 1:]),
                    pretraining=1 + (seed - 1) % number, pretrainings=number,
                )  # fmt: skip
        comparisons[task] = Comparison.of(parts)
        truth[task] = 1 - np.exp((effects[0] if pretrainings == 1 else pretraining**2 / 2) - GAIN)
    return comparisons, truth


@pytest.mark.parametrize("count", [70, pytest.param(1000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(("pretrainings", "seeds", "folds"), [(1, 3, True), (1, 5, True), (1, 3, False), (3, 3, True), (3, 5, True), (5, 5, True)])  # fmt: skip
def test_nine_of_ten_intervals_hold_the_truth(pretrainings, seeds, folds, count):
    rng = np.random.default_rng(0)
    inside = dict.fromkeys((*TASKS, "average"), 0)
    for number in range(count):
        comparisons, truth = simulated(rng, pretrainings, seeds, folds)
        truth["average"] = np.mean(list(truth.values()))
        draws = {task: reduction(each.draws(number)) for task, each in comparisons.items()}
        draws["average"] = average_draws(comparisons, DATASETS, reduction, number)
        for name, drawn in draws.items():
            ends = estimate_of(0.0, drawn)
            inside[name] += ends["low"] <= truth[name] <= ends["high"]
    tasks, average = sum(inside[task] for task in TASKS) / len(TASKS), inside["average"]
    if count == 1000:
        assert 0.87 <= average / count <= 0.93, inside
        assert 0.87 <= tasks / count <= 0.93, inside
        assert 0.86 <= min(inside.values()) / count <= max(inside.values()) / count <= 0.95, inside
    else:
        fewest, most = band(count, chance=1e-4)
        assert fewest <= min(inside.values()) <= max(inside.values()) <= most, inside


def test_an_interval_without_the_variance_of_pretraining_misses_the_mean_over_pretrainings():
    rng = np.random.default_rng(0)
    inside = 0
    for number in range(70):
        comparisons, _ = simulated(rng, 1, 5)
        # One pretraining is taken for all: of hart and ceers, whose galaxies and seeds say little more.
        own = {task: comparisons[task] for task in ("hart", "ceers")}
        ends = estimate_of(0.0, average_draws(own, DATASETS, reduction, number))
        truth = np.mean([1 - np.exp(TASKS[task][3] ** 2 / 2 - GAIN) for task in own])
        inside += ends["low"] <= truth <= ends["high"]
    assert inside < 0.75 * 70


def row(loss, pretraining=1, pretrainings=1):
    return SimpleNamespace(loss=loss, replicates=np.full(4, loss), pretraining=pretraining, pretrainings=pretrainings)


def test_units_are_seeds_or_what_shares_a_pretraining():
    seeds = [1, 2, 3, 4, 5]
    one = {seed: row(1.0) for seed in seeds}
    three = {seed: row(1.0, 1 + (seed - 1) % 3, 3) for seed in seeds}
    random = {seed: row(1.0, seed, 5) for seed in seeds}
    two = {seed: row(1.0, 1 + (seed - 1) % 2, 2) for seed in seeds}
    assert units_of([one, one], seeds) == [[1], [2], [3], [4], [5]]
    assert units_of([one, three], seeds) == units_of([three, three], seeds) == [[1, 4], [2, 5], [3]]
    assert units_of([random, three], seeds) == [[1, 4], [2, 5], [3]]
    assert units_of([random, one], seeds) == [[1], [2], [3], [4], [5]]
    assert units_of([two, three], seeds) == [[1, 2, 3, 4, 5]], "nothing is independent: there is no interval"
    assert not Comparison.of([one, one]).pretrainings
    assert Comparison.of([one, random]).pretrainings
    assert np.isnan(Comparison.of([two, three]).draws("name")).all()
    assert np.isnan(average_draws({"a": Comparison.of([two, three])}, {"a": "a"}, reduction, "name")).all()
    assert Comparison.of([{1: row(1.0)}, {2: row(1.0)}]) is None


def test_a_pretraining_counts_once_however_many_seeds_it_has():
    values = [1.0, 1.1, 1.3, 1.02, 1.12]
    part = {seed: row(value, 1 + (seed - 1) % 3, 3) for seed, value in enumerate(values, 1)}
    comparison = Comparison.of([part])
    own = np.array([1.01, 1.11, 1.3])
    np.testing.assert_allclose(comparison.values, [own])
    half = t(2).ppf(0.95) * own.std(ddof=1) / 3**0.5 / own.mean()
    ends = np.log(np.quantile(Comparison.of([part] * 2).draws("name")[0], [0.05, 0.95]) / own.mean())
    assert ends == pytest.approx([-half, half], rel=0.25)  # few replicates, so few draws


def test_the_degrees_of_freedom_of_a_sum():
    assert welch([2.0], [3]) == pytest.approx(3)
    assert welch([1.0, 0.0], [2, 4]) == pytest.approx(2)
    assert welch([1.0] * 4, [2] * 4) == pytest.approx(14)
    assert welch([0.0, 0.0], [2, 4]) == 2
    # The variance of the estimated sum is that of a chi-squared with so many.
    rng = np.random.default_rng(0)
    sums = sum(scale * rng.chisquare(free, 100_000) / free for scale, free in ((1.0, 2), (0.5, 4)))
    assert 2 * sums.mean() ** 2 / sums.var() == pytest.approx(2 * 1.5**2 / (2 * 1 / 2 + 2 * 0.25 / 4), rel=0.02)


def test_the_headline_is_the_error_and_the_balanced_one_where_a_class_is_rare():
    classes = report_class("classes")().measures
    assert headline_measure(classes, 0.05) == headline_measure(classes) == "error"
    assert headline_measure(classes, 0.049) == "balanced_error"
    assert headline_measure(report_class("votes")().measures) == "true_rmse"
    for kind in TARGETS:
        measures = report_class(kind)().measures
        assert headline_measure(measures) in measures
        for family in ("error", "balanced", "likelihood", "auc", "precision"):
            measure = measure_in(family, measures, "x")
            assert measure in MEASURES or (kind, family, measure) == ("values", "likelihood", None)
    assert measure_in("headline", classes, "nll") == "nll"
