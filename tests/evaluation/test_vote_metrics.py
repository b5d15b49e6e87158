"""Metrics against the same figures computed the long way, by sklearn, and against a known law of votes."""

import json
import tracemalloc
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_galaxy import load_tree, losses, randomness
from hf_galaxy.decision_tree import DecisionTree, Question
from hf_galaxy.evaluation import bootstrap
from hf_galaxy.evaluation.class_metrics import ClassMetrics, ranked
from hf_galaxy.evaluation.constant_votes import ConstantVotes
from hf_galaxy.evaluation.pit import PIT_BINS, holding_level, pit_histogram
from hf_galaxy.evaluation.value_metrics import ConstantValues, ValueMetrics
from hf_galaxy.evaluation.vote_metrics import VoteMetrics
from hf_galaxy.losses import dirichlet_multinomial_nll, expected_fractions, multinomial_nll, question_log_softmax
from hf_galaxy.models.calibration import calibrated_logs, uncalibrated_logs

TREE = load_tree(["gz2", "gz_hubble"])
TWO = DecisionTree("two", (Question("p", ("a", "b"), (), "x"), Question("q", ("a", "b", "c"), (), "y")))


def random_votes(galaxies, tree=TREE, seed=0):
    rng = np.random.default_rng(seed)
    votes = rng.integers(0, 12, (galaxies, len(tree.columns)))
    for campaign, questions in enumerate(tree.campaigns.values()):
        for q in questions:
            votes[np.arange(galaxies) % 2 != campaign, tree.slices[q]] = 0
    return torch.from_numpy(votes)


def measured(votes, concentrations, baseline, tree=TREE, min_votes=10, batches=1):
    parts = []
    for rows in np.array_split(np.arange(len(votes)), batches):
        metrics = VoteMetrics(tree, baseline, min_votes)
        out = SimpleNamespace(
            fractions=expected_fractions(concentrations[rows], tree),
            nll=dirichlet_multinomial_nll(votes[rows], concentrations[rows], tree),
        )
        metrics.update({"votes": votes[rows]}, out)
        parts.append(metrics.cpu())
    return sum(parts[1:], start=parts[0])


@pytest.fixture(scope="module")
def case():
    votes = random_votes(200)
    concentrations = 1 + 100 * torch.rand(votes.shape, generator=torch.Generator().manual_seed(0))
    return votes, concentrations, ConstantVotes.of([votes.numpy()], TREE, 10)


def test_vote_metrics_are_those_of_a_loop_over_galaxies(case):
    votes, concentrations, baseline = case
    results = measured(votes, concentrations, baseline).compute()
    fractions = expected_fractions(concentrations, TREE).numpy()
    nll = dirichlet_multinomial_nll(votes, concentrations, TREE).numpy()
    for q, (question, where) in enumerate(zip(TREE.questions, TREE.slices, strict=True)):
        figures = results["questions"][question.name]
        own = votes[:, where].numpy()
        asked, enough = own.sum(1) > 0, own.sum(1) >= 10
        assert (figures["galaxies_asked"], figures["galaxies_with_enough_votes"]) == (asked.sum(), enough.sum())
        true = own[enough] / own[enough].sum(1, keepdims=True)
        for who, predicted in (
            ("model", fractions[enough, where]),
            ("baseline", baseline.fractions[where].numpy()[None]),
        ):
            error = predicted - true
            assert figures["rmse"][who] == pytest.approx((error**2).mean() ** 0.5, rel=1e-5)
            assert figures["mae"][who] == pytest.approx(np.abs(error).mean(), rel=1e-5)
            top = np.broadcast_to(predicted, true.shape).argmax(1)
            correct = true[np.arange(len(true)), top] == true.max(1)
            assert figures["accuracy"][who] == pytest.approx(correct.mean())
        assert figures["nll"]["model"] == pytest.approx(nll[asked, q].mean(), rel=1e-5)
    assert results["loss"]["model"] == pytest.approx(nll.sum(1).mean(), rel=1e-5)
    hubble = TREE.campaigns["gz_hubble"]
    assert results["campaigns"]["gz_hubble"]["galaxies"] == 100
    assert results["campaigns"]["gz_hubble"]["nll"]["model"] == pytest.approx(nll[:, hubble].sum() / 100, rel=1e-5)


def test_vote_metrics_do_not_depend_on_how_galaxies_are_shared_out(case):
    whole, parts = measured(*case).compute(), measured(*case, batches=3).compute()
    assert parts["loss"]["model"] == pytest.approx(whole["loss"]["model"])
    for name, figures in whole["questions"].items():
        for key in ("nll", "rmse", "mae", "accuracy"):
            for who in ("model", "baseline"):
                assert parts["questions"][name][key][who] == pytest.approx(figures[key][who])


def test_a_figure_without_galaxies_is_none(case):
    votes, concentrations, baseline = case
    figures = measured(votes, concentrations, baseline, min_votes=10_000).compute()["questions"]["bar-gz2"]
    assert figures["rmse"] == {"model": None, "baseline": None}
    assert figures["galaxies_with_enough_votes"] == 0


def test_a_multinomial_model_stands_beside_the_best_constant_multinomial():
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(20, [0.6, 0.4], 50)
    votes = torch.from_numpy(np.concatenate([drawn, np.zeros((50, 3), int)], axis=1))
    metrics = VoteMetrics(TWO, ConstantVotes.of([votes.numpy()], TWO, 5), 5, "multinomial")
    out = SimpleNamespace(fractions=torch.full((50, 5), 0.5), nll=torch.zeros(50, 2))
    metrics.update({"votes": votes}, out)
    shares = drawn.sum(0) / drawn.sum()
    expected = -stats.multinomial.logpmf(drawn, 20, shares).mean()
    assert metrics.cpu().compute()["questions"]["p"]["nll"]["baseline"] == pytest.approx(expected, rel=1e-5)


def test_a_question_without_training_votes_has_no_clairvoyant_baseline():
    constant = ConstantVotes.of([np.array([[4, 1, 0, 0, 0]])], TWO, 1)
    assert constant.concentrations[2:].tolist() == [1, 1, 1]
    votes = torch.tensor([[4, 1, 0, 0, 7], [4, 1, 9, 0, 0]])
    results = measured(votes, torch.ones(2, 5), constant, TWO, min_votes=1).compute()
    assert results["questions"]["q"]["accuracy"]["baseline"] == 0.5


def test_tied_votes_accept_either_answer():
    votes = torch.tensor([[5, 5, 0, 0, 0]])
    baseline = ConstantVotes.of([votes.numpy()], TWO, 1)
    for concentrations in ([[9.0, 2, 1, 1, 1]], [[2.0, 9, 1, 1, 1]]):
        results = measured(votes, torch.tensor(concentrations), baseline, TWO, min_votes=1).compute()
        assert results["questions"]["p"]["accuracy"]["model"] == 1


def test_constant_concentrations_recover_the_law_the_votes_were_drawn_from():
    rng = np.random.default_rng(0)
    truth = np.array([0.8, 2.0, 4.0])
    totals = rng.integers(5, 40, 20_000)
    drawn = np.stack([rng.multinomial(n, rng.dirichlet(truth)) for n in totals])
    votes = np.concatenate([np.zeros((20_000, 2), int), drawn], axis=1)
    constant = ConstantVotes.of([votes], TWO, min_votes=5)
    np.testing.assert_allclose(constant.concentrations[2:], truth, rtol=0.04)
    np.testing.assert_allclose(constant.fractions[2:], truth / truth.sum(), atol=0.01)
    np.testing.assert_allclose(constant.fractions[:2], 0.5)

    def mean_nll(concentrations):
        return -stats.dirichlet_multinomial.logpmf(drawn[:2000], concentrations, totals[:2000]).mean()

    best = ConstantVotes.of([votes[:2000]], TWO, 5).concentrations[2:].double().numpy()
    for i in range(3):
        for factor in (0.95, 1.05):
            other = best.copy()
            other[i] *= factor
            assert mean_nll(other) > mean_nll(best)


def test_constants_are_those_of_all_galaxies_at_once():
    votes = random_votes(400, TWO).numpy()
    votes[:, 2:] *= votes[:, 2:] > 6
    constant = ConstantVotes.of((part for part in np.array_split(votes, 7)), TWO, min_votes=10)
    for where in TWO.slices:
        own = votes[:, where]
        enough = own[own.sum(1) >= 10]
        np.testing.assert_allclose(
            constant.fractions[where], (enough / enough.sum(1, keepdims=True)).mean(0), rtol=1e-6
        )
        np.testing.assert_allclose(constant.shares[where], own.sum(0) / own.sum(), rtol=1e-6)
        asked = own[own.sum(1) > 0]

        def nll(logs, asked=asked):
            return -stats.dirichlet_multinomial.logpmf(asked, np.exp(logs), asked.sum(1)).mean()

        options = {"xatol": 1e-6, "fatol": 1e-10, "maxiter": 2000}
        best = minimize(nll, np.zeros(own.shape[1]), method="Nelder-Mead", options=options)
        assert best.success
        np.testing.assert_allclose(constant.concentrations[where], np.exp(best.x), rtol=1e-3)


def test_memory_for_constants_does_not_grow_with_galaxies():
    batch = random_votes(2000).numpy()

    def peak(batches):
        tracemalloc.start()
        ConstantVotes.of((batch for _ in range(batches)), TREE, 10)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few = peak(2)
    assert peak(20) < 1.2 * few


class Devices(TorchDispatchMode):
    """Notes where the tensors are that are worked on; those of one number do not count, they travel with the command."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = (x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor))
        self.seen.update((str(function), x.device.type) for x in tensors if x.dim())
        return result


@pytest.mark.parametrize("likelihood", ["dirichlet_multinomial", "multinomial"])
def test_an_update_does_not_wait_for_a_gpu(likelihood, monkeypatch):
    # Fake tensors know their device and shape, but no values: reading one raises, also where there is no GPU.
    monkeypatch.setattr(losses, "_CONSTANTS", {})
    shape = (8, len(TREE.columns))
    with FakeTensorMode():
        constant = ConstantVotes(*[torch.ones(len(TREE.columns)) for _ in range(3)])
        metrics = VoteMetrics(TREE, constant, 10, likelihood)
        inputs = {"votes": torch.ones(shape, dtype=torch.int32, device="cuda")}
        concentrations = torch.ones(shape, device="cuda")
        for _ in range(2):  # the first copies what is constant
            with Devices() as devices:
                nll = dirichlet_multinomial_nll(inputs["votes"], concentrations, TREE)
                metrics.update(inputs, SimpleNamespace(fractions=expected_fractions(concentrations, TREE), nll=nll))
    assert {device for _, device in devices.seen} == {"cuda"}, devices.seen


@pytest.mark.parametrize("classes", [2, 4])
def test_class_metrics_are_those_of_sklearn(classes):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, classes, (300,), generator=generator)
    logits = torch.randn(300, classes, generator=generator) + 1.5 * torch.eye(classes)[labels]
    log_priors = torch.tensor([0.7, *[0.3 / (classes - 1)] * (classes - 1)]).log()
    parts = []
    for rows in (slice(0, 100), slice(100, 300)):
        metrics = ClassMetrics([f"c{i}" for i in range(classes)], log_priors)
        metrics.update({"labels": labels[rows]}, SimpleNamespace(logits=logits[rows]))
        parts.append(metrics.cpu())
    results = (parts[0] + parts[1]).compute()
    shares, predicted = logits.softmax(1).double().numpy(), logits.argmax(1)
    assert results["accuracy"]["model"] == accuracy_score(labels, predicted)
    assert results["balanced_accuracy"]["model"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert results["loss"]["model"] == pytest.approx(log_loss(labels, shares / shares.sum(1, keepdims=True)), rel=1e-5)
    auc = (
        roc_auc_score(labels, shares[:, 1])
        if classes == 2
        else roc_auc_score(labels, shares / shares.sum(1, keepdims=True), multi_class="ovr")
    )
    assert results["auc"]["model"] == pytest.approx(auc, abs=1e-6)
    assert results["accuracy"]["baseline"] == pytest.approx((labels == 0).float().mean().item())
    assert results["balanced_accuracy"]["baseline"] == pytest.approx(1 / classes)
    assert results["auc"]["baseline"] == 0.5
    of_class = np.eye(classes)[labels]
    precisions = [average_precision_score(of_class[:, c], shares[:, c]) for c in range(classes)]
    average = precisions[1] if classes == 2 else np.mean(precisions)
    assert results["average_precision"]["model"] == pytest.approx(average, abs=1e-6)
    share = of_class[:, 1].mean() if classes == 2 else 1 / classes
    assert results["average_precision"]["baseline"] == pytest.approx(share)
    assert np.trace(results["confusion"]) / 300 == results["accuracy"]["model"]


@pytest.mark.parametrize("scores", ["all differ", "ties", "all equal"])
def test_rankings_of_galaxies_that_count_so_often_are_those_of_sklearn(scores):
    rng = np.random.default_rng(3)
    positive = rng.random(120) < 0.2
    drawn = rng.normal(size=120) + positive
    scores = {"all differ": drawn, "ties": drawn.round(), "all equal": np.ones(120)}[scores]
    times = bootstrap.counts(np.arange(120), 20)
    times = np.concatenate(
        [times, np.ones((120, 1)), rng.random((120, 1)), 7 * (scores == scores.min())[:, None]], axis=1
    )
    times[:, 3] *= ~positive
    times[:, 4] *= positive
    times[:, 5] = 0
    times[:, 6] *= scores < scores.max()  # those with the highest score do not count
    areas, precisions = ranked(positive, scores, times)
    for r, weights in enumerate(times.T):
        if min(weights[positive].sum(), weights[~positive].sum()) == 0:
            assert np.isnan([areas[r], precisions[r]]).all()
            continue
        assert areas[r] == pytest.approx(roc_auc_score(positive, scores, sample_weight=weights), abs=1e-12)
        expected = average_precision_score(positive, scores, sample_weight=weights)
        assert precisions[r] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(areas[[3, 4, 5]]).all()
    assert np.isfinite(areas).sum() > 15


def test_auc_needs_every_class():
    metrics = ClassMetrics(["a", "b", "c"], torch.zeros(3))
    metrics.update({"labels": torch.tensor([0, 1])}, SimpleNamespace(logits=torch.eye(3)[:2]))
    results = metrics.cpu().compute()
    assert results["auc"] == results["average_precision"] == {"model": None, "baseline": None}
    assert "bootstrap" not in results
    rare = ClassMetrics(["a", "b"], torch.zeros(2))
    labels = torch.tensor([1, *[0] * 30])
    rare.update({"labels": labels, "keys": torch.arange(31)}, SimpleNamespace(logits=torch.randn(31, 2)))
    again = rare.cpu().compute()["bootstrap"]
    without = bootstrap.counts(np.arange(31))[0] == 0
    assert 0 < without.sum() < len(without)
    for figure in ("auc", "average_precision"):
        assert [value is None for value in again[figure]["model"]] == without.tolist()
    assert results["balanced_accuracy"]["model"] == 1


def test_no_prediction_does_better_than_the_saturated_likelihood(case):
    votes, concentrations, baseline = case
    results = measured(votes, concentrations, baseline).compute()
    total = 0.0
    for q, (question, where) in enumerate(zip(TREE.questions, TREE.slices, strict=True)):
        own = votes[:, where].numpy()
        asked = own[own.sum(axis=1) > 0]
        least = -stats.multinomial.logpmf(asked, asked.sum(axis=1), asked / asked.sum(axis=1, keepdims=True))
        nll = results["questions"][question.name]["nll"]
        assert nll["saturated"] == pytest.approx(least.mean(), rel=1e-4)
        assert nll["saturated"] < min(nll["model"], nll["baseline"]), q
        total += least.sum()
    assert results["loss"]["saturated"] == pytest.approx(total / len(votes), rel=1e-4)


def test_replicates_are_the_figures_of_galaxies_that_count_so_often(case):
    votes, concentrations, baseline = case
    keys = torch.tensor([randomness.key_of(f"galaxy {i}") for i in range(len(votes))])
    nll = dirichlet_multinomial_nll(votes, concentrations, TREE)
    fractions = expected_fractions(concentrations, TREE)
    parts = []
    for rows in np.array_split(np.arange(len(votes)), 3):
        metrics = VoteMetrics(TREE, baseline, 10)
        metrics.update(
            {"votes": votes[rows], "keys": keys[rows]},
            SimpleNamespace(
                fractions=fractions[rows], nll=nll[rows], concentrations=concentrations[rows], weights=None
            ),
        )
        parts.append(metrics.cpu())
    again = sum(parts[1:], start=parts[0]).compute()["bootstrap"]
    for replicate in (0, 57):
        times = torch.from_numpy(bootstrap.counts(keys.numpy())[:, replicate]).long()
        chosen = torch.repeat_interleave(torch.arange(len(votes)), times)
        brute = measured(votes[chosen], concentrations[chosen], baseline).compute()
        for who in ("model", "saturated"):
            assert again["loss"][who][replicate] == pytest.approx(brute["loss"][who], rel=2e-5)
        for name, figures in again["questions"].items():
            for who in ("model", "saturated"):
                assert figures["nll"][who][replicate] == pytest.approx(brute["questions"][name]["nll"][who], rel=2e-5)
            for figure in ("rmse", "accuracy"):
                assert figures[figure]["model"][replicate] == pytest.approx(
                    brute["questions"][name][figure]["model"], rel=2e-5
                )
        for name, figures in again["campaigns"].items():
            assert figures.keys() == {"nll", "rmse", "true_rmse", "accuracy"}
            for figure in ("nll", "rmse", "accuracy"):
                values = figures[figure]["model"]
                assert values[replicate] == pytest.approx(brute["campaigns"][name][figure]["model"], rel=2e-5)


def test_replicates_of_class_metrics_are_those_of_galaxies_that_count_so_often():
    generator = torch.Generator().manual_seed(2)
    labels, logits = torch.randint(0, 3, (100,), generator=generator), torch.randn(100, 3, generator=generator)
    keys = torch.arange(100)
    metrics = ClassMetrics(["a", "b", "c"], torch.zeros(3))
    metrics.update({"labels": labels, "keys": keys}, SimpleNamespace(logits=logits))
    again = metrics.cpu().compute()["bootstrap"]
    chosen = np.repeat(np.arange(100), bootstrap.counts(keys.numpy())[:, 5].astype(int))
    assert again["accuracy"]["model"][5] == pytest.approx(
        accuracy_score(labels[chosen], logits[chosen].argmax(1)), rel=1e-5
    )
    loss = log_loss(labels[chosen], logits[chosen].double().softmax(1))
    assert again["loss"]["model"][5] == pytest.approx(loss, rel=1e-5)
    balanced = balanced_accuracy_score(labels[chosen], logits[chosen].argmax(1))
    assert again["balanced_accuracy"]["model"][5] == pytest.approx(balanced, rel=1e-5)
    shares = logits[chosen].double().softmax(1).numpy()
    area = roc_auc_score(labels[chosen], shares, multi_class="ovr")
    assert again["auc"]["model"][5] == pytest.approx(area, rel=1e-5)
    average = average_precision_score(np.eye(3)[labels[chosen]], shares)
    assert again["average_precision"]["model"][5] == pytest.approx(average, rel=1e-5)


NAMES = ["redshift", "log_mass", "radius"]


@pytest.fixture(scope="module")
def numbers():
    """(train, labels, predictions), each (N, 3) in units of their own, with gaps; each galaxy has one value at least."""
    rng = np.random.default_rng(3)
    mean, std = np.array([0.1, 10.5, 4000.0]), np.array([0.02, 0.6, 900.0])
    train, labels = (mean + std * rng.normal(size=(count, 3)) for count in (500, 300))
    predictions = labels + 0.5 * std * rng.normal(size=(300, 3))
    for known in (train, labels):
        gaps = rng.random(known.shape) < [0.1, 0.5, 0.8]
        gaps[gaps.all(axis=1), 0] = False
        known[gaps] = np.nan
    return train, labels.astype(np.float32), predictions.astype(np.float32)


def value_metrics(train, labels, predictions, keys=None, batches=3):
    parts = []
    for rows in np.array_split(np.arange(len(labels)), batches):
        metrics = ValueMetrics(NAMES, ConstantValues.of(train))
        batch = {"labels": torch.from_numpy(labels[rows])} | ({} if keys is None else {"keys": keys[rows]})
        metrics.update(batch, SimpleNamespace(values=torch.from_numpy(predictions[rows])))
        parts.append(metrics.cpu())
    return sum(parts[1:], start=parts[0])


def test_value_metrics_are_those_of_sklearn_over_what_is_known(numbers):
    train, labels, predictions = numbers
    metrics = value_metrics(*numbers)
    results = metrics.compute()
    mean, std, median = np.nanmean(train, axis=0), np.nanstd(train, axis=0), np.nanmedian(train, axis=0)
    for k, name in enumerate(NAMES):
        known = ~np.isnan(labels[:, k])
        true, figures = labels[known, k].astype(float), results["values"][name]
        assert figures["galaxies"] == known.sum()
        constants = {"rmse": mean[k], "mae": median[k], "r2": mean[k]}
        for figure, function in (("rmse", root_mean_squared_error), ("mae", mean_absolute_error), ("r2", r2_score)):
            assert figures[figure]["model"] == pytest.approx(
                function(true, predictions[known, k].astype(float)), rel=1e-6
            )
            constant = np.full(known.sum(), constants[figure])
            assert figures[figure]["baseline"] == pytest.approx(function(true, constant), rel=1e-6, abs=1e-9)
    assert results["galaxies"] == 300
    for who, values in (("model", predictions), ("baseline", mean)):
        each = np.nanmean(((values - labels) / std) ** 2, axis=1)
        assert results["loss"][who] == pytest.approx(each.mean(), rel=1e-6)
    assert metrics.loss == results["loss"]["model"]
    assert "bootstrap" not in results


def test_a_constant_of_the_training_split_has_a_loss_of_1_there_and_explains_nothing():
    train = np.random.default_rng(0).lognormal([0, -3, 14], 0.7, (400, 3))
    results = value_metrics(train, train, np.tile(train.mean(axis=0), (400, 1))).compute()
    for who in ("model", "baseline"):
        assert results["loss"][who] == pytest.approx(1)
        for figures in results["values"].values():
            assert figures["r2"][who] == pytest.approx(0, abs=1e-9)
    for figures in results["values"].values():
        assert figures["mae"]["baseline"] < figures["mae"]["model"], (
            "the median is the better constant for absolute errors"
        )


def test_replicates_of_value_metrics_are_those_of_galaxies_that_count_so_often(numbers):
    train, labels, predictions = numbers
    keys = torch.tensor([randomness.key_of(f"galaxy {i}") for i in range(len(labels))])
    again = value_metrics(*numbers, keys=keys).compute()["bootstrap"]
    for replicate in (0, 57):
        chosen = np.repeat(np.arange(len(labels)), bootstrap.counts(keys.numpy())[:, replicate].astype(int))
        brute = value_metrics(train, labels[chosen], predictions[chosen]).compute()
        assert again["loss"]["model"][replicate] == pytest.approx(brute["loss"]["model"], rel=1e-5)
        for name in NAMES:
            for figure in ("rmse", "mae", "r2"):
                expected = brute["values"][name][figure]["model"]
                assert again["values"][name][figure]["model"][replicate] == pytest.approx(expected, rel=1e-5)


def test_figures_without_galaxies_or_without_a_spread_are_none(numbers):
    labels = np.array([[0.3, np.nan, 7.0], [0.3, np.nan, np.nan]])
    figures = value_metrics(numbers[0], labels, np.ones((2, 3)), batches=1).compute()["values"]
    assert figures["log_mass"] == {"galaxies": 0} | {
        f: {"model": None, "baseline": None} for f in ("rmse", "mae", "r2")
    }
    for name in ("redshift", "radius"):
        assert figures[name]["r2"] == {"model": None, "baseline": None}
    assert figures["redshift"]["rmse"]["model"] == pytest.approx(0.7)


def test_constant_values_survive_a_run_record(numbers):
    constant = ConstantValues.of(numbers[0])
    again = ConstantValues.from_dict(json.loads(json.dumps(constant.to_dict())))
    for name, values in vars(constant).items():
        assert torch.equal(getattr(again, name), values)


def test_an_update_of_value_metrics_does_not_wait_for_a_gpu():
    with FakeTensorMode():
        metrics = ValueMetrics(NAMES, ConstantValues(*[torch.ones(3, dtype=torch.float64) for _ in range(3)]))
        labels = torch.ones(8, 3, device="cuda")
        for _ in range(2):  # the first copies what is constant
            with Devices() as devices:
                metrics.update({"labels": labels}, SimpleNamespace(values=labels + 1))
    assert {device for _, device in devices.seen} == {"cuda"}, devices.seen


def calibration_of(votes, concentrations, tree, batches=1, likelihood="dirichlet_multinomial", weights=None):
    baseline = ConstantVotes.of([votes.numpy()], tree, 10)
    parts = []
    for rows in np.array_split(np.arange(len(votes)), batches):
        metrics = VoteMetrics(tree, baseline, 10, likelihood)
        out = SimpleNamespace(
            fractions=expected_fractions(concentrations[rows], tree, None if weights is None else weights[rows]),
            nll=torch.zeros(len(rows), len(tree.questions)),
            concentrations=concentrations[rows],
            weights=None if weights is None else weights[rows],
        )
        metrics.update({"votes": votes[rows], "keys": torch.from_numpy(rows)}, out)
        parts.append(metrics.cpu())
    return sum(parts[1:], start=parts[0]).compute()["calibration"]


def test_calibration_of_votes_is_that_of_a_loop_with_scipy():
    votes = random_votes(40, TWO)
    concentrations = 1 + 20 * torch.rand(votes.shape, generator=torch.Generator().manual_seed(3)).double()
    ours = calibration_of(votes, concentrations, TWO, batches=3)
    cast, predicted, given, places = np.zeros((2, 10)), np.zeros((2, 10)), np.zeros((2, 10)), np.zeros((2, 40))
    apart = np.zeros((5, 10))  # of each answer by itself, predicted less given
    deviations = [[], []]  # of the fractions
    for k, a in zip(votes.numpy(), concentrations.numpy(), strict=True):
        for q, where in enumerate(TWO.slices):
            n, total = k[where].sum(), a[where].sum()
            for i in range(where.start, where.stop):
                if n:
                    fraction = a[i] / total
                    deviations[q].append(stats.beta.std(a[i], total - a[i]))
                    row = int(10 * fraction)
                    cast[q, row] += n
                    predicted[q, row] += n * fraction
                    given[q, row] += k[i]
                    apart[i, row] += n * fraction - k[i]
                    low, high = stats.betabinom.cdf([k[i] - 1, k[i]], n, a[i], total - a[i])
                    edges = np.linspace(0, 1, 41)
                    inside = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
                    places[q] += inside.clip(0) / (high - low)
    for q, question in enumerate(TWO.questions):
        figures = ours["questions"][question.name]
        assert figures["cast"] == cast[q].tolist()
        for name, sums in (("predicted", predicted[q]), ("given", given[q])):
            assert [x is None for x in figures[name]] == (cast[q] == 0).tolist()
            means = [s / n for s, n in zip(sums, cast[q], strict=True) if n]
            assert [x for x in figures[name] if x is not None] == pytest.approx(means, rel=1e-5)
        assert figures["error"] == pytest.approx(abs(apart[TWO.slices[q]]).sum() / cast[q].sum(), rel=1e-6)
        assert figures["places"] == pytest.approx((places[q] / places[q].sum()).tolist(), rel=1e-4)
        assert figures["coverage"]["90"] == pytest.approx(places[q, 2:38].sum() / places[q].sum(), rel=1e-4)
        assert figures["coverage"]["50"] == pytest.approx(places[q, 10:30].sum() / places[q].sum(), rel=1e-4)
        assert figures["spread"]["model"] == pytest.approx(np.mean(deviations[q]), rel=1e-5)
        apart_from = {
            name: value for name, value in figures.items() if name not in ("coverage_interval", "holding", "spread")
        }
        assert ours["campaigns"]["xy"[q]] == apart_from, "each campaign has one question"


def test_votes_of_a_mixture_are_placed_in_its_distribution():
    rng = np.random.default_rng(7)
    concentrations, weights = np.exp(rng.normal(0.5, 1.2, (60, 2, 5))), rng.uniform(0.1, 0.9, (60, 2))
    weights = np.stack([weights, 1 - weights], axis=1)
    votes = random_votes(60, TWO)
    parts = torch.from_numpy(concentrations), torch.from_numpy(weights)
    questions = calibration_of(votes, parts[0], TWO, batches=2, weights=parts[1])["questions"]
    for q, (question, where) in enumerate(zip(TWO.questions, TWO.slices, strict=True)):
        places, deviations, answers = np.zeros(PIT_BINS), [], where.stop - where.start
        for k, a, w in zip(votes[:, where].numpy(), concentrations[:, :, where], weights[:, :, q], strict=True):
            if not (n := k.sum()):
                continue
            a0, edges = a.sum(axis=1), np.linspace(0, 1, PIT_BINS + 1)
            for answer in range(answers):
                law = [stats.betabinom(n, own[answer], total - own[answer]) for own, total in zip(a, a0, strict=True)]
                lower, upper = (w @ [each.cdf(k[answer] + shift) for each in law] for shift in (-1, 0))
                places += np.diff((edges.clip(lower, upper) - lower) / (upper - lower))
            drawn = [stats.dirichlet(own) for own in a]
            mean = w @ [each.mean() for each in drawn]
            variance = w @ [each.var() + (each.mean() - mean) ** 2 for each in drawn]
            deviations.append(np.sqrt(variance).mean())
        np.testing.assert_allclose(questions[question.name]["places"], places / places.sum(), atol=2e-6)
        assert questions[question.name]["spread"]["model"] == pytest.approx(np.mean(deviations), rel=1e-6)


def test_votes_drawn_as_predicted_are_calibrated_and_others_are_not():
    rng = np.random.default_rng(4)
    concentrations = torch.from_numpy(rng.uniform(1, 20, (3000, len(TWO.columns))))
    votes = np.zeros(concentrations.shape, int)
    for where in TWO.slices:
        fractions = np.array([rng.dirichlet(a) for a in concentrations[:, where].numpy()])
        votes[:, where] = [rng.multinomial(n, p) for n, p in zip(rng.integers(1, 40, 3000), fractions, strict=True)]
    votes = torch.from_numpy(votes)
    true = calibration_of(votes, concentrations, TWO)["campaigns"]["y"]
    assert true["places"] == pytest.approx([0.025] * 40, abs=0.006)
    assert true["coverage"] == pytest.approx({"50": 0.5, "80": 0.8, "90": 0.9, "95": 0.95}, abs=0.015)
    assert true["error"] < 0.01
    too_sure = calibration_of(votes, 100 * concentrations, TWO)["campaigns"]["y"]
    assert too_sure["coverage"]["90"] < 0.85
    wrong = calibration_of(votes, concentrations.flip(0), TWO)["campaigns"]["y"]
    assert wrong["error"] > 0.05
    counted = calibration_of(votes, concentrations, TWO, likelihood="multinomial")["campaigns"]["y"]
    assert counted["error"] == true["error"]
    assert "coverage" not in counted


def test_the_interval_of_a_coverage_is_as_wide_as_other_galaxies_make_it():
    rng = np.random.default_rng(5)
    held = []
    for _ in range(50):
        concentrations = torch.from_numpy(rng.uniform(0.5, 9, (100, len(TWO.columns))))
        votes = np.zeros(concentrations.shape, int)
        for where in TWO.slices:
            fractions = np.array([rng.dirichlet(a) for a in concentrations[:, where].numpy()])
            votes[:, where] = [rng.multinomial(20, p) for p in fractions]
        low, high = calibration_of(torch.from_numpy(votes), concentrations, TWO)["questions"]["q"]["coverage_interval"][
            "90"
        ]
        held.append(low <= 0.9 <= high)
    assert 0.8 <= np.mean(held) <= 0.98  # nominal 0.9, and what 50 simulations can tell


@pytest.mark.parametrize("head", ["mixture", "softplus", "multinomial"])
def test_figures_without_the_calibration_are_those_of_the_model_before_it(head):
    likelihood, rng = (
        "multinomial" if head == "multinomial" else "dirichlet_multinomial",
        torch.Generator().manual_seed(3),
    )
    shape, weights = (
        ((40, 2, 5), torch.rand(40, 1, 2, generator=rng).double()) if head == "mixture" else ((40, 5), None)
    )
    votes, logs = random_votes(40, TWO), torch.randn(shape, generator=rng).double()
    weights = None if weights is None else torch.cat([weights, 1 - weights], dim=1)
    calibration = {"scales": [1.5, 0.7], "shifts": [0.1, -0.4, 0.3, 0.2, 0.9]}
    baseline = ConstantVotes.of([votes.numpy()], TWO, 10)
    results = []
    for x, uncalibrated in (
        (logs, None),
        (calibrated_logs(logs, calibration, TWO), partial(uncalibrated_logs, calibration=calibration, tree=TWO)),
    ):
        metrics = VoteMetrics(TWO, baseline, 10, likelihood, uncalibrated)
        if likelihood == "multinomial":
            out = SimpleNamespace(fractions=question_log_softmax(x, TWO).exp(), nll=multinomial_nll(votes, x, TWO))
        else:
            nll = dirichlet_multinomial_nll(votes, x.exp(), TWO, weights)
            fractions = expected_fractions(x.exp(), TWO, weights)
            out = SimpleNamespace(fractions=fractions, nll=nll, concentrations=x.exp(), weights=weights)
        metrics.update({"votes": votes, "keys": torch.arange(40)}, out)
        results.append((metrics + VoteMetrics(TWO, baseline, 10, likelihood, uncalibrated)).compute())
    before, after = results
    assert "uncalibrated" not in before["calibration"]
    uncalibrated = after["calibration"]["uncalibrated"]
    assert uncalibrated["loss"] == pytest.approx(before["loss"]["model"], rel=1e-5)
    assert after["loss"]["model"] != pytest.approx(before["loss"]["model"], rel=1e-3)
    for name, figures in uncalibrated["questions"].items():
        assert figures["nll"] == pytest.approx(before["questions"][name]["nll"]["model"], rel=1e-5)
        if likelihood == "dirichlet_multinomial":
            assert figures["coverage"] == pytest.approx(before["calibration"]["questions"][name]["coverage"], rel=1e-4)


def test_the_level_that_holds_a_share_does_so_for_further_galaxies_whatever_the_form():
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(3000):
        places = rng.beta(3, 4, 81)  # PIT of a model that is wrong in place and in width
        level = holding_level(np.histogram(places[:80], PIT_BINS, (0, 1))[0], 0.9, 80)
        covered.append(abs(2 * places[80] - 1) <= level)
    assert (
        0.86 <= np.mean(covered) <= 0.95
    )  # at least the nominal 0.9, up to a bin and three standard errors of simulations
    flat = np.ones(PIT_BINS)
    assert holding_level(flat, 0.9, 10**9) == pytest.approx(0.9)
    assert holding_level(flat, 0.9, 8) is None
    assert holding_level(flat * 0, 0.9, 0) is None


def test_counts_that_are_next_to_impossible_have_a_place_too():
    shares = pit_histogram(*(torch.tensor([x], dtype=torch.float64) for x in (5000.0, 5000.0, 1.0, 101.0)))
    assert shares[0].tolist() == pytest.approx([0] * 39 + [1], abs=1e-6)
    assert pit_histogram(*(torch.zeros(0, dtype=torch.float64) for _ in range(4))).shape == (0, 40)


def test_a_wrong_prediction_has_an_error_though_all_its_fractions_are_in_one_bin():
    votes = torch.tensor([[0, 0, 30, 0, 0], [0, 0, 0, 10, 0]])
    concentrations = torch.tensor([[5.0, 5.0, 3.2, 3.3, 3.5]]).repeat(2, 1).double()
    ours = calibration_of(votes, concentrations, TWO)["questions"]["q"]
    assert [each is None for each in ours["predicted"]] == [True] * 3 + [False] + [True] * 6
    # 40 votes, of which the answers got 30, 10 and 0.
    assert ours["error"] == pytest.approx((abs(0.32 - 0.75) + abs(0.33 - 0.25) + 0.35) / 3)


def test_errors_of_a_campaigns_questions_do_not_cancel():
    tree = DecisionTree("one", tuple(Question(name, answers, (), "x") for name, answers in (("p", "ab"), ("q", "abc"))))
    votes = torch.tensor([[30, 10, 0, 6, 14]])
    concentrations = torch.tensor([[5.4, 4.6, 4.5, 1.0, 4.5]]).double()
    ours = calibration_of(votes, concentrations, tree)
    errors = [ours["questions"][name]["error"] for name in "pq"]
    assert errors == pytest.approx([0.21, (0.45 + 0.2 + 0.25) / 3])
    assert ours["campaigns"]["x"]["error"] == pytest.approx((40 * errors[0] + 20 * errors[1]) / 60)
    assert ours["campaigns"]["x"]["cast"] == [0, 20, 0, 0, 80, 40, 0, 0, 0, 0]
    nobody = calibration_of(0 * votes, concentrations, tree)
    assert nobody["campaigns"]["x"]["error"] is nobody["questions"]["p"]["error"] is None


def test_calibration_of_classes_is_that_of_a_loop():
    generator = torch.Generator().manual_seed(5)
    labels, logits = torch.randint(0, 3, (300,), generator=generator), torch.randn(300, 3, generator=generator)
    metrics = ClassMetrics(["a", "b", "c"], torch.zeros(3))
    metrics.update({"labels": labels, "keys": torch.arange(300)}, SimpleNamespace(logits=logits))
    ours = metrics.cpu().compute()["calibration"]
    probability, predicted = logits.double().softmax(1).max(1)
    bins = [[i for i in range(300) if b <= 10 * probability[i] < b + 1] for b in range(10)]
    assert ours["galaxies"] == list(map(len, bins))
    error = 0
    for own, accuracy, claimed in zip(bins, ours["accuracy"], ours["probability"], strict=True):
        if not own:
            assert accuracy is claimed is None
            continue
        assert accuracy == pytest.approx((predicted[own] == labels[own]).double().mean().item(), rel=1e-5)
        assert claimed == pytest.approx(probability[own].mean().item(), rel=1e-5)
        error += len(own) / 300 * abs(accuracy - claimed)
    assert ours["error"] == pytest.approx(error, rel=1e-4)
