"""The vote likelihoods against scipy, against the sum over every possible outcome, and against finite differences."""

import itertools

import numpy as np
import pytest
import torch
from scipy import special, stats

from hf_galaxy.decision_tree import DecisionTree, Question, load_tree
from hf_galaxy.losses import (
    class_cross_entropy,
    dirichlet_multinomial_nll,
    expected_fractions,
    masked_binary_cross_entropy,
    multinomial_nll,
    question_log_softmax,
    standardised_squared_error,
    sum_per_question,
)

THREE = DecisionTree("three", (Question("q", ("a", "b", "c"), (), "x"),))
TWO = DecisionTree("two", (Question("p", ("a", "b"), (), "x"), Question("q", ("a", "b", "c"), (), "x")))
TREE = load_tree(["gz2", "gz_hubble"])


def random_case(tree=TREE, galaxies=7, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (galaxies, len(tree.columns))
    votes = torch.randint(0, 30, shape, generator=generator)
    concentrations = 1 + 100 * torch.rand(shape, generator=generator, dtype=dtype)
    return votes, concentrations


@pytest.mark.parametrize(
    ("concentrations", "nll"), [([30, 8, 2], 3.852025), ([1, 1, 1], 6.758095), ([101, 101, 101], 17.828703)]
)
def test_published_values(concentrations, nll):
    votes = torch.tensor([[30, 8, 2]])
    value = dirichlet_multinomial_nll(votes, torch.tensor([concentrations], dtype=torch.float64), THREE)
    assert value.item() == pytest.approx(nll, abs=1e-6)


def random_mixture():
    """Votes, some without any for a question, and the concentrations (B, 2, A) and weights (B, 2, Q) of a mixture."""
    votes, first = random_case()
    second = torch.rand(first.shape, generator=torch.Generator().manual_seed(1), dtype=first.dtype) * 3 + 0.02
    shares = torch.rand(len(votes), len(TREE.questions), generator=torch.Generator().manual_seed(2)).double()
    votes[1::2, TREE.slices[3]] = 0
    return votes, torch.stack([first, second], dim=1), torch.stack([shares, 1 - shares], dim=1)


def test_a_mixture_is_the_weighted_sum_of_scipys_probabilities():
    votes, concentrations, weights = random_mixture()
    nll = dirichlet_multinomial_nll(votes, concentrations, TREE, weights)
    fractions = expected_fractions(concentrations, TREE, weights)
    for q, where in enumerate(TREE.slices):
        for galaxy in range(len(votes)):
            k = votes[galaxy, where].numpy()
            own, shares = concentrations[galaxy, :, where].numpy(), weights[galaxy, :, q].numpy()
            p = sum(w * stats.dirichlet_multinomial.pmf(k, a, k.sum()) for w, a in zip(shares, own, strict=True))
            assert nll[galaxy, q].item() == pytest.approx(-np.log(p), rel=1e-9, abs=1e-12)
            means = shares @ (own / own.sum(axis=1, keepdims=True))
            np.testing.assert_allclose(fractions[galaxy, where], means, rtol=1e-12)


def test_in_a_mixture_a_question_without_votes_has_exactly_no_loss_and_no_gradient():
    votes, *parts = random_mixture()
    concentrations, weights = (each.float().requires_grad_() for each in parts)
    nll = dirichlet_multinomial_nll(votes, concentrations, TREE, weights)
    assert (nll[1::2, 3] == 0).all()
    nll.sum().backward()
    assert (concentrations.grad[1::2, :, TREE.slices[3]] == 0).all()
    assert (weights.grad[1::2, :, 3] == 0).all()
    assert (weights.grad[0] != 0).all()


def test_the_gradient_of_a_mixture_is_the_slope():
    votes, concentrations, weights = random_mixture()
    concentrations, weights = concentrations[:2].requires_grad_(), weights[:2].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, w: dirichlet_multinomial_nll(votes[:2], a, TREE, w), (concentrations, weights), fast_mode=True
    )


def test_dirichlet_multinomial_is_scipys_in_every_question():
    votes, concentrations = random_case()
    nll = dirichlet_multinomial_nll(votes, concentrations, TREE)
    assert nll.shape == (len(votes), len(TREE.questions))
    for q, where in enumerate(TREE.slices):
        for galaxy in range(len(votes)):
            k, a = votes[galaxy, where].numpy(), concentrations[galaxy, where].numpy()
            assert nll[galaxy, q].item() == pytest.approx(-stats.dirichlet_multinomial.logpmf(k, a, k.sum()), rel=1e-9)


def test_multinomial_is_scipys_in_every_question():
    votes, logits = random_case()
    logits = logits / 20 - 3
    nll = multinomial_nll(votes, logits, TREE)
    fractions = question_log_softmax(logits, TREE).exp()
    for q, where in enumerate(TREE.slices):
        for galaxy in range(len(votes)):
            k, p = votes[galaxy, where].numpy(), fractions[galaxy, where].numpy()
            np.testing.assert_allclose(p, logits[galaxy, where].softmax(0))
            assert nll[galaxy, q].item() == pytest.approx(-stats.multinomial.logpmf(k, k.sum(), p / p.sum()), rel=1e-9)


@pytest.mark.parametrize("likelihood", [dirichlet_multinomial_nll, multinomial_nll])
def test_probabilities_of_all_outcomes_add_up_to_one(likelihood):
    outcomes = [k for k in itertools.product(range(8), repeat=3) if sum(k) == 7]
    parameters = torch.tensor([[0.7, 3.0, 1.9]], dtype=torch.float64).expand(len(outcomes), 3)
    total = likelihood(torch.tensor(outcomes), parameters, THREE).neg().exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-12)


def test_dirichlet_multinomial_with_huge_concentrations_is_multinomial():
    votes = torch.tensor([[5, 3, 9]])
    shares = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    dirichlet = dirichlet_multinomial_nll(votes, shares * 1e7, THREE)
    torch.testing.assert_close(dirichlet, multinomial_nll(votes, shares.log(), THREE), atol=1e-4, rtol=0)


@pytest.mark.parametrize("likelihood", [dirichlet_multinomial_nll, multinomial_nll])
def test_gradients(likelihood):
    votes, parameters = random_case(galaxies=2)
    parameters = (parameters / 10).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: likelihood(votes, p, TREE), parameters)


def test_second_derivatives():
    votes, concentrations = random_case(TWO, galaxies=2)
    votes[0, :2] = 0
    concentrations = (concentrations / 10).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda c: dirichlet_multinomial_nll(votes, c, TWO), concentrations)


@pytest.mark.parametrize(("most_votes", "concentration"), [(40, 101), (5000, 101), (5000, 1), (5000, 0.01)])
def test_float32_is_enough_for_many_votes_and_for_concentrations_at_their_ends(most_votes, concentration):
    generator = torch.Generator().manual_seed(0)
    votes = torch.randint(0, most_votes, (20, 3), generator=generator)
    concentrations = torch.full((20, 3), float(concentration)).requires_grad_()
    nll = dirichlet_multinomial_nll(votes, concentrations, THREE)
    nll.sum().backward()
    k, a = votes.numpy(), concentrations.detach().double().numpy()
    exact = -stats.dirichlet_multinomial.logpmf(k, a, k.sum(1))
    np.testing.assert_allclose(
        nll[:, 0].detach(), exact, rtol=1e-4, atol=4e-7 * special.gammaln(k.sum(1) + a.sum(1)).max()
    )
    whole = special.digamma(k.sum(1) + a.sum(1)) - special.digamma(a.sum(1))
    slope = whole[:, None] - (special.digamma(k + a) - special.digamma(a))
    np.testing.assert_allclose(concentrations.grad, slope, rtol=1e-5, atol=1e-5)


def test_memory_layout_does_not_matter():
    votes, concentrations = random_case(galaxies=9)
    votes[::2, 5:30] = 0
    expected = dirichlet_multinomial_nll(votes, concentrations, TREE)
    turned = concentrations.T.contiguous().T.requires_grad_()
    value = dirichlet_multinomial_nll(votes.T.contiguous().T, turned, TREE)
    assert torch.equal(value, expected)
    value.sum().backward()
    concentrations.requires_grad_()
    dirichlet_multinomial_nll(votes, concentrations, TREE).sum().backward()
    assert torch.equal(turned.grad, concentrations.grad)
    same_for_all = concentrations.detach()[:1].expand_as(concentrations)
    expected = dirichlet_multinomial_nll(votes, same_for_all.contiguous(), TREE)
    assert torch.equal(dirichlet_multinomial_nll(votes, same_for_all, TREE), expected)


# Dynamo probes every autograd function of torch by instantiating it.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("likelihood", [dirichlet_multinomial_nll, multinomial_nll])
def test_what_accelerators_and_torch_compile_take_is_the_same(likelihood):
    # Compiling goes the way of the GPU: every count, those of 0 too, in tensors whose shapes do not depend on the votes.
    votes, parameters = random_case(galaxies=16)
    votes[:, TREE.slices[3]] = 0
    votes[5] = 0
    results = []
    for function in (likelihood, torch.compile(likelihood, fullgraph=True, backend="eager")):
        given = parameters.clone().requires_grad_()
        nll = function(votes, given, TREE)
        nll.sum().backward()
        assert (nll[:, 3] == 0).all()
        assert (nll[5] == 0).all()
        assert (given.grad[:, TREE.slices[3]] == 0).all()
        assert (given.grad[5] == 0).all()
        results.append((nll, given.grad))
    torch.testing.assert_close(*results)


def test_what_evaluation_has_prepared_serves_in_training():
    tree = DecisionTree("new", (Question("n", ("a", "b", "c", "d", "e"), (), "x"),))  # no other test's
    votes, parameters = random_case(tree)
    with torch.inference_mode():
        dirichlet_multinomial_nll(votes, parameters, tree)
    parameters.requires_grad_()
    dirichlet_multinomial_nll(votes, parameters, tree).sum().backward()
    expected_fractions(parameters, tree).sum().backward()
    assert (parameters.grad != 0).any()


@pytest.mark.parametrize("likelihood", [dirichlet_multinomial_nll, multinomial_nll])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_question_without_votes_costs_exactly_nothing(likelihood, dtype):
    votes, parameters = random_case(galaxies=64)
    votes[:, TREE.slices[3]] = 0
    votes[5] = 0
    parameters = parameters.to(dtype).requires_grad_()
    nll = likelihood(votes, parameters, TREE)
    assert (nll[:, 3] == 0).all()
    assert (nll[5] == 0).all()
    nll.sum().backward()
    assert (parameters.grad[:, TREE.slices[3]] == 0).all()
    assert (parameters.grad[5] == 0).all()
    assert (parameters.grad[0, TREE.slices[0]] != 0).any()


@pytest.mark.parametrize("likelihood", [dirichlet_multinomial_nll, multinomial_nll])
def test_float32_under_autocast(likelihood):
    votes, parameters = random_case(dtype=torch.float32)
    expected = likelihood(votes, parameters, TREE)
    with torch.autocast("cpu", torch.bfloat16):
        value = likelihood(votes, parameters, TREE)
        assert value.dtype == torch.float32
        assert torch.equal(value, expected)
        assert likelihood(votes, parameters.bfloat16(), TREE).dtype == torch.float32
    exact = likelihood(votes, parameters.double(), TREE)
    torch.testing.assert_close(expected.double(), exact, atol=2e-3, rtol=1e-4)


def test_better_predictions_cost_less():
    votes = torch.tensor([[2, 1, 0]])
    good, bad = torch.tensor([[20.0, 10.0, 1.0]]), torch.tensor([[1.0, 1.0, 98.0]])
    assert dirichlet_multinomial_nll(votes, good, THREE) < dirichlet_multinomial_nll(votes, bad, THREE)
    assert multinomial_nll(votes, good.log(), THREE) < multinomial_nll(votes, bad.log(), THREE)


def test_expected_fractions_are_the_mean_of_the_dirichlet():
    _, concentrations = random_case()
    fractions = expected_fractions(concentrations, TREE)
    for where in TREE.slices:
        for galaxy in range(3):
            np.testing.assert_allclose(
                fractions[galaxy, where], stats.dirichlet.mean(concentrations[galaxy, where].numpy())
            )
    torch.testing.assert_close(
        sum_per_question(fractions, TREE), torch.ones(7, len(TREE.questions), dtype=torch.float64)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [None, [1, 0.5, 4]])
def test_smoothed_and_weighted_cross_entropy_is_that_of_a_loop(smoothing, weights):
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.normal(size=(20, 3)), rng.integers(0, 3, 20)
    w, expected = np.ones(3) if weights is None else np.array(weights), []
    for row, label in zip(logits, labels, strict=True):
        log_p = row - special.logsumexp(row)
        hard, smooth = -w[label] * log_p[label], -(w * log_p).sum()
        expected.append((1 - smoothing) * hard + smoothing / 3 * smooth)
    found = class_cross_entropy(torch.from_numpy(labels), torch.tensor(logits), smoothing, weights)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_masked_binary_cross_entropy_is_that_of_the_labels_that_are_there():
    """torch's own loss, galaxy by galaxy, of those labels alone; what is missing has no gradient."""
    torch.manual_seed(0)
    labels = torch.tensor([[1, 0, float("nan")], [float("nan")] * 3, [0, float("nan"), float("nan")], [1, 1, 0]])
    logits = (5 * torch.randn(4, 3)).requires_grad_()
    losses = masked_binary_cross_entropy(labels, logits)
    for loss, own, row in zip(losses, labels, logits, strict=True):
        has = ~own.isnan()
        expected = (
            torch.nn.functional.binary_cross_entropy_with_logits(row[has], own[has]) if has.any() else torch.zeros(())
        )
        torch.testing.assert_close(loss, expected)
    losses.mean().backward()
    assert (logits.grad[labels.isnan()] == 0).all()
    assert (logits.grad[~labels.isnan()] != 0).all()
    assert masked_binary_cross_entropy(labels, logits.half()).dtype == torch.float32


def test_the_loss_of_a_galaxy_does_not_depend_on_those_beside_it():
    """Where it would, as with torch's weighted mean, two processes would not learn what one does."""
    logits, labels = torch.randn(8, 3), torch.tensor([0, 1, 2, 0, 0, 0, 1, 0])
    whole = class_cross_entropy(labels, logits, 0.1, [0.2, 3, 5]).mean()
    halves = [class_cross_entropy(labels[i], logits[i], 0.1, [0.2, 3, 5]).mean() for i in (slice(4), slice(4, 8))]
    torch.testing.assert_close(whole, sum(halves) / 2)
    numbers = torch.where(torch.rand(8, 3) < 0.4, torch.nan, torch.randn(8, 3))
    whole = standardised_squared_error(numbers, logits, torch.ones(3)).mean()
    halves = [standardised_squared_error(numbers[i], logits[i], torch.ones(3)).mean() for i in (slice(4), slice(4, 8))]
    torch.testing.assert_close(whole, sum(halves) / 2)


def test_squared_errors_are_those_of_a_loop_over_what_is_known():
    rng = np.random.default_rng(1)
    labels, values, std = rng.normal(5, 3, (30, 4)), rng.normal(5, 3, (30, 4)), np.array([0.1, 1, 7, 2])
    labels[rng.random((30, 4)) < 0.4] = np.nan
    labels[3] = np.nan
    predicted = torch.tensor(values, requires_grad=True)
    found = standardised_squared_error(torch.tensor(labels), predicted, torch.tensor(std))
    for galaxy in range(30):
        known = [k for k in range(4) if not np.isnan(labels[galaxy, k])]
        errors = [((values[galaxy, k] - labels[galaxy, k]) / std[k]) ** 2 for k in known]
        assert found[galaxy].item() == pytest.approx(sum(errors) / len(known) if known else 0)
    assert found[3] == 0
    found.sum().backward()
    np.testing.assert_array_equal(predicted.grad == 0, np.isnan(labels))
