"""The columns of a published dataset, and the split of each galaxy.

A row holds `id_str`, `image` (an encoded picture), perhaps `flux` (its fluxes in several bands, `fluxes`), one int32 column per answer of the tree, ClassLabel columns, float32
columns of values to predict, and metadata such as `ra` and `dec` in degrees.
"""

from collections.abc import Collection, Mapping
from typing import Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_galaxy.data.fluxes import FLUX
from hf_galaxy.data.vote_matrix import INVALID, columns_in, matrix_of
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.randomness import hashed_place

# 20 % test as in GZ Evo; the validation split is part of the rest.
SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}
NATIVE = "native"  # configuration with the pictures at their original size, where the others have reduced ones


def contents_of(pictures: pa.ChunkedArray) -> list[bytes | None]:
    """The encoded pictures in some rows of a column of them. Its chunks stay apart, as one array holds no more than 2 GiB of pictures."""
    return pc.struct_field(pictures, "bytes").to_pylist()


def split_of(id_str: str) -> str:
    """The split of a galaxy, which does not change when other galaxies are added or removed."""
    place = hashed_place(id_str)
    for split, share in SPLITS.items():
        if place < share:
            return split
        place -= share
    return split  # the shares add up to 1 only to rounding


def place_in_order(id_str: str) -> float:
    """The position of a galaxy within its split, in [0, 1): an order that looks shuffled, and never changes.

    So the first thousand rows, or the beginning of a stream, are a fair sample of a sorted catalogue.
    """
    return hashed_place("order of " + id_str)


def row_features(
    tree: DecisionTree | None = None,
    classes: dict[str, list[str]] | None = None,
    metadata: dict[str, str] | None = None,
    fluxes: bool = False,
) -> datasets.Features:
    """The schema of a dataset.

    Args:
        tree: one int32 column of votes per answer.
        classes: label column -> names of its classes.
        metadata: further column -> dtype ("string", "float32", ...).
        fluxes: with the column of fluxes.
    """
    return datasets.Features(
        {"id_str": datasets.Value("string"), "image": datasets.Image()}
        | ({FLUX: flux_feature()} if fluxes else {})
        | {column: datasets.Value("int32") for column in (tree.columns if tree else [])}
        | {column: datasets.ClassLabel(names=names) for column, names in (classes or {}).items()}
        | {column: datasets.Value(dtype) for column, dtype in (metadata or {}).items()}
    )


def flux_feature() -> dict[str, datasets.Value]:
    """The type of the column `flux`."""
    return {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}


def has_fluxes(features: Mapping[str, object]) -> bool:
    """Whether rows with these columns hold fluxes; a column of that name may also be a number."""
    feature = features.get(FLUX)
    return isinstance(feature, dict) and "bytes" in feature


def is_text(feature: object) -> bool:
    """Whether a column of this type holds texts."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def class_name(feature: datasets.ClassLabel, index: int | None) -> str | None:
    """The name of a class by its index; None if the label is missing: null, or -1 as in the datasets library.

    Raises:
        BadInput: there is no class of this index.
    """
    if index is None or index < 0:
        return None
    if index >= len(feature.names):
        raise BadInput(f"there is no class {index}, only {len(feature.names)}: {', '.join(feature.names[:20])}")
    return feature.names[index]


def vote_columns(columns: Collection[str], tree: DecisionTree) -> list[str]:
    """The tree's columns among `columns`: at least those of one question.

    Raises:
        BadInput: there are none, or a question has columns for some of its answers only.
    """
    columns = set(columns)
    present = [column for column in tree.columns if column in columns]
    if not present:
        raise BadInput(f"no column holds votes for a question of tree {tree.name}, such as {tree.columns[0]}")
    for question in tree.questions:
        missing = [column for column in question.columns if column not in columns]
        if 0 < len(missing) < len(question.answers):
            raise BadInput(f"question {question.name} has no column for its answers {', '.join(missing)}")
    return present


class InvalidVotes(BadInput):
    """A number that is not a number of votes.

    Attributes:
        row: the first row of the table with such a number.
        reason: the column and the number.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}, {reason}")
        self.row, self.reason = row, reason


def votes_in(table: pa.Table, tree: DecisionTree, errors: Literal["raise", "ignore"] = "raise") -> np.ndarray:
    """(N, A) int32: the votes in the rows of a table, in the tree's order.

    Galaxies outside a campaign have 0 in some datasets and null or NaN in others, and further datasets have no such columns. All
    of these become 0 votes, which is the mask of the likelihood.

    Args:
        errors: how to treat numbers that are not votes (negative, not whole, infinite): "ignore" leaves them negative.

    Raises:
        InvalidVotes: there is such a number.
        BadInput: as `vote_columns`.
    """
    present = vote_columns(columns_in(table), tree)
    votes = np.zeros((table.num_rows, len(tree.columns)), np.int32)
    places = {column: a for a, column in enumerate(tree.columns)}
    votes[:, [places[column] for column in present]] = matrix_of(table, present)
    if errors == "raise" and (wrong := votes < 0).any():
        row, answer = np.argwhere(wrong)[0].tolist()
        number = votes[row, answer]
        value = "a number that is not whole, or too large" if number == INVALID else f"{number}"
        raise InvalidVotes(row, f"column {tree.columns[answer]}: {value}, but votes are whole numbers from 0")
    return votes
