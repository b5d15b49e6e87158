"""The questions of Galaxy Zoo campaigns, and when volunteers are asked them.

Legend of shapes, here and everywhere: B galaxies, A answers, Q questions.
"""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from hf_galaxy.errors import BadInput
from hf_galaxy.plain_json import mapping_in, mappings_of, text_of, texts_of

TREES = Path(__file__).parent / "trees"
NAME = re.compile(r"[^/\\\x00-\x1f]{1,100}")


@dataclass(frozen=True)
class Question:
    """One question of one campaign.

    Attributes:
        name: question and campaign suffix, such as "bar-gz2".
        answers: in the order of the published columns.
        parents: the columns of the answers after any of which it is asked; empty: it is always asked.
        campaign: name of the tree it belongs to, such as "gz2".
    """

    name: str
    answers: tuple[str, ...]
    parents: tuple[str, ...]
    campaign: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The published column of each answer: `{question}{suffix}_{answer}`."""
        return tuple(f"{self.name}_{answer}" for answer in self.answers)


class Inconsistency(NamedTuple):
    """A galaxy in which the votes for a question differ in number from the votes for its parent answers."""

    row: int
    question: str
    votes: int
    parent_votes: int


@dataclass(frozen=True)
class DecisionTree:
    """Ordered questions of one or several campaigns; `load_tree` creates it.

    Raises:
        BadInput: names the tree and the column, parent or cycle that is wrong.
    """

    name: str
    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        def refuse(reason: str) -> NoReturn:
            raise BadInput(f"tree {self.name}: {reason}")

        if not self.questions:
            refuse("has no questions")
        for question in self.questions:
            if len(question.answers) < 2:
                refuse(f"question {question.name} needs at least two answers, has {len(question.answers)}")
        for column, count in Counter(self.columns).items():
            if count > 1:
                refuse(f"column {column} occurs {count} times")
        for question in self.questions:
            for parent in question.parents:
                if parent not in self.columns:
                    refuse(f"question {question.name} is asked after {parent}, which is not a column of this tree")
        if len(self.order) < len(self.questions):
            waiting = [q.name for i, q in enumerate(self.questions) if i not in self.order]
            refuse(f"the questions {', '.join(waiting)} are asked after one another in a cycle")

    @cached_property
    def columns(self) -> list[str]:
        """The A vote columns, in order: the names along the last axis of every array of votes or fractions."""
        return [column for question in self.questions for column in question.columns]

    @cached_property
    def slices(self) -> list[slice]:
        """For each question, the positions of its answers in `columns`."""
        ends = np.cumsum([len(q.answers) for q in self.questions]).tolist()
        return [slice(end - len(q.answers), end) for q, end in zip(self.questions, ends, strict=True)]

    @cached_property
    def question_of_answer(self) -> list[int]:
        """(A,) index of the question of each answer."""
        return [i for i, question in enumerate(self.questions) for _ in question.answers]

    @cached_property
    def parents(self) -> list[list[int]]:
        """For each question, the indices in `columns` of its parent answers; empty: it is always asked."""
        position = {column: i for i, column in enumerate(self.columns)}
        return [[position[parent] for parent in question.parents] for question in self.questions]

    @cached_property
    def order(self) -> list[int]:
        """Question indices, every question after all of its parents; questions on a cycle are missing."""
        order: list[int] = []
        placed: set[int] = set()
        while True:
            ready = [
                i
                for i in range(len(self.questions))
                if i not in placed and all(self.question_of_answer[a] in placed for a in self.parents[i])
            ]
            if not ready:
                return order
            order += ready
            placed.update(ready)

    @cached_property
    def campaigns(self) -> dict[str, list[int]]:
        """Campaign name -> indices of its questions."""
        campaigns: dict[str, list[int]] = {}
        for i, question in enumerate(self.questions):
            campaigns.setdefault(question.campaign, []).append(i)
        return campaigns

    def held_by(self, columns: Collection[str]) -> "DecisionTree | None":
        """The part of the tree whose votes these columns hold; the tree itself if they hold all of it.

        A question is included if every answer has its column and, unless it is always asked, at least one of its parent
        answers is included too. None if no question that is always asked is included: these are not columns of the campaign.
        """
        held: set[str] = set()
        included: list[int] = []
        for q in self.order:
            question = self.questions[q]
            if set(question.columns) <= set(columns) and (not question.parents or held & set(question.parents)):
                held.update(question.columns)
                included.append(q)
        if not any(not self.questions[q].parents for q in included):
            return None
        if len(included) == len(self.questions):
            return self
        questions = (self.questions[q] for q in sorted(included))
        return DecisionTree(
            self.name, tuple(replace(q, parents=tuple(p for p in q.parents if p in held)) for q in questions)
        )

    def asked_probability(self, fractions: Any) -> list[Any]:
        """The probability that each question is asked, from the fractions of votes.

        P(asked q) = sum over the parent answers a of q of P(asked question(a)) * fraction(a), and 1 without parents:
        the product of the fractions along a path, summed over the paths. Zoobot calls it `joint_p`.

        Args:
            fractions: (..., A) numpy array or torch tensor, adding up to 1 within each question that is asked.

        Returns:
            Q arrays or tensors of shape (...), in the order of `questions`.
        """
        always = fractions[..., 0] ** 0
        asked = [always] * len(self.questions)
        for q in self.order:
            if self.parents[q]:
                asked[q] = sum(asked[self.question_of_answer[a]] * fractions[..., a] for a in self.parents[q])
        return asked

    def inconsistencies(self, votes: ArrayLike) -> list[Inconsistency]:
        """Galaxies and questions whose votes differ in number from the votes for the parent answers.

        In votes collected with this tree, the votes for each question equal those for its parent answers, in every galaxy.
        Published catalogues may differ (aggregation, removed volunteers); with a wrong column map they always do.

        Args:
            votes: (N, A) vote counts, columns in the tree's order.

        Returns:
            Sorted by row, then by question.
        """
        votes = np.asarray(votes)
        different: list[tuple[int, int, int, int]] = []
        for q, (where, parents) in enumerate(zip(self.slices, self.parents, strict=True)):
            if not parents:
                continue
            own, expected = votes[:, where].sum(axis=1), votes[:, parents].sum(axis=1)
            rows = np.flatnonzero(own != expected)
            different += [(int(row), q, int(own[row]), int(expected[row])) for row in rows]
        return [Inconsistency(row, self.questions[q].name, n, parents) for row, q, n, parents in sorted(different)]

    def to_dict(self) -> dict:
        """The tree as plain data; `DecisionTree.from_dict` returns an equal tree."""
        return {
            "name": self.name,
            "questions": [
                {"name": q.name, "answers": list(q.answers), "parents": list(q.parents), "campaign": q.campaign}
                for q in self.questions
            ],
        }

    @classmethod
    def from_dict(cls, data: dict) -> "DecisionTree":
        """The inverse of `to_dict`.

        Raises:
            BadInput: it is no tree.
        """
        try:
            name = text_of(data, "name")
            questions = [
                Question(text_of(q, "name"), texts_of(q, "answers"), texts_of(q, "parents"), text_of(q, "campaign"))
                for q in mappings_of(data, "questions")
            ]
        except ValueError as error:
            raise BadInput(f"is not a decision tree ({error})") from error
        return cls(name, tuple(questions))


def available_trees() -> list[str]:
    """The names that `load_tree` accepts."""
    return sorted(path.stem for path in TREES.glob("*.json"))


def load_tree(name: str | Path | list[str]) -> DecisionTree:
    """The decision tree of a campaign, or of several in this order.

    Args:
        name: a campaign ("gz2"), a bundle of campaigns ("gz_evo": the 88 questions and 281 answers of
            huggingface.co/papers/2404.02973), the path of a JSON file in the format of those in `hf_galaxy/trees`,
            or a list of these.

    Raises:
        BadInput: there is no such tree, or it is inconsistent.
    """
    if isinstance(name, list):
        return _union([load_tree(each) for each in name])
    path = Path(name) if str(name).endswith(".json") else TREES / f"{name}.json"
    if not path.is_file():
        raise BadInput(f"there is no decision tree {name}; choose {', '.join(available_trees())}, or a .json file")
    return _shipped(path) if path.parent == TREES else _read(path)


@cache
def _shipped(path: Path) -> DecisionTree:
    """As `_read`, once: to find the campaign of a table, all are read."""
    return _read(path)


def _read(path: Path) -> DecisionTree:
    """The tree in a file; raises as `load_tree`."""
    try:
        data = mapping_in(path.read_bytes())
        if "campaigns" in data:
            questions = load_tree(list(texts_of(data, "campaigns"))).questions
        else:
            questions = tuple(_question(data, entry) for entry in mappings_of(data, "questions"))
        title = text_of(data, "name")
        if not NAME.fullmatch(title):  # it becomes the name of figures
            raise ValueError(f"its name {title!r} is no name of a file")
    except BadInput:
        raise
    except RecursionError as error:
        raise BadInput(f"{path}: is not a decision tree (it is one of its own campaigns)") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: is not a decision tree ({' '.join(str(error).split())})") from error
    return DecisionTree(title, questions)


def tree_of_columns(columns: list[str]) -> DecisionTree:
    """The union of all campaigns whose votes these columns hold (`DecisionTree.held_by`), in the order of the columns.

    Raises:
        BadInput: no campaign's first question has its columns.
    """
    trees = [load_tree(path.stem) for path in TREES.glob("*.json")]
    held = [part for tree in trees if len(tree.campaigns) == 1 and (part := tree.held_by(set(columns)))]
    if not held:
        raise BadInput(
            "the columns do not hold the votes of a campaign; select a tree with --tree to see which are missing"
        )
    held.sort(key=lambda tree: columns.index(tree.columns[0]))
    return held[0] if len(held) == 1 else _union(held)


def _union(trees: list[DecisionTree]) -> DecisionTree:
    return DecisionTree("+".join(t.name for t in trees), tuple(q for t in trees for q in t.questions))


def _question(campaign: dict, entry: dict) -> Question:
    # In the files a parent is "question=answer", without the campaign's suffix.
    parents = (parent.partition("=")[::2] for parent in texts_of(entry, "asked_after"))
    suffix = text_of(campaign, "suffix")
    return Question(
        name=text_of(entry, "question") + suffix,
        answers=texts_of(entry, "answers"),
        parents=tuple(f"{question}{suffix}_{answer}" for question, answer in parents),
        campaign=text_of(campaign, "name"),
    )
