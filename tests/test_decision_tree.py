"""Trees say what the campaigns asked, refuse contradictions by name, and find votes that do not walk them."""

import csv
import json

import numpy as np
import pytest
import torch

from hf_galaxy.decision_tree import DecisionTree, Question, available_trees, load_tree, tree_of_columns
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.column_map import ColumnMap
from tests.conftest import ROOT

ROOT_QUESTION = Question("root", ("a", "b"), (), "x")


def test_every_tree_loads_and_survives_being_written():
    for name in available_trees():
        tree = load_tree(name)
        assert DecisionTree.from_dict(json.loads(json.dumps(tree.to_dict()))) == tree


def test_gz_evo_is_the_88_questions_of_the_paper():
    tree = load_tree("gz_evo")
    assert (len(tree.questions), len(tree.columns)) == (88, 281)
    questions = {campaign: len(indices) for campaign, indices in tree.campaigns.items()}
    assert questions == {
        "gz_decals_dr12": 10, "gz_decals_dr5": 10, "gz_desi_dr8": 10, "gz2": 10, "gz_ukidss": 10, "gz_candels": 12,
        "gz_hubble": 13, "gz_cosmic_dawn": 13,
    }  # fmt: skip
    assert list(questions)[3:5] == ["gz2", "gz_ukidss"]


def test_columns_and_slices_agree():
    tree = load_tree(["gz2", "gz_hubble"])
    assert tree.columns[0] == "smooth-or-featured-gz2_smooth"
    for question, where in zip(tree.questions, tree.slices, strict=True):
        assert tuple(tree.columns[where]) == question.columns
    assert tree.questions[tree.campaigns["gz_hubble"][0]].name == "smooth-or-featured-hubble"


def test_union_keeps_the_order_given():
    assert load_tree(["gz_hubble", "gz2"]).columns == load_tree("gz_hubble").columns + load_tree("gz2").columns


def test_tree_of_columns_finds_the_campaigns_of_a_dataset():
    columns = ["id_str", *load_tree("gz_jwst_ceers").columns, *load_tree("gz2").columns, "bar-hubble_yes"]
    assert tree_of_columns(columns) == load_tree(["gz_jwst_ceers", "gz2"])
    assert tree_of_columns(load_tree("gz2").columns) == load_tree("gz2")
    with pytest.raises(BadInput, match="votes of a campaign"):
        tree_of_columns(["id_str", "bar-gz2_yes"])


def test_questions_without_columns_are_left_out_and_those_after_them_too():
    hubble = load_tree("gz_hubble")
    lacking = [c for c in hubble.columns if not c.startswith("clump-count")]
    found = tree_of_columns(lacking)
    assert found.columns == lacking
    assert [q for q in hubble.questions if q.name != "clump-count-hubble"] == list(found.questions)
    without_spirals = [c for c in load_tree("gz2").columns if not c.startswith(("has-spiral", "something-odd"))]
    names = {q.name.removesuffix("-gz2") for q in tree_of_columns(without_spirals).questions}
    assert names == {"smooth-or-featured", "disk-edge-on", "bar", "bulge-size", "how-rounded", "bulge-shape"}


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([], "no questions"),
        ([ROOT_QUESTION, ROOT_QUESTION], "root_a occurs 2 times"),
        ([Question("q", ("only",), (), "x")], "at least two answers"),
        ([ROOT_QUESTION, Question("q", ("a", "b"), ("root_c",), "x")], "asked after root_c, which is not a column"),
        ([Question("p", ("a", "b"), ("q_a",), "x"), Question("q", ("a", "b"), ("p_a",), "x")], "p, q .* cycle"),
    ],
)
def test_a_broken_tree_is_refused_by_name(questions, message):
    with pytest.raises(BadInput, match=message) as refused:
        DecisionTree("broken", tuple(questions))
    assert "tree broken" in str(refused.value)


def test_a_broken_file_is_refused_by_name(tmp_path):
    (tmp_path / "mine.json").write_text('{"name": "mine", "questions": [{"question": "q"}], "suffix": ""}')
    with pytest.raises(BadInput, match=r"mine\.json.*asked_after"):
        load_tree(tmp_path / "mine.json")
    with pytest.raises(BadInput, match=r"gz_nothing.*gz_hubble"):
        load_tree("gz_nothing")


def random_fractions(tree, galaxies, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.dirichlet(np.ones(len(q.answers)), galaxies) for q in tree.questions], axis=1)


def walk(tree, fractions, volunteers, seed=0):
    """Votes of volunteers who walk the tree one question at a time: the brute force behind two tests."""
    rng = np.random.default_rng(seed)
    votes = np.zeros((len(fractions), len(tree.columns)), dtype=int)
    for galaxy, chances in enumerate(fractions):
        for _ in range(volunteers):
            given = set()
            for q in tree.order:
                question, where = tree.questions[q], tree.slices[q]
                if not question.parents or given & set(question.parents):
                    answer = rng.choice(len(question.answers), p=chances[where])
                    given.add(question.columns[answer])
                    votes[galaxy, where.start + answer] += 1
    return votes


@pytest.mark.parametrize("name", ["gz2", "gz_hubble", "gz_jwst_ceers"])
def test_asked_probability_is_how_often_walkers_are_asked(name):
    tree = load_tree(name)
    fractions = random_fractions(tree, 1)
    volunteers = 4000
    votes = walk(tree, fractions, volunteers)
    asked = [votes[0, where].sum() / volunteers for where in tree.slices]
    expected = np.stack(tree.asked_probability(fractions), axis=1)[0]
    np.testing.assert_allclose(asked, expected, atol=4 / volunteers**0.5 / 2)
    torch_answer = torch.stack(tree.asked_probability(torch.tensor(fractions)), dim=1)[0]
    np.testing.assert_allclose(torch_answer, expected)


def test_several_parents_add_up():
    tree = load_tree("gz2")
    odd = [q.name for q in tree.questions].index("something-odd-gz2")
    fractions = random_fractions(tree, 5)
    np.testing.assert_allclose(tree.asked_probability(fractions)[odd], fractions[:, 0] + fractions[:, 1])


def test_votes_of_walkers_are_consistent_and_others_are_found():
    tree = load_tree("gz_jwst_ceers")
    votes = walk(tree, random_fractions(tree, 6), volunteers=10)
    assert tree.inconsistencies(votes) == []
    votes[4, tree.columns.index("bar-jwst_no")] += 2
    (found,) = tree.inconsistencies(votes)
    assert (found.row, found.question, found.votes - found.parent_votes) == (4, "bar-jwst", 2)


def test_real_votes_walk_the_ceers_tree_in_every_galaxy(shared_data):
    tree = load_tree("gz_jwst_ceers")
    columns = ColumnMap.load(ROOT / "dataset_cards/gz_jwst_ceers/columns.json").votes
    with open(shared_data / "ceers/votes.csv") as file:
        rows = list(csv.DictReader(file))
    votes = np.array([[int(row[columns[column]]) for column in tree.columns] for row in rows])
    assert votes.shape == (4119, 39)
    assert votes.sum() == 460_675
    assert tree.inconsistencies(votes) == []
