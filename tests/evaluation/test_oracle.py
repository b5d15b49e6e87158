"""The oracle's loss as estimated from votes alone, against that of the fractions with which simulated votes were drawn."""

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad
from scipy.stats import dirichlet_multinomial, multinomial

from hf_galaxy.decision_tree import DecisionTree, Question
from hf_galaxy.evaluation.dirichlet_mixture import DirichletMixture, _Likelihood
from hf_galaxy.evaluation.oracle import oracle_loss, oracle_nll
from hf_galaxy.losses import multinomial_nll

TREE = DecisionTree("two", (Question("p", ("a", "b"), (), "x"), Question("q", ("a", "b", "c"), (), "x")))
# Smooth, featured, and nearly unanimous galaxies.
CERTAIN_AND_NOT = DirichletMixture(
    np.array([[0.3, 0.1, 0.05], [6.0, 3.0, 1.0], [0.5, 4.0, 9.0]]), np.log([0.5, 0.3, 0.2]), np.zeros(3)
)
UNANIMOUS_OR_NOT = DirichletMixture(np.array([[0.02, 0.02], [3.0, 2.0]]), np.log([0.6, 0.4]), np.zeros(2))


def drawn(mixture, totals, rng):
    """Votes of galaxies whose fractions are drawn from a mixture, in numbers that are given, and these fractions."""
    joint = mixture.offsets[:, None] + mixture.slopes[:, None] * np.log(totals)
    component = (joint + rng.gumbel(size=joint.shape)).argmax(axis=0)
    fractions = np.array([rng.dirichlet(mixture.concentrations[c]) for c in component])
    return rng.multinomial(totals, fractions), fractions


def survey(galaxies, rng):
    """Votes (B, A) with few for the first question, which a third are not asked, and many for the second, and the oracle's loss (B, Q)."""
    few, many = rng.integers(3, 11, galaxies), rng.integers(20, 60, galaxies)
    (p, p_true), (q, q_true) = drawn(UNANIMOUS_OR_NOT, few, rng), drawn(CERTAIN_AND_NOT, many, rng)
    p[: galaxies // 3] = 0
    logs = torch.from_numpy(np.log(np.concatenate([p_true, q_true], axis=1).clip(1e-300)))
    votes = np.concatenate([p, q], axis=1)
    return votes, multinomial_nll(torch.from_numpy(votes), logs, TREE).numpy()


def test_the_estimate_is_the_loss_of_the_fractions_that_votes_were_drawn_with():
    differences = []
    for seed in range(6):
        votes, true = survey(400, np.random.default_rng(seed))
        differences.append((oracle_nll(votes, TREE) - true).mean(axis=0))
    bias, error = np.mean(differences, axis=0), np.std(differences, axis=0, ddof=1) / 6**0.5
    assert (error < [0.02, 0.03]).all()
    assert (abs(bias) < 3 * error).all()
    assert oracle_loss(votes, TREE) == pytest.approx(true.sum(axis=1).mean() + differences[-1].sum())


def test_the_expected_loss_is_the_mean_over_the_posterior():
    rng = np.random.default_rng(0)
    votes, _ = survey(300, rng)
    kinds, times = np.unique(votes[:, 2:], axis=0, return_counts=True)
    mixture = DirichletMixture.fit(kinds, times)
    weights, concentrations = mixture.posterior(kinds[:1])
    component = rng.choice(len(weights[0]), 40_000, p=weights[0])
    fractions = np.concatenate(
        [rng.dirichlet(a, (component == c).sum()) for c, a in enumerate(concentrations[0])]
    ).clip(1e-300)
    losses = -multinomial(kinds[0].sum(), fractions / fractions.sum(1, keepdims=True)).logpmf(kinds[0])
    first = (votes[:, 2:] == kinds[0]).all(axis=1).argmax()
    assert oracle_nll(votes, TREE)[first, 1] == pytest.approx(losses.mean(), abs=4 * losses.std() / 200)


def test_the_posterior_weighs_components_by_their_probability_of_the_votes():
    mixture = DirichletMixture(CERTAIN_AND_NOT.concentrations, np.log([0.5, 0.3, 0.2]), np.array([0.4, -0.2, 0.1]))
    votes = np.array([[3, 1, 0], [0, 0, 9]])
    weights, concentrations = mixture.posterior(votes)
    for own, shares, posterior in zip(votes, weights, concentrations, strict=True):
        prior = [0.5, 0.3, 0.2] * own.sum() ** mixture.slopes
        joint = [
            w * dirichlet_multinomial(a, own.sum()).pmf(own) for w, a in zip(prior, mixture.concentrations, strict=True)
        ]
        assert shares == pytest.approx(joint / np.sum(joint))
        assert posterior == pytest.approx(mixture.concentrations + own)


def test_the_gradient_of_the_fit_is_that_of_its_likelihood():
    rng = np.random.default_rng(0)
    likelihood = _Likelihood(rng.multinomial(7, [0.5, 0.3, 0.2], 20), rng.integers(1, 4, 20))
    value, gradient = (lambda x, i=i: likelihood._nll_and_gradient(x, 2)[i] for i in (0, 1))
    assert check_grad(value, gradient, rng.normal(size=10)) < 1e-5


def test_galaxies_with_more_votes_may_differ_from_those_with_fewer():
    rng = np.random.default_rng(0)
    totals = rng.integers(3, 30, 2000)
    true = DirichletMixture(np.array([[1.0, 9.0], [9.0, 1.0]]), np.array([0.0, -7.0]), np.array([0.0, 3.0]))
    votes, _ = drawn(true, totals, rng)
    mixture = DirichletMixture.fit(*np.unique(votes, axis=0, return_counts=True))
    order = np.argsort(mixture.concentrations[:, 0] / mixture.concentrations.sum(axis=1))
    assert mixture.slopes[order][-1] - mixture.slopes[order][0] == pytest.approx(3, abs=0.6)


@pytest.mark.parametrize("votes", [[[0, 0, 3, 1, 0]], [[5, 0, 0, 0, 0]] * 3, [[1, 0, 0, 0, 1], [0, 1, 0, 1, 0]]])
def test_a_few_galaxies_have_a_loss_above_the_saturated_one(votes):
    votes = np.array(votes)
    saturated = multinomial_nll(torch.from_numpy(votes), torch.from_numpy(votes).clamp_min(1e-30).double().log(), TREE)
    nll = oracle_nll(votes, TREE)
    assert (nll >= saturated.numpy() - 1e-9).all()
    assert (nll[~votes[:, :2].any(1), 0] == 0).all()
    assert np.isfinite(nll).all()
