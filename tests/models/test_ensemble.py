"""Several predictions as one: means, the total variance of votes, views that a turn only reorders; runs that do not go together."""

import numpy as np
import pytest
import torch

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForRegression, GalaxyForVotes, load_tree
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.decision_tree import DecisionTree, Question
from hf_galaxy.errors import BadInput
from hf_galaxy.models.ensemble import check_members, combined, matched_dirichlets, turned_views
from hf_galaxy.models.vote_intervals import credible_intervals, distributions_in

SMALL = dict(backbone="test_convnext", image_size=32)
TREE = DecisionTree("t", (Question("a", ("x", "y", "z"), (), "t"), Question("b", ("p", "q"), ("a_x",), "t")))


def votes(tree=None, **options):
    return GalaxyForVotes(GalaxyConfig(**SMALL | options, tree=tree or TREE.to_dict()))


def classes(*names, **options):
    labels = dict(enumerate(names))
    config = GalaxyConfig(**SMALL | options, id2label=labels, label2id={name: i for i, name in labels.items()})
    return GalaxyForImageClassification(config)


def values(*names):
    zeros = [0.0] * len(names)
    return GalaxyForRegression(
        GalaxyConfig(**SMALL, values=list(names), value_mean=zeros, value_std=[1.0] * len(names))
    )


def drawn(rng, concentrations, draws):
    """(draws, A) vote fractions of the mixture of one galaxy, whose members have these concentrations (M, A)."""
    members = rng.integers(0, len(concentrations), draws)
    parts = [rng.standard_gamma(concentrations[members][:, where]) for where in TREE.slices]
    return np.concatenate([part / part.sum(axis=1, keepdims=True) for part in parts], axis=1)


def test_one_dirichlet_has_the_means_and_the_total_variance_of_the_mixture():
    rng = np.random.default_rng(0)
    concentrations = np.exp(rng.normal(1, 0.8, (3, 4, 5)))
    matched = matched_dirichlets(concentrations, TREE)
    assert matched.shape == (4, 5)
    for galaxy in range(4):
        fractions = drawn(rng, concentrations[:, galaxy], 200_000)
        for where in TREE.slices:
            own = matched[galaxy, where]
            mean, precision = own / own.sum(), own.sum()
            np.testing.assert_allclose(mean, fractions[:, where].mean(axis=0), atol=4e-3)
            total = (mean * (1 - mean) / (precision + 1)).sum()
            assert total == pytest.approx(fractions[:, where].var(axis=0).sum(), rel=2e-2)


def test_equal_members_are_one_of_them_and_contradictory_ones_allow_anything():
    own = np.array([[[2.0, 3, 5, 7, 1]]] * 3)
    np.testing.assert_allclose(matched_dirichlets(own, TREE), own[0], rtol=1e-12)
    sure = np.array([[[1e6, 0.01, 0.01, 1, 1]], [[0.01, 1e6, 0.01, 1, 1]]])
    matched = matched_dirichlets(sure, TREE)
    assert (matched > 0).all()
    low, high = credible_intervals(matched, TREE)[0, 0]
    assert low < 1e-3
    assert high > 1 - 1e-3


@pytest.mark.parametrize("spread", [0.2, 0.5])
def test_intervals_hold_what_the_mixture_draws(spread):
    rng = np.random.default_rng(1)
    held, galaxies = 0, 300
    for _ in range(galaxies):
        concentrations = np.exp(rng.normal(1.5, 0.8) + rng.normal(0, 1, (1, 5)) + rng.normal(0, spread, (3, 5)))
        ends = credible_intervals(matched_dirichlets(concentrations[:, None], TREE)[0], TREE, 0.9)
        fractions = drawn(rng, concentrations, 100)
        held += ((fractions >= ends[:, 0]) & (fractions <= ends[:, 1])).mean() / galaxies
    assert 0.88 < held < 0.92


def mixed(rng, spread, members=3):
    """(M, 1, 2, A) concentrations and (M, 1, 2, Q) weights of runs that differ a little, and of which some have the distributions in the other order."""
    certain, rough = (rng.normal(mean, 0.5) for mean in (3, 0.5))
    logs = np.stack([certain + rng.normal(0, 1, 5), rough + rng.normal(0, 1, 5)]) + rng.normal(
        0, spread, (members, 1, 2, 5)
    )
    first = rng.uniform(0.1, 0.9, 2) + rng.uniform(-0.05, 0.05, (members, 1, 2))
    weights = np.stack([first, 1 - first], axis=2)
    turned = rng.random(members) < 0.5
    logs[turned], weights[turned] = logs[turned][:, :, ::-1], weights[turned][:, :, ::-1]
    return np.exp(logs), weights


@pytest.mark.parametrize("spread", [0.2, 0.5])
def test_mixtures_of_several_runs_stay_mixtures_whose_intervals_hold_what_they_draw(spread):
    rng, model, held, galaxies = np.random.default_rng(3), votes(), 0, 300
    for _ in range(galaxies):
        concentrations, weights = mixed(rng, spread)
        means = np.concatenate([
            (weights[..., [q]] * (own := concentrations[..., where]) / own.sum(-1, keepdims=True)).sum(2)
            for q, where in enumerate(TREE.slices)
        ], axis=2)  # fmt: skip
        numbers = np.concatenate([means, concentrations.reshape(3, 1, -1), weights[:, :, 0]], axis=2)
        together = combined(numbers.astype(np.float32), model)
        assert together.shape == (1, 17)
        np.testing.assert_allclose(together[0, :5], means.mean(axis=0)[0], rtol=1e-5)
        merged, shares = distributions_in(together[:, 5:].astype(float), TREE)
        ends = credible_intervals(merged, TREE, 0.9, shares)[0]
        which = rng.integers(0, 3, 100)
        fractions = np.empty((100, 5))
        for q, where in enumerate(TREE.slices):
            second = (rng.random(100) > weights[which, 0, 0, q]).astype(int)
            drawn_gammas = rng.standard_gamma(concentrations[which, 0, second][:, where])
            fractions[:, where] = drawn_gammas / drawn_gammas.sum(axis=1, keepdims=True)
        held += ((fractions >= ends[:, 0]) & (fractions <= ends[:, 1])).mean() / galaxies
    assert 0.88 < held < 0.92


def test_of_several_runs_those_distributions_become_one_that_predict_alike():
    """Not those that are alike in their precision, which here is about the same in all: volunteers agree on one answer or on another."""
    rng, model = np.random.default_rng(5), votes()
    agreed = np.array([[30.0, 2, 2, 1, 1], [2, 29, 2, 20, 20]])  # of the second question both have the same means
    logs = np.log(agreed) + rng.normal(0, 0.05, (7, 20, 2, 5))
    first = rng.uniform(0.3, 0.4, (7, 20, 2))
    turned = rng.random((7, 20)) < 0.5
    logs[turned], first[turned] = logs[turned][:, ::-1], 1 - first[turned]
    numbers = np.concatenate([np.zeros((7, 20, 5)), np.exp(logs).reshape(7, 20, -1), first], axis=2)
    together = combined(numbers, model)
    merged, weights = distributions_in(together[:, 5:], TREE)
    # The more certain distribution is the first.
    of_first = merged[:, :, :3] / merged[:, :, :3].sum(axis=2, keepdims=True)
    np.testing.assert_allclose(of_first[:, :, :2].max(axis=2), 0.88, atol=0.03)
    np.testing.assert_allclose(of_first[:, :, :2].max(axis=1), 0.88, atol=0.03)
    np.testing.assert_allclose(merged[:, :, 3:], np.tile([[[20], [1]]], (20, 1, 2)), rtol=0.2)
    np.testing.assert_allclose(weights[:, 0, 1], 0.65, atol=0.03)
    np.testing.assert_allclose(combined(numbers[::-1], model), together, rtol=1e-5)


def test_what_is_combined_are_means_and_of_values_also_their_spread():
    rng = np.random.default_rng(2)
    numbers = rng.random((4, 3, 2), np.float32)
    np.testing.assert_allclose(combined(numbers, classes("a", "b")), numbers.mean(axis=0), rtol=1e-6)
    expected = np.concatenate([numbers.mean(axis=0), numbers.std(axis=0, ddof=1)], axis=1)
    np.testing.assert_allclose(combined(numbers, values("z", "m")), expected, rtol=1e-5)
    np.testing.assert_array_equal(combined(numbers[:1], values("z", "m")), numbers[0])
    fractions = np.concatenate([rng.dirichlet(np.ones(3), (4, 3)), rng.dirichlet(np.ones(2), (4, 3))], axis=2)
    plain = combined(fractions.astype(np.float32), votes(likelihood="multinomial"))
    np.testing.assert_allclose(plain, fractions.mean(axis=0), rtol=1e-5)
    both = np.concatenate([fractions, 10 * fractions], axis=2).astype(np.float32)
    of_votes = combined(both, votes(head_activation="softplus"))
    np.testing.assert_allclose(of_votes[:, :5], fractions.mean(axis=0), rtol=1e-5)
    for where in TREE.slices:
        own = of_votes[:, 5:][:, where]
        np.testing.assert_allclose(own / own.sum(axis=1, keepdims=True), of_votes[:, where], rtol=1e-5)


@pytest.mark.parametrize("number", [1, 4, 8])
def test_views_of_a_turned_picture_are_the_same_in_another_order(number):
    picture = torch.rand(2, 3, 6, 6)
    views = [each.numpy().tobytes() for each in turned_views(picture, number)]
    assert len(set(views)) == number
    assert views[0] == picture.numpy().tobytes()
    if number > 1:
        turned = [each.numpy().tobytes() for each in turned_views(picture.rot90(1, (2, 3)), number)]
        assert set(turned) == set(views)
    if number == 8:
        assert {each.numpy().tobytes() for each in turned_views(picture.flip(2), 8)} == set(views)


OTHER_PARENTS = DecisionTree("t", (TREE.questions[0], Question("b", ("p", "q"), ("a_y",), "t")))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (classes("a", "b"), values("z"), r"^--run B: is a GalaxyForRegression and no GalaxyForImageClassification, unlike A; "),
        (classes("a", "b"), classes("a", "c"), "predicts c_probability, unlike A"),
        (classes("a", "b"), classes("b", "a"), "has its columns in another order, b_probability first"),
        (classes("a", "b"), classes("a", "b", problem_type="multi_label_classification"), "has labels of their own"),
        (values("z"), values("z", "m"), "predicts m, unlike A"),
        (values("z", "m"), values("z"), "does not predict m, unlike A"),
        (votes(), votes(load_tree("gz2").to_dict()), "predicts smooth-or-featured-gz2_smooth_fraction, .* and 97 more"),
        (votes(), votes(likelihood="multinomial"), "predicts fractions for each question, not a mixture of two Dirichlet distributions, unlike A"),
        (votes(), votes(OTHER_PARENTS.to_dict()), "asks b after a_y, not after a_x"),
        (votes(), votes(image_size=64), "another --image-size, 64 in place of 32"),
        (votes(), votes(crop=0.5), "another --crop, 0.5 in place of 1.0"),
    ],
)  # fmt: skip
def test_runs_that_do_not_go_together_are_refused(first, second, message):
    with pytest.raises(BadInput, match=message):
        check_members([first, second], ["A", "B"], [Rendering()] * 2)


def test_runs_that_see_other_pictures_are_refused():
    with pytest.raises(
        BadInput, match=r"--run B: was trained on pictures with another stretch, sqrt in place of asinh, unlike A"
    ):
        check_members([votes(), votes()], ["A", "B"], [Rendering(), Rendering(stretch="sqrt")])
    single = [votes(head_activation=name) for name in ("softplus", "sigmoid")]
    check_members(single, ["A", "B"], [Rendering()] * 2)
    with pytest.raises(BadInput, match="predicts a Dirichlet distribution for each question, not a mixture"):
        check_members([votes(), *single], ["A", "B", "C"], [Rendering()] * 3)
