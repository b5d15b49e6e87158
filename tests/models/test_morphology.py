"""What is said of a galaxy is what simulated volunteers do, in numbers and in words."""

import json

import numpy as np
import pytest

from hf_galaxy import load_tree
from hf_galaxy.decision_tree import DecisionTree, Question, available_trees
from hf_galaxy.errors import BadInput
from hf_galaxy.models.morphology import ARMS, _described, in_words, likely_path, morphology
from hf_galaxy.models.vote_intervals import vote_intervals

TREES = ["gz2", "gz_candels", "gz_jwst_ceers"]


def concentrations_of(tree, seed=0):
    return np.random.default_rng(seed).uniform(1, 12, len(tree.columns)).astype(np.float32)


def fractions_of(concentrations, tree):
    return np.concatenate([concentrations[where] / concentrations[where].sum() for where in tree.slices])


def drawn_fractions(concentrations, tree, draws, rng):
    """(draws, A)"""
    return np.concatenate([rng.dirichlet(concentrations[where], draws) for where in tree.slices], axis=1)


def walked(fractions, tree, rng):
    """(A,) votes of one volunteer who looks at a galaxy of these fractions, and which questions came up (Q,)."""
    votes, asked = np.zeros(len(tree.columns), int), np.zeros(len(tree.questions), int)
    given = set()
    while True:
        for q, question in enumerate(tree.questions):
            if not asked[q] and (not question.parents or given & set(question.parents)):
                asked[q] = 1
                where = tree.slices[q]
                answer = where.start + rng.choice(len(question.answers), p=fractions[where])
                votes[answer] += 1
                given.add(tree.columns[answer])
                break
        else:
            return votes, asked


@pytest.mark.parametrize("name", TREES)
def test_questions_are_asked_as_often_as_of_simulated_volunteers(name):
    tree, rng = load_tree(name), np.random.default_rng(1)
    concentrations = concentrations_of(tree)
    walks = [walked(f, tree, rng) for f in drawn_fractions(concentrations, tree, 3000, rng)]
    votes, asked = (np.mean(each, axis=0) for each in zip(*walks, strict=True))
    [said] = morphology(fractions_of(concentrations, tree), concentrations, tree, asked=0, volunteers=1)
    assert [q["question"] for q in said["questions"]] == [q.name for q in tree.questions]
    np.testing.assert_allclose([q["asked"] for q in said["questions"]], asked, atol=5 * 0.5 / 3000**0.5)
    expected = [answer["votes"] for q in said["questions"] for answer in q["answers"]]
    np.testing.assert_allclose(expected, votes, atol=5 * 0.5 / 3000**0.5)


def test_a_question_behind_several_questions_has_no_interval_of_votes():
    questions = (Question("a", ("x", "y"), (), "c"), Question("b", ("x", "y"), (), "c"))
    tree = DecisionTree("t", (*questions, Question("d", ("x", "y"), ("a_x", "b_x"), "c")))
    with pytest.raises(BadInput, match="volunteers: d is asked after several questions, a, b"):
        vote_intervals(np.ones(6), tree, 20)
    assert morphology(np.full(6, 0.5), np.ones(6), tree)[0]["questions"][2]["asked"] == 1


@pytest.mark.parametrize("name", available_trees())
def test_the_likely_path_is_that_of_a_volunteer_who_always_gives_the_likeliest_answer(name):
    tree = load_tree(name)
    for seed in range(20):
        fractions = fractions_of(concentrations_of(tree, seed), tree)
        certain = np.concatenate([np.eye(w.stop - w.start)[fractions[w].argmax()] for w in tree.slices])
        votes, _ = walked(certain, tree, np.random.default_rng(0))
        assert likely_path(fractions, tree) == np.flatnonzero(votes).tolist()


def test_of_several_campaigns_each_is_answered_as_if_it_were_alone():
    tree = load_tree("gz_evo")
    concentrations = concentrations_of(tree)
    fractions = fractions_of(concentrations, tree)
    said = morphology(fractions, concentrations, tree, volunteers=20)
    assert [each["campaign"] for each in said] == list(tree.campaigns)
    for i, campaign in enumerate(tree.campaigns):
        alone = load_tree(campaign)
        columns = [tree.columns.index(column) for column in alone.columns]
        assert morphology(fractions[columns], concentrations[columns], alone, volunteers=20) == [said[i]]
        assert morphology(fractions, concentrations, tree, campaign=campaign, volunteers=20) == [said[i]]


def test_what_is_said_is_plain_data_and_its_numbers_agree():
    tree = load_tree("gz2")
    concentrations = concentrations_of(tree)
    fractions = fractions_of(concentrations, tree)
    [said] = morphology(fractions, concentrations, tree, asked=0.3, volunteers=40)
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    for question in said["questions"]:
        assert question["asked"] >= 0.3
        assert sum(answer["fraction"] for answer in question["answers"]) == pytest.approx(1)
        for answer in question["answers"]:
            low, high = answer["interval"]
            assert low < answer["fraction"] < high
            assert answer["votes"] == pytest.approx(40 * question["asked"] * answer["fraction"])
            assert answer["votes_interval"][0] <= answer["votes"] <= answer["votes_interval"][1]
    everything = [q["question"] for q in morphology(fractions, concentrations, tree, asked=0)[0]["questions"]]
    assert {q["question"] for q in said["questions"]} < set(everything)
    assert "votes" not in morphology(fractions, concentrations, tree)[0]["questions"][0]["answers"][0]


def test_without_concentrations_there_are_no_intervals():
    tree = load_tree("gz2")
    fractions = fractions_of(concentrations_of(tree), tree)
    [said] = morphology(fractions, None, tree, volunteers=40)
    for answer in said["questions"][0]["answers"]:
        assert answer["interval"] is answer["votes_interval"] is None
        assert answer["votes"] == pytest.approx(40 * answer["fraction"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"asked": 1.1}, "asked 1.1: must be a probability, from 0 to 1"),
        ({"credible": 1}, "credible 1: must be a probability, between 0 and 1"),
        ({"campaign": "gz3"}, "campaign 'gz3': is not a campaign of the model, which has gz2"),
        ({"volunteers": 0}, "volunteers 0: must be a whole number from 1 to 1,000"),
        ({"volunteers": 2.5}, "volunteers 2.5: must be a whole"),
        ({"volunteers": 1001}, "volunteers 1001: must be a whole"),
    ],
)
def test_wrong_options_are_refused(option, message):
    tree = load_tree("gz2")
    concentrations = concentrations_of(tree)
    with pytest.raises(BadInput, match=message):
        morphology(fractions_of(concentrations, tree), concentrations, tree, **option)


def test_a_path_is_said_in_plain_words():
    gz2 = [
        ("smooth-or-featured-gz2", "featured-or-disk"),
        ("disk-edge-on-gz2", "no"),
        ("has-spiral-arms-gz2", "yes"),
        ("bar-gz2", "no"),
        ("spiral-winding-gz2", "loose"),
        ("spiral-arm-count-gz2", "2"),
    ]
    assert in_words(gz2) == "featured, not edge-on, two loose spiral arms, no bar"
    assert in_words([*gz2[2:3], gz2[4], ("spiral-arm-count-gz2", "1")]) == "one loose spiral arm"
    assert in_words([*gz2[2:3], ("spiral-arm-count-gz2", "cant-tell")]) == "an unclear number of spiral arms"
    assert in_words(gz2[2:3]) == "spiral arms"
    hubble = [("clumps-embedded-larger-object-hubble", "yes"), ("clumps-cd", "yes"), ("ring", "no")]
    assert in_words(hubble) == "clumps within a larger object, clumps, no ring"
    assert (
        in_words([("odd-feature-x", "dust-lane"), ("bar-x", "perhaps")]) == "odd feature x: dust lane, bar x: perhaps"
    )


@pytest.mark.parametrize("name", available_trees())
def test_every_answer_of_every_campaign_has_words(name):
    for question in load_tree(name).questions:
        for answer in question.answers:
            words = _described(question.name, answer)
            assert words, (question.name, answer)
            assert question.name.startswith(words)
            said = in_words(
                [("has-spiral-arms", "yes"), (question.name, answer)] if words in ARMS else [(question.name, answer)]
            )
            assert said
            assert ":" not in said
