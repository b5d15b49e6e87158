"""The votes in a catalogue: counts as they are, or those that stand for its vote fractions. Legend of shapes: N galaxies, A answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.catalogue_table import CatalogueTable
from hf_galaxy.importing.column_map import ColumnMap, Fractions
from hf_galaxy.importing.fractions import conditional_fractions, votes_of_fractions


@dataclass(frozen=True)
class CatalogueVotes:
    """The votes of some rows of a catalogue, and their vote fractions.

    Attributes:
        tree: decision tree of the votes; None: there are none.
        data: column of the dataset -> (N,) values.
        dtypes: the columns of fractions -> type.
        notes: sentences for the card.
    """

    tree: DecisionTree | None = None
    data: dict[str, pa.Array] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_votes(
    table: CatalogueTable, columns: ColumnMap, tree: DecisionTree | None, volunteers: int | None
) -> CatalogueVotes:
    """The votes of the rows of a table.

    Args:
        volunteers: number of volunteers assumed for each galaxy, for fractions without that number.

    Raises:
        BadInput: a cell is no number of votes or no fraction; or the column map names answers that the tree has not.
    """
    if tree is None:
        return CatalogueVotes()
    if columns.fractions:
        return _read_fractions(table, columns.fractions, tree, volunteers)
    if unknown := set(columns.votes) - set(tree.columns):
        raise BadInput(f"--columns: tree {tree.name} has no vote column {', '.join(sorted(unknown))}")
    problem = "is not a number of votes: whole, and not negative"
    return CatalogueVotes(
        tree,
        {
            ours: pa.array(table.numbers(columns.votes.get(ours, ours), problem, whole=True).astype(np.int32))
            for ours in tree.columns
        },
    )


def _read_fractions(
    table: CatalogueTable, fractions: Fractions, tree: DecisionTree, assumed_volunteers: int | None
) -> CatalogueVotes:
    """The fractions, and the votes that they stand for where the number of volunteers is known or assumed."""
    names = [f"{question}_{answer}" for question, answers in fractions.questions.items() for answer in answers]
    tree = _tree_of_fractions(tree, names)
    ends = np.cumsum([len(answers) for answers in fractions.questions.values()])
    slices = [slice(e - len(answers), e) for e, answers in zip(ends, fractions.questions.values(), strict=True)]
    conditional = conditional_fractions(_published_fractions(table, fractions), slices)
    columns = [f"{name}_fraction" for name in names]
    data = {c: pa.array(v.astype(np.float32), from_pandas=True) for c, v in zip(columns, conditional.T, strict=True)}
    dtypes = dict.fromkeys(columns, "float32")
    about = (
        "The catalogue publishes vote fractions, not votes. Columns `{question}_{answer}_fraction` hold them among those who "
        "were asked the question (divided by the sum of the question's fractions), and are null where nobody was."
    )
    if fractions.volunteers is None and assumed_volunteers is None:
        unknown = "It does not say how many volunteers looked at a galaxy: **there are no vote counts here**."
        return CatalogueVotes(None, data, dtypes, [about, unknown])
    if fractions.volunteers is None:
        volunteers = np.full(len(table), assumed_volunteers)
        source = f"**Nobody counted these votes**: {assumed_volunteers} volunteers were assumed for every galaxy"
    else:
        volunteers = table.numbers(fractions.volunteers, "is not a number of volunteers", whole=True)
        source = f"The number of volunteers of each galaxy is the catalogue's `{fractions.volunteers}`"
    in_order = conditional[:, [names.index(column) for column in tree.columns]]
    votes = votes_of_fractions(in_order, volunteers.astype(np.int64), tree)
    about_votes = (
        f"{source}, and the vote columns are the whole votes nearest to the published fractions that walk the decision tree. "
        "They stand for the fractions in a likelihood; they are not the clicks that were made."
    )
    return CatalogueVotes(
        tree, data | {c: pa.array(v) for c, v in zip(tree.columns, votes.T, strict=True)}, dtypes, [about, about_votes]
    )


def _tree_of_fractions(tree: DecisionTree, names: list[str]) -> DecisionTree:
    """The tree without questions of which there are no fractions."""
    if missing := [column for column in tree.columns if column not in names]:
        held = tree.held_by(names)
        if held is None:
            raise BadInput(f"--columns: fractions hold neither {missing[0]} nor any first question of tree {tree.name}")
        return held
    return tree


def _published_fractions(table: CatalogueTable, fractions: Fractions) -> np.ndarray:
    """(N, A) as they are in the catalogue; an empty cell is 0."""
    problem = "is not a fraction between 0 and 1"
    columns = [column for answers in fractions.questions.values() for column in answers.values()]
    published = np.stack([table.numbers(column, problem, empty=0) for column in columns], axis=1)
    for column, too_large in zip(columns, (published > 1.001).T, strict=True):  # a little above 1 by rounding
        table.refuse(too_large, column, problem)
    return published
