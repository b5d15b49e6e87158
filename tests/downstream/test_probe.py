"""A linear probe ends at the optimum that other libraries find, whatever the scale of the features."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForRegression, GalaxyForVotes, load_tree
from hf_galaxy.data.views import Framing
from hf_galaxy.downstream.probe import probe
from hf_galaxy.training.features import GalaxyFeatures

WIDTH = 96  # of test_resnet
N = 120


def galaxies(seed, **targets):
    """Features that say something of the targets, of very different sizes; one of them is always 0."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(N, WIDTH)) * np.geomspace(0.01, 100, WIDTH) + 3
    features[:, 5] = 0
    return GalaxyFeatures({"features": torch.from_numpy(features).float(), **targets}, Framing(32))


def classes(seed):
    labels = torch.from_numpy(np.random.default_rng(seed + 10).integers(0, 3, N))
    known = galaxies(seed, labels=labels)
    known.columns["features"][:, 40] += labels * known.columns["features"][:, 40].std()
    return known


def classifier():
    torch.manual_seed(0)
    return GalaxyForImageClassification(GalaxyConfig(backbone="test_resnet", num_labels=3, image_size=32))


def standardised(known, pool):
    mean, std = pool.mean(0), pool.std(0, correction=0)
    return ((known.columns["features"] - mean) / std.clamp_min(1e-3 * std.mean())).double().numpy()


@pytest.mark.parametrize("penalty", [1.0, 0.03])
def test_classes_are_a_logistic_regression(penalty):
    model, train, test = classifier(), classes(1), classes(2)
    pool = train.columns["features"]
    scale = torch.nn.functional.cross_entropy(model.head.bias.expand(N, 3), train.columns["labels"]).item()
    losses = probe(model, train, test, pool, (penalty,))
    theirs = LogisticRegression(C=1 / (N * penalty * scale), tol=1e-8, max_iter=10_000)
    theirs.fit(standardised(train, pool), train.columns["labels"].numpy())
    with torch.no_grad():
        ours = model.head(test.columns["features"]).softmax(1).numpy()
    expected = theirs.predict_proba(standardised(test, pool))
    np.testing.assert_allclose(ours, expected, atol=2e-3)
    nll = -np.log(expected[np.arange(N), test.columns["labels"]]).mean()
    assert losses[penalty] == pytest.approx(nll, abs=2e-3)


def test_values_are_a_ridge_regression():
    """The closed form, with a bias that is not penalised."""
    train, test = classes(1), classes(2)
    for known in (train, test):
        known.columns["labels"] = 5 + 2 * known.columns["labels"].float()[:, None]
    values = train.columns["labels"].double().numpy()
    scale = dict(value_mean=[float(values.mean())], value_std=[float(values.std())])
    model = GalaxyForRegression(GalaxyConfig(backbone="test_resnet", values=["z"], image_size=32, **scale))
    torch.nn.init.zeros_(model.head.bias)
    pool, penalty = train.columns["features"], 0.3
    probe(model, train, test, pool, (penalty,))
    x, y = standardised(train, pool), (values - values.mean()) / values.std()
    # The loss of a head without weights is 1; the gradient of mean (x w - y)^2 + penalty / 2 w^2 is 0 here.
    w = np.linalg.solve(2 * x.T @ x / N + penalty * np.eye(WIDTH), 2 * x.T @ y / N)
    with torch.no_grad():
        ours = model.head(test.columns["features"]).double().numpy()
    np.testing.assert_allclose(ours, standardised(test, pool) @ w, atol=2e-3)


def test_votes_end_where_scipy_ends():
    tree = load_tree("gz_rings")
    votes = torch.from_numpy(np.random.default_rng(3).multinomial(20, [0.3, 0.7], N).astype(np.int32))
    train = galaxies(1, votes=votes)
    model = GalaxyForVotes(GalaxyConfig(backbone="test_resnet", tree=tree, image_size=32, head_activation="softplus"))
    pool, penalty = train.columns["features"], 0.01
    torch.nn.init.zeros_(model.head.weight)
    start = model.head.bias.detach().clone()
    x = torch.from_numpy(standardised(train, pool))

    def nll(weight, bias):
        """The Dirichlet-multinomial by torch.distributions, but for the multinomial coefficient's constant."""
        a = 0.01 + torch.log1p((x @ weight.T + bias).exp())
        n, total = votes.double(), a.sum(1)
        counts = torch.lgamma(n.sum(1) + 1) - torch.lgamma(n + 1).sum(1)
        beta = torch.lgamma(total) - torch.lgamma(n.sum(1) + total) + (torch.lgamma(n + a) - torch.lgamma(a)).sum(1)
        return -(counts + beta).mean()

    scale = nll(torch.zeros(2, WIDTH, dtype=torch.double), start.double()).item()

    def objective(values):
        values = torch.tensor(values, requires_grad=True)
        weight, bias = values[: 2 * WIDTH].view(2, WIDTH), values[2 * WIDTH :]
        loss = nll(weight, bias) + penalty * scale / 2 * weight.square().sum()
        loss.backward()
        return loss.item(), values.grad.numpy()

    losses = probe(model, train, train, pool, (penalty,))
    theirs = minimize(
        objective, np.concatenate([np.zeros(2 * WIDTH), start.double().numpy()]), jac=True, options={"gtol": 1e-8}
    )
    weight, bias = torch.tensor(theirs.x[: 2 * WIDTH]).view(2, WIDTH), torch.tensor(theirs.x[2 * WIDTH :])
    assert losses[penalty] == pytest.approx(nll(weight, bias).item(), abs=2e-3)
    assert losses[penalty] < scale - 0.01, "something was learnt"


def test_larger_features_are_not_penalised_less():
    answers = []
    for factor, offset in ((1, 0), (1000, -7)):
        model, train, test = classifier(), classes(1), classes(2)
        for known in (train, test):
            known.columns["features"] = known.columns["features"] * factor + offset
        probe(model, train, test, train.columns["features"], (0.1,))
        with torch.no_grad():
            answers.append(model.head(test.columns["features"]).softmax(1).numpy())
    np.testing.assert_allclose(*answers, atol=1e-3)


def test_the_head_is_that_which_validates_best_and_the_search_ends_soon_after():
    penalties = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001)
    model, train, validation = classifier(), classes(1), classes(2)
    pool = train.columns["features"]
    losses = probe(model, train, validation, pool, penalties)
    best = min(losses, key=losses.get)
    tried = list(losses)
    assert tried == list(penalties)[: len(tried)]
    assert len(tried) in (tried.index(best) + 3, len(penalties)), "two more that are worse"
    other = classifier()
    probe(other, train, validation, pool, tuple(p for p in penalties if p >= best))
    assert torch.equal(other.head.weight, model.head.weight)
