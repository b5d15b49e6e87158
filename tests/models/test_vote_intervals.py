"""Intervals of vote fractions and of votes hold what is drawn, of one Dirichlet distribution and of mixtures of two."""

import numpy as np
import pytest
from scipy import optimize, stats

from hf_galaxy import load_tree
from hf_galaxy.decision_tree import DecisionTree, Question
from hf_galaxy.models.vote_intervals import credible_intervals, distributions_in, vote_intervals

TREES = ["gz2", "gz_candels", "gz_jwst_ceers"]
TWO = DecisionTree("t", (Question("a", ("x", "y", "z"), (), "c"), Question("b", ("p", "q"), ("a_x",), "c")))


def concentrations_of(tree, seed=0):
    return np.random.default_rng(seed).uniform(1, 12, len(tree.columns)).astype(np.float32)


def drawn_fractions(concentrations, tree, draws, rng):
    """(draws, A)"""
    return np.concatenate([rng.dirichlet(concentrations[where], draws) for where in tree.slices], axis=1)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("credible", [0.5, 0.9])
def test_vote_fractions_lie_in_their_intervals_as_often_as_is_said(name, credible):
    tree = load_tree(name)
    concentrations = concentrations_of(tree)
    low, high = credible_intervals(concentrations, tree, credible).T
    drawn = drawn_fractions(concentrations, tree, 20_000, np.random.default_rng(2))
    tail = (1 - credible) / 2
    np.testing.assert_allclose((drawn < low).mean(axis=0), tail, atol=5 * (tail / 20_000) ** 0.5)
    np.testing.assert_allclose((drawn > high).mean(axis=0), tail, atol=5 * (tail / 20_000) ** 0.5)
    others = np.array([concentrations[tree.slices[q]].sum() for q in tree.question_of_answer]) - concentrations
    np.testing.assert_allclose(stats.beta.cdf(low, concentrations, others), tail, rtol=1e-4)
    np.testing.assert_allclose(stats.beta.sf(high, concentrations, others), tail, rtol=1e-4)


def test_votes_for_the_first_question_are_beta_binomial():
    tree = load_tree("gz2")
    concentrations = concentrations_of(tree).astype(float)
    for volunteers in (1, 7, 40, 1000):
        intervals = vote_intervals(concentrations, tree, volunteers, 0.8)
        for a in range(3):
            distribution = stats.betabinom(volunteers, concentrations[a], concentrations[:3].sum() - concentrations[a])
            assert intervals[a].tolist() == distribution.ppf([0.1, 0.9]).tolist()


@pytest.mark.parametrize("name", TREES)
def test_votes_further_down_lie_in_their_intervals_as_often_as_those_of_simulated_volunteers(name):
    tree, rng, draws, volunteers = load_tree(name), np.random.default_rng(3), 20_000, 30
    concentrations = concentrations_of(tree)
    fractions = drawn_fractions(concentrations, tree, draws, rng)
    asked, votes = [None] * len(tree.questions), np.zeros((draws, len(tree.columns)), int)
    for q, where in enumerate(tree.slices):  # parents stand before their children in these trees
        asked[q] = votes[:, tree.parents[q]].sum(axis=1) if tree.parents[q] else np.full(draws, volunteers)
        votes[:, where] = rng.multinomial(asked[q], fractions[:, where])
    low, high = vote_intervals(concentrations, tree, volunteers, 0.9).T
    error = 5 * (0.05 / draws) ** 0.5
    assert ((votes < low).mean(axis=0) <= 0.05 + error).all()
    assert ((votes <= low).mean(axis=0) >= 0.05 - error).all()
    assert ((votes < high).mean(axis=0) <= 0.95 + error).all()
    assert ((votes <= high).mean(axis=0) >= 0.95 - error).all()


def test_where_every_answer_leads_further_everybody_goes_on():
    first = Question("a", ("x", "y"), (), "c")
    tree = DecisionTree("t", (first, Question("b", ("z", "w"), ("a_x", "a_y"), "c")))
    alone = DecisionTree("t", (Question("b", ("z", "w"), (), "c"),))
    intervals = vote_intervals(np.array([2.0, 3, 4, 5]), tree, 20)
    np.testing.assert_array_equal(intervals[2:], vote_intervals(np.array([4.0, 5]), alone, 20))


def mixtures(galaxies, tree=TWO, seed=0):
    """(galaxies, 2, A) concentrations and (galaxies, 2, Q) weights: from certain to of two minds, and from one alone to halves."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(0.001, 0.999, (galaxies, len(tree.questions)))
    return np.exp(rng.uniform(-4.5, 8, (galaxies, 2, len(tree.columns)))), np.stack([first, 1 - first], axis=1)


@pytest.mark.parametrize("credible", [0.5, 0.9, 0.99])
def test_intervals_of_a_mixture_are_its_quantiles(credible):
    concentrations, weights = mixtures(200)
    ends = credible_intervals(concentrations, TWO, credible, weights)
    assert ends.shape == (200, 5, 2)
    for galaxy in range(0, 200, 7):
        for answer, q in enumerate(TWO.question_of_answer):
            a = concentrations[galaxy, :, answer]
            b = concentrations[galaxy, :, TWO.slices[q]].sum(axis=1) - a
            for end, tail in zip(ends[galaxy, answer], ((1 - credible) / 2, (1 + credible) / 2), strict=True):

                def excess(x):
                    return weights[galaxy, :, q] @ stats.beta.cdf(x, a, b) - tail  # noqa: B023

                assert end == pytest.approx(optimize.brentq(excess, 0, 1, xtol=1e-12), abs=1e-3)
                assert abs(excess(end)) < 2e-6 or excess(end - 2e-6) < 0 < excess(end + 2e-6)


def test_a_mixture_of_equal_distributions_is_one_of_them():
    concentrations, weights = mixtures(30)
    one, rng = concentrations[:, 0], np.random.default_rng(1)
    twice = np.stack([one, one], axis=1)
    expected = credible_intervals(one, TWO)
    np.testing.assert_allclose(credible_intervals(twice, TWO, 0.9, weights), expected, atol=1e-6)
    galaxy = rng.uniform(1, 9, 5)
    both = vote_intervals(np.stack([galaxy, galaxy]), TWO, 30, 0.8, weights[0])
    np.testing.assert_array_equal(both, vote_intervals(galaxy, TWO, 30, 0.8))


def test_votes_of_a_mixture_lie_in_their_intervals_as_often_as_those_of_simulated_volunteers():
    rng, draws, volunteers = np.random.default_rng(4), 20_000, 25
    concentrations = np.array([[20.0, 2, 1, 9, 1], [1, 8, 3, 1, 5]])
    weights = np.array([[0.3, 0.6], [0.7, 0.4]])
    votes, asked = np.zeros((draws, 5), int), np.full(draws, volunteers)
    for q, where in enumerate(TWO.slices):
        which = (rng.random(draws) > weights[0, q]).astype(int)
        fractions = rng.standard_gamma(concentrations[which][:, where])
        votes[:, where] = rng.multinomial(asked, fractions / fractions.sum(axis=1, keepdims=True))
        asked = votes[:, 0]
    low, high = vote_intervals(concentrations, TWO, volunteers, 0.9, weights).T
    error = 5 * (0.05 / draws) ** 0.5
    assert ((votes < low).mean(axis=0) <= 0.05 + error).all()
    assert ((votes <= low).mean(axis=0) >= 0.05 - error).all()
    assert ((votes < high).mean(axis=0) <= 0.95 + error).all()
    assert ((votes <= high).mean(axis=0) >= 0.95 - error).all()


def test_the_numbers_of_a_table_are_those_of_the_distributions():
    numbers = np.arange(12.0)[None] / 12
    concentrations, weights = distributions_in(numbers, TWO)
    np.testing.assert_array_equal(concentrations[0], numbers[0, :10].reshape(2, 5))
    np.testing.assert_allclose(weights[0], [numbers[0, 10:], 1 - numbers[0, 10:]])
    assert distributions_in(numbers[:, :5], TWO)[1] is None


def test_the_ends_of_an_interval_are_in_order_also_where_they_differ_by_less_than_their_precision():
    concentrations = np.array([[41.6, 4e4, 4e4, 1, 1], [0.224, 5.5e5, 5.5e5, 1, 1]])
    low, high = credible_intervals(concentrations, TWO, 0.5, np.array([[0.049, 0.5], [0.951, 0.5]])).T
    assert (low <= high).all()
    np.testing.assert_allclose([low[0], high[0]], [0, 0], atol=1e-6)
