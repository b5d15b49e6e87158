"""What volunteers said of some galaxies beside what a model says, for a page that shows both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from hf_galaxy.data.dataset import rows_of
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.vote_matrix import matrix_of
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.models.pipeline import GalaxyMorphologyPipeline
from hf_galaxy.randomness import hashed_place
from hf_galaxy.reports.demo_page import Answer, Galaxy, Question

MANY = 20  # volunteers; the shares of fewer say little


def compared(model: GalaxyPreTrainedModel, dataset: str, label: str, number: int, split: str = "test") -> list[Galaxy]:
    """Some galaxies of a split: of each class one that many volunteers looked at, then another, until there are enough.

    A hash of their names decides which, so that nobody chose them by what they look like.

    Args:
        model: of votes; its questions are shown.
        label: the column of the classes.
    """
    rows = rows_of(open_dataset(dataset, streaming=None), split, dataset)
    table = rows[list(range(len(rows)))]  # type: ignore[index]  # streamed rows are indexed by lists
    votes = matrix_of(table, model.tree.columns)
    names = rows.features[label].names
    chosen = in_turns(table["id_str"].to_pylist(), table[label].to_pylist(), volunteers_of(votes, model.tree), number)
    pictures = [table["image"][i].as_py()["bytes"] for i in chosen]
    ask = GalaxyMorphologyPipeline(model)
    answers = [ask(picture, asked=0, rendering=Rendering()) for picture in pictures]  # they have been rendered
    return [
        _galaxy(table, i, names[table[label][i].as_py()], picture, answer, votes[i], model.tree)
        for i, picture, answer in zip(chosen, pictures, answers, strict=True)
    ]


def volunteers_of(votes: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """(N,) the volunteers of each galaxy: the votes for a question that is always asked, of whatever campaign."""
    first = [where for where, parents in zip(tree.slices, tree.parents, strict=True) if not parents]
    return np.max([votes[:, where].sum(axis=1) for where in first], axis=0)


def in_turns(names: Sequence[str], classes: Sequence[int], volunteers: np.ndarray, number: int) -> list[int]:
    """The rows of some galaxies, of all classes in turn; those with few volunteers only where there are no others."""
    queues: dict[int, list[int]] = defaultdict(list)
    for i in sorted(range(len(names)), key=lambda i: (volunteers[i] < MANY, hashed_place(names[i]))):
        queues[classes[i]].append(i)
    turns = [(place, kind, i) for kind, queue in queues.items() for place, i in enumerate(queue)]
    return [i for *_, i in sorted(turns)[:number]]


def _galaxy(
    table: pa.Table, i: int, kind: str, picture: bytes, answer: list[dict[str, Any]], votes: np.ndarray, tree: DecisionTree
) -> Galaxy:  # fmt: skip
    """Galaxy i, with the questions of its campaign that volunteers were asked."""
    cast = {q.name: votes[where] for q, where in zip(tree.questions, tree.slices, strict=True)}
    of_campaign = max(answer, key=lambda each: sum(cast[q["question"]].sum() for q in each["questions"]))
    questions = [
        Question(
            question["question"].rsplit("-", 1)[0].replace("-", " "),
            int(said.sum()),
            [
                Answer(a["answer"].replace("-", " "), n / said.sum(), a["fraction"], *(a["interval"] or (None, None)))
                for a, n in zip(question["answers"], said.tolist(), strict=True)
            ],
        )
        for question in of_campaign["questions"]
        if (said := cast[question["question"]]).sum()
    ]
    volunteers = max(question.votes for question in questions)
    return Galaxy(table["id_str"][i].as_py(), picture, kind, volunteers, of_campaign["description"], questions)
