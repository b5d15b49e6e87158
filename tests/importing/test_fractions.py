"""Fractions become the votes they stand for: exact votes come back exactly, all others are as near as whole votes can be."""

import itertools

import numpy as np
import pytest

from hf_galaxy import load_tree
from hf_galaxy.importing.fractions import conditional_fractions, votes_of_fractions

RINGS = load_tree("gz_rings")
TREES = ["gz_rings", "gz2", "gz_decals_dr5", "gz_hubble"]


def in_order(tree):
    """The questions, each behind those that lead to it, and the places of its answers and of the answers it is asked after."""
    column = {name: i for i, name in enumerate(tree.columns)}
    waiting, done = list(tree.questions), set()
    while waiting:
        question = next(q for q in waiting if set(q.parents) <= done)
        waiting.remove(question)
        done |= set(question.columns)
        yield [column[c] for c in question.columns], [column[c] for c in question.parents]


def random_votes(tree, rng, galaxies=400, most=80):
    """Votes of volunteers who walk the tree: (volunteers, votes)."""
    volunteers = rng.integers(1, most + 1, galaxies)
    votes = np.zeros((galaxies, len(tree.columns)), int)
    for own, parents in in_order(tree):
        for g in range(galaxies):
            asked = votes[g, parents].sum() if parents else volunteers[g]
            votes[g, own] = rng.multinomial(asked, rng.dirichlet(np.full(len(own), 0.5)))
    return volunteers, votes


def random_fractions(tree, rng, galaxies=400):
    """Conditional fractions of any kind, some of them exactly 0, 1 or 1/2."""
    fractions = np.zeros((galaxies, len(tree.columns)))
    for own, _ in in_order(tree):
        fractions[:, own] = rng.dirichlet(np.full(len(own), 0.5), galaxies)
        fractions[::7, own] = np.eye(len(own))[rng.integers(len(own), size=len(fractions[::7]))]
        fractions[3::7, own] = 0
        fractions[3::7, own[0]] = fractions[3::7, own[1]] = 0.5
    return fractions


def joint(conditional, tree):
    """Fractions of all who looked, as the Kaggle challenge published them."""
    everyone = np.zeros(conditional.shape)
    for own, parents in in_order(tree):
        asked = everyone[:, parents].sum(axis=1, keepdims=True) if parents else 1
        everyone[:, own] = np.nan_to_num(conditional[:, own]) * asked
    return everyone


def test_conditional_fractions_by_hand():
    published = np.array([[0.2, 0.3, 0.5, 0.06, 0.02], [2, 6, 0, 0, 0], [0, 0, 0, 1, 0], [np.nan, 1, 1, 3, 1]])
    nan = np.nan
    expected = [
        [0.2, 0.3, 0.5, 0.75, 0.25],
        [0.25, 0.75, 0, nan, nan],
        [nan, nan, nan, 1, 0],
        [nan, nan, nan, 0.75, 0.25],
    ]
    before = published.copy()
    np.testing.assert_allclose(conditional_fractions(published, [slice(0, 3), slice(3, 5)]), expected, rtol=1e-15)
    np.testing.assert_array_equal(published, before)


@pytest.mark.parametrize("name", TREES)
def test_fractions_of_all_volunteers_become_those_of_the_asked(name):
    tree = load_tree(name)
    conditional = random_fractions(tree, np.random.default_rng(1))
    everyone = joint(conditional, tree)
    undone = conditional_fractions(everyone, tree.slices)
    for own, parents in in_order(tree):
        asked = everyone[:, parents].sum(axis=1) > 0 if parents else np.ones(len(everyone), bool)
        np.testing.assert_allclose(undone[np.ix_(asked, own)], conditional[np.ix_(asked, own)], atol=1e-12)
        assert np.isnan(undone[np.ix_(~asked, own)]).all()
    again = conditional_fractions(undone, tree.slices)
    np.testing.assert_allclose(again, undone, atol=1e-15)  # what is conditional stays as it is; NaN is NaN


@pytest.mark.parametrize("name", TREES)
def test_votes_walk_the_tree_and_are_as_near_as_whole_votes_can_be(name):
    tree, rng = load_tree(name), np.random.default_rng(2)
    fractions = random_fractions(tree, rng)
    volunteers = rng.integers(0, 80, len(fractions))
    votes = votes_of_fractions(fractions, volunteers, tree)
    assert (votes.dtype, votes.shape) == (np.int32, fractions.shape)
    assert tree.inconsistencies(votes) == []
    assert (votes >= 0).all()
    for own, parents in in_order(tree):
        asked = votes[:, parents].sum(axis=1) if parents else volunteers
        assert (votes[:, own].sum(axis=1) == asked).all()
        assert (abs(votes[:, own] - fractions[:, own] * asked[:, None]) < 1).all()
        assert (votes[:, own][fractions[:, own] == 0] == 0).all(), "nobody chose what nobody chose"


@pytest.mark.parametrize("digits", [None, 6], ids=["exact", "six digits"])
@pytest.mark.parametrize("name", TREES)
def test_votes_come_back_from_their_fractions_exactly(name, digits):
    tree = load_tree(name)
    volunteers, votes = random_votes(tree, np.random.default_rng(3))
    assert tree.inconsistencies(votes) == []
    of_asked = np.full(votes.shape, np.nan)
    for own, _ in in_order(tree):
        total = votes[:, own].sum(axis=1, keepdims=True)
        of_asked[:, own] = np.where(total, votes[:, own] / np.maximum(total, 1), np.nan)
    of_all = votes / volunteers[:, None]
    for published in (np.nan_to_num(of_asked), of_all):
        rounded = published if digits is None else published.round(digits)
        conditional = conditional_fractions(rounded, tree.slices)
        np.testing.assert_array_equal(votes_of_fractions(conditional, volunteers, tree), votes)


def test_a_question_without_fractions_has_no_votes():
    tree = load_tree("gz2")
    fractions = random_fractions(tree, np.random.default_rng(4), 50)
    bar = [tree.columns.index(f"bar-gz2_{answer}") for answer in ("yes", "no")]
    whole = votes_of_fractions(fractions, np.full(50, 40), tree)
    fractions[:25, bar] = np.nan
    votes = votes_of_fractions(fractions, np.full(50, 40), tree)
    assert (votes[:25, bar] == 0).all()
    whole[:25, bar] = 0
    np.testing.assert_array_equal(votes, whole)
    nothing = votes_of_fractions(np.full((2, 2), np.nan), np.array([5, 0]), RINGS)
    assert nothing.tolist() == [[0, 0], [0, 0]]


def test_no_other_whole_votes_are_nearer():
    tree = load_tree("gz2")
    root, rng = tree.slices[0], np.random.default_rng(5)
    assert root == slice(0, 3)
    for _ in range(300):
        asked = int(rng.integers(0, 9))
        fractions = np.full((1, len(tree.columns)), np.nan)
        fractions[0, root] = rng.dirichlet(np.ones(3))
        dealt = votes_of_fractions(fractions, np.array([asked]), tree)[0, root]
        distance = {
            votes: sum((v - f * asked) ** 2 for v, f in zip(votes, fractions[0, root], strict=True))
            for votes in itertools.product(range(asked + 1), repeat=3)
            if sum(votes) == asked
        }
        assert distance[tuple(dealt.tolist())] == pytest.approx(min(distance.values()), abs=1e-12)


def test_of_equal_remainders_the_first_answers_get_more():
    assert votes_of_fractions(np.array([[0.5, 0.5]]), np.array([7]), RINGS).tolist() == [[4, 3]]
    assert votes_of_fractions(np.array([[0.7, 0.3]]), np.array([10]), RINGS).tolist() == [[7, 3]]
