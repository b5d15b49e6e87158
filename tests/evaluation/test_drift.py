"""Drifts are those of a count by hand, and their intervals hold as often as they say."""

import numpy as np
import pytest

from hf_galaxy import load_tree
from hf_galaxy.evaluation.drift import Answers, DriftSums
from hf_galaxy.evaluation.drift_measurement import paired_rows
from hf_galaxy.randomness import key_of

TREE = load_tree("gz2")
VOTES = Answers.of_tree(TREE)


def keys(count, first=0):
    return np.array([key_of(f"galaxy {i}") for i in range(first, first + count)])


def fractions(count, seed):
    """(B, A) that add up to 1 in each question."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.dirichlet(np.ones(len(q.answers)), count) for q in TREE.questions], axis=1)


def test_drifts_of_votes_are_counted_by_hand_whatever_the_batches():
    before, after = fractions(70, 1), fractions(70, 2)
    whole, parts = DriftSums(VOTES, 20), DriftSums(VOTES, 20)
    whole.add(keys(70), before, after)
    for first in (0, 13, 50):
        some = slice(first, {0: 13, 13: 50, 50: 70}[first])
        parts.add(keys(70)[some], before[some], after[some])
    for one, other in zip(whole.of_answers(), parts.of_answers(), strict=True):
        assert [*one.values()][2:] == pytest.approx([*other.values()][2:])
    columns = {name: i for i, name in enumerate(VOTES.columns)}
    edge_on, bar = columns["disk-edge-on-gz2_no_fraction"], columns["bar-gz2_yes_fraction"]
    featured = columns["smooth-or-featured-gz2_featured-or-disk_fraction"]
    asked = before[:, featured] * before[:, edge_on]  # volunteers who answered so were asked for a bar
    row = {each["answer"]: each for each in whole.of_answers()}["bar-gz2_yes_fraction"]
    assert row["mean_original"] == pytest.approx(np.average(before[:, bar], weights=asked))
    assert row["drift"] == pytest.approx(np.average(after[:, bar] - before[:, bar], weights=asked))
    assert row["drift_low"] < row["drift"] < row["drift_high"]
    question = {each["question"]: each for each in whole.of_questions()}["bar-gz2"]
    assert question["asked_original"] == pytest.approx(asked.mean())
    later = after[:, featured] * after[:, edge_on]
    assert question["asked_drift"] == pytest.approx((later - asked).mean())
    other = (before[:, bar] > 0.5) != (after[:, bar] > 0.5)
    assert question["changed"] == pytest.approx(np.average(other, weights=asked))
    assert question["no_longer_asked"] == pytest.approx(((asked >= 0.5) & (later < 0.5)).sum() / (asked >= 0.5).sum())


@pytest.mark.filterwarnings("error")
def test_without_galaxies_no_drift_is_known():
    sums = DriftSums(VOTES, 5)
    assert sums.of_questions()[0]["asked_drift"] is None


def test_galaxies_of_one_name_are_paired_in_their_order():
    assert paired_rows(["a", "b", "a", "c"], ["a", "a", "c"]).tolist() == [[0, 0], [2, 1], [3, 2]]
    assert paired_rows(["a", "b", "a"], ["b", "a"]).tolist() == [[1, 0]], "which of both is left out is not known"
    assert paired_rows(["a"], []).shape == (0, 2)


def test_classes_are_one_question_and_labels_one_each():
    classes, labels = (Answers.of_classes(["a", "b", "c"], exclusive) for exclusive in (True, False))
    assert (len(classes.questions), len(labels.questions)) == (1, 3)
    before, after = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]), np.array([[0.4, 0.5, 0.1], [0.2, 0.6, 0.2]])
    for answers, expected in ((classes, [0.5]), (labels, [0.5, 0.0, 0.0])):
        sums = DriftSums(answers, 5)
        sums.add(keys(2), before, after)
        assert [each["changed"] for each in sums.of_questions()] == pytest.approx(expected)
        assert [each["drift"] for each in sums.of_answers()] == pytest.approx([-0.1, 0.05, 0.05])


def test_the_interval_of_a_drift_holds_the_mean_of_all_galaxies():
    """Galaxies of a population with a drift of -0.1; 300 samples of 80."""
    answers = Answers.of_classes(["a"], exclusive=False)
    rng, held = np.random.default_rng(5), 0
    for trial in range(200):
        before = rng.beta(2, 2, (80, 1))
        sums = DriftSums(answers)
        sums.add(keys(80, 1000 * trial), before, before * 0.8 + rng.normal(0, 0.05, (80, 1)))
        row = sums.of_answers()[0]
        held += row["drift_low"] <= -0.1 <= row["drift_high"]
    assert 0.85 <= held / 200 <= 0.95
