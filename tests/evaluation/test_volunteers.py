"""What a prediction is worth in volunteers: against scipy, against every order of the votes, and in surveys whose truth is known."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom

from hf_galaxy import load_tree
from hf_galaxy.evaluation.volunteers import FEWEST, MOST, lead_over_volunteers, seen_by, volunteers_worth
from hf_galaxy.losses import sum_per_question

TREE = load_tree("gz_rings")
PRIOR = torch.tensor([0.6, 1.7], dtype=torch.float64)


def lead_of(votes, fractions, prior=PRIOR, tree=TREE):
    votes = torch.as_tensor(np.asarray(votes), dtype=torch.int32)
    return lead_over_volunteers(votes, torch.as_tensor(np.asarray(fractions)), prior, tree).numpy()


def test_it_is_the_mean_over_every_order_of_the_votes():
    """The first n volunteers predict the next one: the mean over all orders is that over all samples."""
    votes, fractions = [3, 2], [0.3, 0.7]
    lead = lead_of([votes], [fractions])[0, 0]
    for n in range(5):
        scores = []
        for order in itertools.permutations([0] * votes[0] + [1] * votes[1]):
            seen, answer = order[:n], order[n]
            p = (PRIOR[answer] + seen.count(answer)) / (PRIOR.sum() + n)
            scores.append(np.log(fractions[answer]) - np.log(p.item()))
        assert lead[n] == pytest.approx(np.mean(scores), abs=1e-12)
    assert (lead[5:] == 0).all(), "there are not so many others"


@pytest.mark.parametrize("tree", ["gz_rings", "gz_jwst_ceers"])
def test_it_is_that_of_scipys_hypergeometric_distribution(tree):
    tree, rng = load_tree(tree), np.random.default_rng(1)
    a = len(tree.columns)
    votes = rng.integers(0, 30, (3, a)) * (rng.random((3, a)) < 0.7)
    prior, fractions = rng.gamma(1, size=a), rng.random((3, a))
    lead = lead_of(votes, fractions, torch.from_numpy(prior), tree)
    expected = np.zeros(lead.shape)
    for (g, i), k in np.ndenumerate(votes):
        q = tree.question_of_answer[i]
        total, prior_total = votes[g, tree.slices[q]].sum(), prior[tree.slices[q]].sum()
        for n in range(min(MOST + 1, total) if k else 0):
            s = np.arange(n + 1)
            p = hypergeom.pmf(s, total - 1, k - 1, n) if total > 1 else 1  # scipy has none of no votes
            score = (p * np.log(prior[i] + s)).sum() - np.log(prior_total + n)
            expected[g, q, n] += k / total * (np.log(fractions[g, i]) - score)
    np.testing.assert_allclose(lead, expected, atol=1e-10)
    totals = torch.from_numpy(votes @ (np.array(tree.question_of_answer)[:, None] == np.arange(len(tree.questions))))
    assert (lead[~seen_by(totals).numpy()] == 0).all()


def worth_of(votes, fractions, replicates=200):
    lead = lead_of(votes, fractions)[:, 0]
    compared = seen_by(sum_per_question(torch.from_numpy(votes), TREE)).numpy()[:, 0].astype(float)
    times = np.random.default_rng(0).poisson(1.0, (replicates, len(votes)))
    return volunteers_worth(lead.sum(0), compared.sum(0), times @ lead, times @ compared)


def survey(galaxies, seen, seed):
    """Votes of 30 volunteers, and the fractions that somebody expects who has asked `seen` others."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(*PRIOR.numpy(), galaxies)
    votes, others = rng.binomial(30, truth), rng.binomial(seen, truth)
    expected = (PRIOR[0].item() + others) / (PRIOR.sum().item() + seen)
    return np.stack([votes, 30 - votes], axis=1), np.stack([expected, 1 - expected], axis=1)


@pytest.mark.parametrize("seen", [1, 3, 8])
def test_somebody_who_has_asked_others_is_worth_as_many(seen):
    worth = worth_of(*survey(20_000, seen, 1), replicates=20)
    assert worth["value"] == pytest.approx(seen, rel=0.06)
    assert worth["low"] < worth["value"] < worth["high"]
    assert worth["most"] == 29


def test_its_interval_covers_the_truth_about_as_often_as_it_says():
    """Of 300 surveys .867 with 400 galaxies, .897 with 1,500."""
    worths = [worth_of(*survey(400, 3, seed)) for seed in range(100)]
    covered = np.mean([worth["low"] <= 3 <= worth["high"] for worth in worths])
    assert 0.82 <= covered <= 0.95


def test_the_constant_is_worth_nobody_and_the_truth_more_than_can_be_compared():
    rng = np.random.default_rng(2)
    truth = rng.beta(*PRIOR.numpy(), 2000)
    votes = np.stack([given := rng.binomial(12, truth), 12 - given], axis=1)
    guess = np.full((2000, 2), [0.5, 0.5])
    assert worth_of(votes, guess)["value"] == 0
    assert worth_of(votes, np.stack([truth, 1 - truth], axis=1))["value"] == 11 == worth_of(votes, guess)["most"]


def test_too_few_galaxies_are_not_compared():
    votes, fractions = survey(FEWEST - 1, 3, 1)
    assert worth_of(votes, fractions) == {
        "value": None, "low": None, "high": None, "most": None, "galaxies": FEWEST - 1,
    }  # fmt: skip
    votes[:30] = [1, 0]  # of most of these nobody else was asked
    votes, fractions = np.concatenate([votes, votes]), np.concatenate([fractions, fractions])
    assert worth_of(votes, fractions)["value"] is None
