"""Decision trees of anybody: one that is read is the one that was written, and what is none is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example
from hypothesis import strategies as st

from hf_galaxy.decision_tree import DecisionTree, Question, load_tree
from tests.fuzz.cases import Refused, answer, fuzz
from tests.fuzz.mutations import changed, damaged

WORDS = st.text("abcxyz-é 0", min_size=1, max_size=4)


@st.composite
def tree_files(draw):
    """What the file of a tree holds; each question is asked always, or after answers of earlier ones."""
    names = draw(st.lists(WORDS, min_size=1, max_size=5, unique=True))
    questions, earlier = [], []
    for name in names:
        answers = draw(st.lists(WORDS, min_size=2, max_size=4, unique=True))
        after = draw(st.lists(st.sampled_from(earlier), max_size=3, unique=True)) if earlier else []
        questions.append({"question": name, "answers": answers, "asked_after": after})
        earlier += [f"{name}={each}" for each in answers]
    name, suffix = draw(WORDS), draw(st.sampled_from(["", "-x", "-é"]))
    return {"name": name, "title": "T", "imaging": "I", "suffix": suffix, "questions": draw(st.permutations(questions))}


@pytest.fixture(scope="module", autouse=True)
def file(tmp_path_factory):
    global FILE
    FILE = tmp_path_factory.mktemp("trees") / "mine.json"


FILE: Path


def read(content):
    FILE.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return answer(load_tree, FILE, place="tree")


@fuzz(tree_files(), st.integers(0, 2**32 - 1))
def test_a_tree_is_what_its_file_says(content, seed):
    tree = read(content)
    if isinstance(
        tree, Refused
    ):  # two questions and answers may have one column: a_b + c, a + b_c never, but x-a + "" may
        assert "occurs" in tree.message
        return
    suffix = content["suffix"]
    assert [question.name for question in tree.questions] == [
        each["question"] + suffix for each in content["questions"]
    ]
    assert [list(q.answers) for q in tree.questions] == [each["answers"] for each in content["questions"]]
    assert DecisionTree.from_dict(json.loads(json.dumps(tree.to_dict()))) == tree
    assert sorted(tree.order) == list(range(len(tree.questions)))
    # Votes that walk the tree are consistent, and add up to those of the volunteers who were asked.
    rng = np.random.default_rng(seed)
    votes = np.zeros((1, len(tree.columns)), np.int64)
    for q in tree.order:
        asked = votes[0, tree.parents[q]].sum() if tree.parents[q] else 20
        votes[0, tree.slices[q]] = rng.multinomial(asked, rng.dirichlet(np.ones(len(tree.questions[q].answers))))
    assert tree.inconsistencies(votes) == []
    held = tree.held_by(tree.columns)
    assert held is tree


@fuzz(changed(tree_files()))
@example([])
@example({"name": "", "suffix": "", "questions": [{"question": "a", "answers": ["b", "c"], "asked_after": []}]})
@example({"name": "../x", "suffix": "", "questions": [{"question": "a", "answers": ["b", "c"], "asked_after": []}]})
def test_a_file_that_is_no_tree_is_refused_in_one_line(content):
    tree = read(content)
    if not isinstance(tree, Refused):
        assert all(isinstance(each, str) for each in [tree.name, *tree.columns])
        assert DecisionTree.from_dict(json.loads(json.dumps(tree.to_dict()))) == tree
        assert all(isinstance(question, Question) and question.campaign for question in tree.questions)
        assert "/" not in tree.name


@fuzz(damaged(tree_files().map(lambda content: json.dumps(content).encode())))
@example(b"[" * 100_000)
@example(b"\xff")
def test_bytes_that_are_no_tree_are_refused_in_one_line(content):
    read(content)
