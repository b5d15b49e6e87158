"""The oracle's loss as estimated from votes alone, against that of the fractions with which simulated votes were drawn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad
from scipy.stats import dirichlet_multinomial, multinomial

from hf_galaxy.decision_tree import DecisionTree, Question
from hf_galaxy.evaluation import bootstrap, oracle
from hf_galaxy.evaluation.constant_votes import ConstantVotes
from hf_galaxy.evaluation.dirichlet_mixture import DirichletMixture, _Likelihood
from hf_galaxy.evaluation.oracle import FEWEST, _of_question, oracle_loss, oracle_nll
from hf_galaxy.evaluation.vote_metrics import VoteMetrics
from hf_galaxy.losses import multinomial_nll
from hf_galaxy.randomness import key_of

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
        differences.append((oracle_nll(votes, TREE).nll - true).mean(axis=0))
    bias, error = np.mean(differences, axis=0), np.std(differences, axis=0, ddof=1) / 6**0.5
    assert (error < [0.02, 0.03]).all()
    assert (abs(bias) < 3 * error).all()
    assert oracle_loss([votes[:7], votes[7:]], TREE) == pytest.approx(true.sum(axis=1).mean() + differences[-1].sum())


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
    assert oracle_nll(votes, TREE).nll[first, 1] == pytest.approx(losses.mean(), abs=4 * losses.std() / 200)


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


def test_the_influence_of_a_galaxy_is_what_the_others_change_by_if_it_counts_more():
    rng = np.random.default_rng(1)
    one = DirichletMixture(np.array([[0.3, 0.6]]), np.zeros(1), np.zeros(1))
    kinds, times = np.unique(drawn(one, np.full(4000, 6), rng)[0], axis=0, return_counts=True)
    _, influence = _of_question(kinds, times)
    assert times @ influence == pytest.approx(0, abs=1e-6)
    for kind in (0, 3):
        changes = []
        for more in (-40, 40):
            counted = times + more * (np.arange(len(times)) == kind)
            changes.append(times @ _of_question(kinds, counted)[0])
        assert (changes[1] - changes[0]) / 80 == pytest.approx(influence[kind], rel=0.1)


def test_intervals_hold_the_loss_of_all_galaxies_of_a_kind():
    """With one to four votes, where most of what is not known is how fractions are distributed."""
    two_minds = DirichletMixture(np.array([[0.1, 0.1]]), np.zeros(1), np.zeros(1))

    def survey_of(galaxies, rng):
        votes, fractions = drawn(two_minds, rng.integers(1, 5, galaxies), rng)
        return votes, -multinomial(votes.sum(1), fractions.clip(1e-300)).logpmf(votes)

    expected = survey_of(100_000, np.random.default_rng(0))[1].mean()
    held = []
    for seed in range(60):
        rng = np.random.default_rng([1, seed])
        kinds, kind, times = np.unique(survey_of(150, rng)[0], axis=0, return_inverse=True, return_counts=True)
        nll, influence = (each[kind.reshape(-1)] for each in _of_question(kinds, times))
        counted = rng.poisson(1, (200, 150))
        ends = [np.quantile(counted @ each / counted.sum(axis=1), (0.05, 0.95)) for each in (nll + influence, nll)]
        held.append([low < expected < high for low, high in ends])
    whole, as_if_known = np.mean(held, axis=0)
    assert 0.75 < whole < 0.98, "at 90 %"
    assert as_if_known < 0.7, "if the distribution were known"


def metrics_of(votes, fractions, rows, min_votes=10, likelihood="dirichlet_multinomial"):
    """VoteMetrics of predicted fractions, in batches of the galaxies that these rows are."""
    votes, fractions = torch.from_numpy(votes), torch.from_numpy(fractions)
    keys = torch.tensor([key_of(f"galaxy {i}") for i in range(len(votes))])
    nll = multinomial_nll(votes, fractions.clamp_min(1e-9).log(), TREE)
    baseline = ConstantVotes.of([votes.numpy()], TREE, min_votes)
    parts = []
    for each in rows:
        metrics = VoteMetrics(TREE, baseline, min_votes, likelihood)
        out = {
            "fractions": fractions[each],
            "nll": nll[each],
            "concentrations": 20 * fractions[each].clamp_min(1e-9),
            "weights": None,
        }
        metrics.update({"votes": votes[each], "keys": keys[each]}, SimpleNamespace(**out))
        parts.append(metrics.cpu())
    return sum(parts[1:], start=parts[0])


@pytest.fixture(scope="module")
def simulated():
    """Votes, the true fractions (B, A), and predictions of them that are off."""
    rng = np.random.default_rng(5)
    (p, p_true), (q, q_true) = (
        drawn(mixture, rng.integers(8, 40, 300), rng) for mixture in (UNANIMOUS_OR_NOT, CERTAIN_AND_NOT)
    )
    p[:100] = 0
    predicted = [(true + 0.1 * rng.dirichlet(np.ones(true.shape[1]), 300)) / 1.1 for true in (p_true, q_true)]
    return np.concatenate([p, q], axis=1), np.concatenate([p_true, q_true], axis=1), np.concatenate(predicted, axis=1)


def test_metrics_have_the_oracle_beside_the_model(simulated):
    votes, true, predicted = simulated
    results = metrics_of(votes, predicted, [np.arange(300)], likelihood="multinomial").compute()
    nll, influence = oracle_nll(votes, TREE)
    assert results["loss"]["oracle"] == pytest.approx(oracle_loss([votes], TREE), rel=1e-5)
    assert results["campaigns"]["x"]["nll"]["oracle"] == pytest.approx(nll.sum() / 300, rel=1e-5)
    assert results["questions"]["p"]["nll"]["oracle"] == pytest.approx(nll[100:, 0].mean(), rel=1e-5)
    again = results["bootstrap"]
    times = bootstrap.counts(np.array([key_of(f"galaxy {i}") for i in range(300)]))[:, 3]
    counted = times @ (nll + influence)
    assert again["loss"]["oracle"][3] == pytest.approx(counted.sum() / times.sum(), rel=1e-5)
    assert again["questions"]["p"]["nll"]["oracle"][3] == pytest.approx(counted[0] / times[100:].sum(), rel=1e-5)
    # The errors against the true fractions, which the metrics do not know.
    for question, where, own in (("p", TREE.slices[0], slice(100, None)), ("q", TREE.slices[1], slice(None))):
        enough = votes[own, where].sum(axis=1) >= 10
        error = ((predicted - true)[own, where][enough] ** 2).mean() ** 0.5
        figures = results["questions"][question]
        assert figures["true_rmse"]["model"] == pytest.approx(error, rel=0.2)
        assert figures["rmse"]["model"] > 1.5 * error
        assert figures["true_rmse"]["model"] ** 2 == pytest.approx(
            figures["rmse"]["model"] ** 2 - figures["rmse"]["oracle"] ** 2
        )
        low, high = np.quantile(again["questions"][question]["true_rmse"]["model"], [0.02, 0.98])
        assert low < error < high
    means = [results["questions"][name]["true_rmse"]["model"] for name in "pq"]
    assert results["campaigns"]["x"]["true_rmse"]["model"] == pytest.approx(np.mean(means))


def test_the_oracle_does_not_depend_on_how_galaxies_are_shared_out(simulated):
    votes, _, predicted = simulated
    rows = np.random.default_rng(0).permutation(300)
    whole, parts = (
        metrics_of(votes, predicted, each).compute() for each in ([np.arange(300)], np.array_split(rows, 4))
    )
    assert parts["loss"]["oracle"] == pytest.approx(whole["loss"]["oracle"], rel=1e-9)
    assert parts["bootstrap"]["loss"]["oracle"] == pytest.approx(whole["bootstrap"]["loss"]["oracle"], rel=1e-5)
    assert parts["questions"]["p"]["true_rmse"] == pytest.approx(whole["questions"]["p"]["true_rmse"])


def test_of_a_survey_a_sample_is_enough(simulated, monkeypatch):
    votes, _, predicted = simulated
    whole = metrics_of(votes, predicted, [np.arange(300)]).compute()
    monkeypatch.setattr(oracle, "MOST", 100)
    metrics = metrics_of(votes, predicted, np.array_split(np.arange(300), 6))
    keys, rows = metrics.sample.galaxies()
    assert sorted(keys) == keys.tolist() == sorted(key_of(f"galaxy {i}") for i in range(300))[:100]
    assert len(rows) == 100
    part = metrics.compute()
    assert part["loss"]["oracle"] == pytest.approx(whole["loss"]["oracle"], abs=0.15)
    assert part["loss"]["oracle"] != whole["loss"]["oracle"]
    assert part["loss"]["saturated"] == whole["loss"]["saturated"]


def test_the_loss_of_a_sample_is_above_the_saturated_one_of_all(simulated, monkeypatch):
    votes = simulated[0]
    whole = oracle_loss([votes], TREE)
    monkeypatch.setattr(oracle, "MOST", 100)
    # The mean loss of every third galaxy is 0.3 nats higher: galaxies differ in what they were asked, and in the number of their votes.
    assert oracle_loss(np.array_split(votes, 50), TREE) == pytest.approx(whole, abs=0.1)
    assert oracle_nll(votes[::3], TREE).nll.sum(axis=1).mean() > whole + 0.2


def test_a_question_that_few_of_the_sample_were_asked_has_no_oracle(simulated, monkeypatch):
    votes, _, predicted = simulated
    monkeypatch.setattr(oracle, "MOST", FEWEST + 10)  # of them two of three were asked p
    results = metrics_of(votes, predicted, [np.arange(300)]).compute()
    assert results["questions"]["p"]["galaxies_asked"] == 200
    for figures in (results, results["bootstrap"]):
        assert "oracle" not in figures["questions"]["p"]["nll"]
        assert "oracle" in figures["questions"]["q"]["nll"]


def test_a_few_galaxies_or_single_votes_have_no_oracle(simulated):
    votes, _, predicted = simulated
    votes = votes.copy()
    votes[: 300 - FEWEST + 1, :2] = 0
    results = metrics_of(votes, predicted, [np.arange(300)], min_votes=1).compute()
    assert results["questions"]["p"]["galaxies_asked"] == FEWEST - 1
    for figures in (results, results["bootstrap"]):
        assert "oracle" not in figures["questions"]["p"]["nll"]
        assert "oracle" in figures["questions"]["q"]["nll"]
        assert "oracle" in figures["loss"]
        assert not [name for each in figures["questions"].values() for name in each if name == "true_rmse"]
    few = metrics_of(votes[: FEWEST - 1], predicted[: FEWEST - 1], [np.arange(FEWEST - 1)]).compute()
    assert few["loss"].keys() == few["bootstrap"]["loss"].keys() | {"baseline"} == {"model", "baseline", "saturated"}


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
    nll = oracle_nll(votes, TREE).nll
    assert (nll >= saturated.numpy() - 1e-9).all()
    assert (nll[~votes[:, :2].any(1), 0] == 0).all()
    assert np.isfinite(nll).all()
