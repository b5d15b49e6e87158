"""What a row of a published dataset holds, and which split it is in.

A row holds `id_str`, `image` (an encoded picture), one int32 column per answer of the tree, ClassLabel columns, float32
columns of values to predict, and metadata such as `ra` and `dec` in degrees.
"""

from collections.abc import Collection
from typing import Literal

import datasets
import numpy as np
import pyarrow as pa

from hf_galaxy.data.vote_matrix import INVALID, columns_in, matrix_of
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.randomness import hashed_place

# 20 % test as in GZ Evo; validation is taken from the rest.
SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def split_of(id_str: str) -> str:
    """The split a galaxy belongs to, for ever: adding or removing other galaxies does not move it."""
    place = hashed_place(id_str)
    for split, share in SPLITS.items():
        if place < share:
            return split
        place -= share
    return split  # the shares add up to 1 only to rounding


def place_in_order(id_str: str) -> float:
    """Where a galaxy stands among those of its split, in [0, 1): an order that looks shuffled, and never changes.

    A reader of the first thousand, or of a stream, so gets a fair sample of a catalogue that was sorted.
    """
    return hashed_place("order of " + id_str)


def row_features(
    tree: DecisionTree | None = None,
    classes: dict[str, list[str]] | None = None,
    metadata: dict[str, str] | None = None,
) -> datasets.Features:
    """The schema of a dataset.

    Args:
        tree: one int32 column of votes per answer.
        classes: label column -> names of its classes.
        metadata: further column -> dtype ("string", "float32", ...).
    """
    return datasets.Features(
        {"id_str": datasets.Value("string"), "image": datasets.Image()}
        | {column: datasets.Value("int32") for column in (tree.columns if tree else [])}
        | {column: datasets.ClassLabel(names=names) for column, names in (classes or {}).items()}
        | {column: datasets.Value(dtype) for column, dtype in (metadata or {}).items()}
    )


def class_name(feature: datasets.ClassLabel, index: int | None) -> str | None:
    """The name of a class by its index; None where the label is missing: null, or -1 as the datasets library has it.

    Raises:
        BadInput: there is no class of this index.
    """
    if index is None or index < 0:
        return None
    if index >= len(feature.names):
        raise BadInput(f"there is no class {index}, only {len(feature.names)}: {', '.join(feature.names[:20])}")
    return feature.names[index]


def vote_columns(columns: Collection[str], tree: DecisionTree) -> list[str]:
    """Those of the tree's columns that are there: all answers of a question or none, but of one question at least.

    Raises:
        BadInput: there are none, or only some answers of a question.
    """
    columns = set(columns)
    held = [column for column in tree.columns if column in columns]
    if not held:
        raise BadInput(f"there are no votes for any question of tree {tree.name}; such as {tree.columns[0]}")
    for question in tree.questions:
        missing = [column for column in question.columns if column not in columns]
        if 0 < len(missing) < len(question.answers):
            raise BadInput(f"of question {question.name} the answers {', '.join(missing)} have no column")
    return held


class InvalidVotes(BadInput):
    """A number that is no number of votes.

    Attributes:
        row: the first row of the table that holds one.
    """

    def __init__(self, row: int, reason: str):
        super().__init__(f"row {row}, {reason}")
        self.row, self.reason = row, reason


def votes_in(table: pa.Table, tree: DecisionTree, errors: Literal["raise", "ignore"] = "raise") -> np.ndarray:
    """(N, A) int32: the votes of some rows, in the tree's order.

    A galaxy that was never in a campaign has 0 there in some datasets, null or NaN in others, and others have no such columns:
    no votes, which is the mask of the likelihood.

    Args:
        errors: what to do about numbers that are no votes (negative, not whole, infinite): "ignore" leaves them negative.

    Raises:
        InvalidVotes: there is such a number.
        BadInput: as `vote_columns`.
    """
    held = vote_columns(columns_in(table), tree)
    votes = np.zeros((table.num_rows, len(tree.columns)), np.int32)
    places = {column: a for a, column in enumerate(tree.columns)}
    votes[:, [places[column] for column in held]] = matrix_of(table, held)
    if errors == "raise" and (wrong := votes < 0).any():
        row, answer = np.argwhere(wrong)[0].tolist()
        number = votes[row, answer]
        what = "a number that is not whole, or too large" if number == INVALID else f"{number}"
        raise InvalidVotes(row, f"column {tree.columns[answer]}: {what}, but votes are whole numbers from 0")
    return votes
