"""The Poisson bootstrap gives the spread of other galaxies, and intervals hold the truth as often as they promise."""

import numpy as np
import pytest
from scipy.stats import chisquare, poisson, t

from hf_galaxy import randomness
from hf_galaxy.evaluation import bootstrap
from hf_galaxy.evaluation.bootstrap import SEED_DRAWS, estimate_of, mean_draws, verdict_of
from tests.coverage import band


def test_counts_are_poisson_and_depend_on_the_name_alone():
    keys = np.array([randomness.key_of(f"galaxy {i}") for i in range(5000)])
    counts = bootstrap.counts(keys)
    assert counts.shape == (5000, bootstrap.REPLICATES)
    seen = np.bincount(counts.astype(int).ravel(), minlength=9)[:9]
    expected = poisson.pmf(np.arange(9), 1) * counts.size
    expected[-1] = counts.size - expected[:-1].sum()
    seen[-1] = counts.size - seen[:-1].sum()
    assert chisquare(seen, expected).pvalue > 1e-3
    np.testing.assert_array_equal(bootstrap.counts(keys[[7]]), counts[[7]])
    assert randomness.key_of("galaxy 7") == keys[7] >= 0
    correlations = np.corrcoef(counts[:, :50].T)[np.triu_indices(50, 1)]
    assert abs(correlations).max() < 5 / 5000**0.5, "replicates know nothing of each other"


def test_the_spread_of_a_mean_is_its_standard_error():
    losses = np.random.default_rng(0).gamma(2, size=3000)
    counts = bootstrap.counts(np.array([randomness.key_of(str(i)) for i in range(3000)]), 1000)
    means = counts.T @ losses / counts.sum(axis=0)
    assert means.std() == pytest.approx(losses.std() / 3000**0.5, rel=0.08)
    assert means.mean() == pytest.approx(losses.mean(), abs=0.003)


def simulated(rng, folds, rates, seed_noise, seeds=3, galaxies=250, replicates=200):
    """(2, S) errors of two kinds of runs and (2, S, R) replicates, counted galaxy by galaxy."""
    errors, replicated = np.zeros((2, seeds)), np.zeros((2, seeds, replicates))
    for s in range(seeds):
        if s == 0 or folds:  # other galaxies for each seed, or the same for all
            difficulty = rng.beta(0.3, 0.7, galaxies) / 0.3
            counts = rng.poisson(1, (galaxies, replicates))
        luck = rng.random(galaxies)  # of this seed, for both kinds
        for i, rate in enumerate(rates):
            wrong = luck < difficulty * rate * np.exp(seed_noise * rng.standard_normal())
            errors[i, s], replicated[i, s] = wrong.mean(), wrong @ counts / counts.sum(axis=0)
    return errors, replicated


@pytest.mark.parametrize("count", [80, pytest.param(250, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("seed_noise", [0.0, 0.1])
def test_nine_of_ten_intervals_hold_the_truth(folds, seed_noise, count):
    rng = np.random.default_rng(0)
    rates = np.array([0.15, 0.105])  # low, so that no galaxy is always wrong
    first, second = rates * np.exp(seed_noise**2 / 2)
    inside = {"mean": 0, "difference": 0, "ratio": 0}
    for _ in range(count):
        errors, replicated = simulated(rng, folds, rates, seed_noise)
        draws = mean_draws(errors, replicated, rng)
        for name, drawn, true in (
            ("mean", mean_draws(errors[:1], replicated[:1], rng)[0], first),
            ("difference", draws[1] - draws[0], second - first),
            ("ratio", draws[1] / draws[0], second / first),
        ):
            ends = estimate_of(true, drawn)
            inside[name] += ends["low"] <= true <= ends["high"]
    fewest, most = band(count)
    assert all(fewest <= number <= most for number in inside.values()), inside


def test_a_comparison_of_pairs_has_a_narrower_interval():
    rng = np.random.default_rng(0)
    errors, replicated = simulated(rng, True, (0.15, 0.14), 0.02)
    draws = mean_draws(errors, replicated, rng)
    low, high = np.quantile(1 - draws[1] / draws[0], [0.05, 0.95])
    first, second = (mean_draws(errors[[i]], replicated[[i]], rng)[0] for i in (0, 1))
    unpaired = np.quantile(1 - second / first, [0.05, 0.95])
    assert high - low < 0.6 * np.ptp(unpaired)
    same = mean_draws(errors[[0, 0]], replicated[[0, 0]], rng)
    np.testing.assert_array_equal(same[0], same[1])


@pytest.mark.parametrize("values", [[1.0, 1.1, 1.2], [1.0, 1.01], [2.0, 2.1, 2.2, 1.9, 2.4]])
def test_seeds_alone_give_the_interval_of_student(values):
    values = np.array(values)
    seeds, mean = len(values), values.mean()
    (draws,) = mean_draws(values[None], np.tile(values[None, :, None], 200), np.random.default_rng(0))
    half = t(seeds - 1).ppf(0.95) * values.std(ddof=1) / seeds**0.5 / mean
    assert np.log(np.quantile(draws, [0.05, 0.95]) / mean) == pytest.approx([-half, half], rel=0.1)
    # Of a difference, it is that of the paired t-test, as far as both are small against the losses.
    pair = 100 + np.array([values, 2 * values[::-1]])
    draws = mean_draws(pair, np.tile(pair[..., None], 200), np.random.default_rng(0))
    half = t(seeds - 1).ppf(0.95) * (pair[1] - pair[0]).std(ddof=1) / seeds**0.5
    ends = np.quantile(draws[1] - draws[0], [0.05, 0.95]) - (pair[1] - pair[0]).mean()
    assert ends == pytest.approx([-half, half], rel=0.1)


def test_galaxies_alone_give_the_interval_of_the_bootstrap():
    replicates = 1 + 0.1 * np.random.default_rng(0).standard_normal(4000)
    (draws,) = mean_draws(np.ones((1, 3)), np.broadcast_to(replicates, (1, 3, 4000)), np.random.default_rng(0))
    np.testing.assert_allclose(draws, np.repeat(replicates, SEED_DRAWS), rtol=1e-9)


def test_draws_that_are_not_defined_are_no_numbers():
    rng = np.random.default_rng(0)
    values, replicates = np.ones((2, 3)), np.ones((2, 3, 10))
    replicates[1, 2, 4] = np.nan
    draws = mean_draws(values, replicates, rng)
    assert np.isnan(draws).all(axis=0).tolist() == [r == 4 for r in range(10) for _ in range(SEED_DRAWS)]
    assert estimate_of(1.0, draws[0])["low"] is not None
    assert estimate_of(1.0, np.where(np.arange(10) < 2, np.nan, 1.0)) == {"value": 1.0, "low": None, "high": None}
    one_seed = mean_draws(values[:, :1], replicates[:, :1], rng)
    assert np.isnan(one_seed).all()
    assert verdict_of(estimate_of(1.0, one_seed[0])) == "not known"
    replicates[:] = np.nan
    assert np.isnan(mean_draws(values, replicates, rng)).all()
    np.testing.assert_array_equal(mean_draws(np.zeros((1, 3)), np.zeros((1, 3, 10)), rng) < 1e-9, True)


def test_a_verdict_needs_an_interval_on_one_side_of_0():
    ends = {"less": (-2, -1), "more": (1, 2), "not shown": (-1, 2), "not known": (None, None)}
    for verdict, (low, high) in ends.items():
        assert verdict_of({"value": 0.0, "low": low, "high": high}) == verdict
    assert verdict_of({"value": 2.0, "low": 1.0, "high": 3.0}, lambda value: -value) == "less"
