"""The vote likelihoods against scipy, against the sum over every possible outcome, and against finite differences."""

import itertools

import numpy as np
import pytest
import torch
from scipy import special, stats

from hf_galaxy.decision_tree import DecisionTree, Question, load_tree
from hf_galaxy.losses import (
    dirichlet_multinomial_nll,
    expected_fractions,
    multinomial_nll,
    question_log_softmax,
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
