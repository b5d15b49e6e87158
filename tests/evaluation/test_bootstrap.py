"""The Poisson bootstrap gives the spread that drawing galaxies anew gives."""

import numpy as np
import pytest
from scipy.stats import chisquare, poisson

from hf_galaxy import randomness
from hf_galaxy.evaluation import bootstrap


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


def test_means_over_seeds_are_as_uncertain_as_student_says():
    values = np.array([1.0, 1.2, 1.4])
    draws = bootstrap.mean_draws(values, np.tile(values[:, None], 20_000), np.random.default_rng(0))
    assert draws.mean() == pytest.approx(1.2, abs=0.02)
    low, high = np.quantile(draws, [0.05, 0.95])
    assert (high - low) / 2 == pytest.approx(2.920 * 0.2 / 3**0.5, rel=0.05)  # t of two degrees of freedom
    few = bootstrap.mean_draws(values, np.tile(values[:, None], 200), np.random.default_rng(3))
    assert np.quantile(few, [0.05, 0.95]) - 1.2 == pytest.approx([-0.337, 0.337], rel=0.06), "no luck with the draws"
    assert np.isnan(bootstrap.mean_draws(values[:1], np.ones((1, 5)), np.random.default_rng(0))).all()
