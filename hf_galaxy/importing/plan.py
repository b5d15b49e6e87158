"""The files of a dataset, and the galaxies in each: decided before the first picture is read.

The file of a galaxy and its place in it depend on its name alone, and on the names of its duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from hf_galaxy.data.schema import SPLITS, place_in_order, split_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.duplicates import SAME_GALAXY_ARCSEC, groups_of_pairs, pairs_on_the_sky

if TYPE_CHECKING:
    import datasets

    from hf_galaxy.data.pictures import Rendering
    from hf_galaxy.decision_tree import DecisionTree

ROWS_PER_FILE = 5000
AS_IT_WAS = "as it was"  # kind of a picture that was not made from a file
# Chains of neighbours longer than both of these are not duplicates but a crowded field.
MAX_GROUP_SIZE, MAX_GROUP_SHARE = 10, 0.01


class Row(NamedTuple):
    """A galaxy to publish.

    Attributes:
        columns: its value in each column; `image` is {"bytes", "path"}.
        native: its picture at the original size, {"bytes", "path"}; None: not published.
        kind: kind of the original file, as of `pictures.kind_of`.
    """

    columns: dict[str, Any]
    native: dict[str, Any] | None = None
    kind: str = AS_IT_WAS


class Batch(NamedTuple):
    """Galaxies to publish, of several rows; those whose picture cannot be read are left out.

    Attributes:
        table: their columns, with the schema of the source.
        native: their pictures at the original size, as structs of bytes and path, null where there is none; None: none has one.
        kinds: of the original files, as of `pictures.kind_of`.
    """

    table: pa.Table
    native: pa.Array | None
    kinds: set[str]


class LeftOut(NamedTuple):
    """A galaxy that is in no file.

    Attributes:
        id_str: its name; empty where it has none, since the name would be made of its picture.
        row: its row in the table, or in its split, from 1.
        file: of its picture, as far as it has one.
        reason: why it is left out.
    """

    id_str: str
    row: int
    file: str
    reason: str


def batch_of(features: datasets.Features, rows: Iterable[Row | None]) -> Batch:
    """Rows one by one as a batch; None stands for a row that is left out."""
    made = [row for row in rows if row is not None]
    labels = {column: each for column, each in features.items() if hasattr(each, "str2int")}
    columns = [
        row.columns | {c: each.str2int(row.columns[c]) for c, each in labels.items() if row.columns[c] is not None}
        for row in made
    ]
    schema = features.arrow_schema
    native = [row.native for row in made]
    return Batch(
        pa.Table.from_pylist(columns, schema=schema),
        pa.array(native, schema.field("image").type) if any(native) else None,
        {row.kind for row in made},
    )


class Source(Protocol):
    """Rows to import or publish: a `catalogues.Catalogue`, `dataset_rows.DatasetRows`, a `simulate.MockSurvey` or `combine.Combined`. Can be
    pickled.

    Attributes:
        ids: unique names of the galaxies.
        features: schema of the rows.
        tree: decision tree of the votes; None: there are no votes.
        values: columns of numbers that the statistics summarise.
        caption: column that the contact sheet prints below each picture.
        split_names: the names that decide the split, where these are not `ids`; rows with the same name are the same galaxy.
        campaigns: campaign of each galaxy; None: there is only one.
        positions: (N, 2) right ascension and declination in degrees; None: unknown.
        total_votes: (N,) number of votes of each galaxy; None: there are none.
        notes: sentences for the card, on how the data were processed.
        rendering: how files became the pictures; None: unknown, or there were no files.
    """

    @property
    def ids(self) -> list[str]: ...
    @property
    def features(self) -> datasets.Features: ...
    @property
    def tree(self) -> DecisionTree | None: ...
    @property
    def values(self) -> Sequence[str]: ...
    @property
    def caption(self) -> str: ...
    @property
    def split_names(self) -> list[str] | None: ...
    @property
    def campaigns(self) -> list[str] | None: ...
    @property
    def positions(self) -> np.ndarray | None: ...
    @property
    def total_votes(self) -> np.ndarray | None: ...
    @property
    def notes(self) -> Sequence[str]: ...
    @property
    def rendering(self) -> Rendering | None: ...

    def batch(self, rows: Sequence[int]) -> Batch:
        """These galaxies with their pictures."""

    def left_out(self, unread: Sequence[int]) -> list[LeftOut]:
        """The galaxies that are in no file: those that had no picture from the first, and those of `unread`, rows that `batch` left out."""

    def fingerprint(self) -> str:
        """Changes whenever the rows may change."""


@dataclass(frozen=True)
class Duplicates:
    """Galaxies with several rows, by their positions or (in combined datasets) by their names.

    Attributes:
        arcsec: rows closer than this are the same galaxy.
        groups: number of galaxies with several rows.
        rows: number of these rows.
        moved: number of rows that are in another split than their own name gives, to be with the rest of their group.
        dropped: number of rows that were left out.
        in_train_too: number of rows in other splits than their galaxy's row in train, where the splits were given.
    """

    arcsec: float = SAME_GALAXY_ARCSEC
    groups: int = 0
    rows: int = 0
    moved: int = 0
    dropped: int = 0
    in_train_too: int = 0

    def __str__(self) -> str:
        if not self.groups:
            return f"No two galaxies are within {self.arcsec:g} arcsec of each other."
        dropped = f"{self.dropped:,} that have a neighbour with more votes are left out; " if self.dropped else ""
        return (
            f"{self.rows:,} galaxies are within {self.arcsec:g} arcsec of another or have its name, in {self.groups:,} groups: "
            f"{dropped}each group is in one split ({self.moved:,} were moved for that)."
        )


@dataclass(frozen=True)
class Shard:
    """One Parquet file: its path in the folder, and its rows in order."""

    path: Path
    campaign: str | None
    split: str
    rows: list[int]


class Plan(NamedTuple):
    """The files of a dataset, and the duplicates in it."""

    shards: list[Shard]
    duplicates: Duplicates


def plan(
    source: Source,
    drop_duplicates: bool = False,
    arcsec: float = SAME_GALAXY_ARCSEC,
    splits: Sequence[str] | None = None,
) -> Plan:
    """Assign each row to a file. All rows of a galaxy, and rows next to it, are in one split.

    Args:
        splits: of each row, if they are given already: no row is moved to another one.
        drop_duplicates: of rows within `arcsec` of each other, keep those with the most votes, so that no two of the rest are
            that close.

    Raises:
        BadInput: the galaxies are so dense that chains of neighbours connect a large part of the field.
    """
    names = source.split_names or source.ids
    near = np.empty((0, 2), int) if source.positions is None else pairs_on_the_sky(source.positions, arcsec)
    if splits is None:
        _check_crowding(near, len(names), arcsec)
    groups = _groups(np.concatenate([near, _pairs_of_equal(names)]), len(names))
    in_train_too = 0 if splits is None else _in_train_too(groups, splits)
    splits, moved = assign_splits(names, groups) if splits is None else (splits, 0)
    votes = np.zeros(len(names), int) if source.total_votes is None else source.total_votes
    kept = choose_rows(near, votes) if drop_duplicates else np.ones(len(names), bool)
    duplicates = Duplicates(arcsec, len(groups), sum(map(len, groups)), moved, int((~kept).sum()), in_train_too)
    return Plan(_shards(source, splits, np.flatnonzero(kept)), duplicates)


def assign_splits(names: Sequence[str], groups: list[list[int]]) -> tuple[list[str], int]:
    """The split of each row, by its name or, in a group, by the name of one of the group; and how many rows that moved."""
    splits = [split_of(name) for name in names]
    moved = 0
    for rows in groups:
        # Not the least `hashed_place`, which decides the split: of several numbers the least is nearly always train's.
        leader = min(rows, key=lambda i: place_in_order(names[i]))
        moved += sum(splits[i] != splits[leader] for i in rows)
        for i in rows:
            splits[i] = splits[leader]
    return splits, moved


def choose_rows(pairs: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """(N,) bool: rows to keep so that no pair is left. Rows with more votes are kept first, then earlier rows.

    Args:
        pairs: (M, 2) rows that are near each other.
        votes: (N,) number of votes of each row.
    """
    near: dict[int, list[int]] = {}
    for i, j in pairs.tolist():
        near.setdefault(i, []).append(j)
        near.setdefault(j, []).append(i)
    kept = np.ones(len(votes), bool)
    for i in sorted(near, key=lambda i: (-votes[i], i)):
        if kept[i]:
            kept[near[i]] = False
    return kept


def _pairs_of_equal(names: Sequence[str]) -> np.ndarray:
    """(M, 2) each row whose name an earlier row has, with the first such row."""
    if not names:
        return np.empty((0, 2), int)
    numbers = pa.array(names, pa.large_string()).dictionary_encode().indices.to_numpy()
    first = np.unique(numbers, return_index=True)[1][numbers]
    rows = np.arange(len(names))
    return np.stack([first, rows], axis=1)[first != rows]


def _in_train_too(groups: list[list[int]], splits: Sequence[str]) -> int:
    """The number of rows in other splits than train whose galaxy has a row in train."""
    of_groups = ([splits[i] for i in rows] for rows in groups)
    return sum(len(held) - held.count("train") for held in of_groups if "train" in held)


def _check_crowding(near: np.ndarray, rows: int, arcsec: float) -> None:
    sizes = np.bincount(groups_of_pairs(near, rows)) if len(near) else np.zeros(1, int)
    if sizes.max() > max(MAX_GROUP_SIZE, rows * MAX_GROUP_SHARE):
        raise BadInput(
            f"{sizes.max():,} of {rows:,} galaxies are connected by steps of up to {arcsec:g} arcsec and would all be in one "
            "split: the field is too crowded for that; use a smaller --same-galaxy-arcsec, such as 1"
        )


def _groups(pairs: np.ndarray, rows: int) -> list[list[int]]:
    """The rows of each group of two and more that pairs connect, directly or through others."""
    group = groups_of_pairs(pairs, rows)
    sizes = np.bincount(group)
    members: dict[int, list[int]] = {}
    for i in np.flatnonzero(sizes[group] > 1).tolist():
        members.setdefault(int(group[i]), []).append(i)
    return list(members.values())


def _shards(source: Source, splits: Sequence[str], rows: np.ndarray) -> list[Shard]:
    """Files of at most ROWS_PER_FILE rows of one split and campaign."""
    campaigns: Sequence[str | None] = source.campaigns or [None] * len(splits)
    parts: dict[tuple[str | None, str], list[int]] = {}
    places = np.fromiter((place_in_order(source.ids[i]) for i in rows), float, len(rows))
    for i in rows[np.argsort(places, kind="stable")].tolist():
        parts.setdefault((campaigns[i], splits[i]), []).append(i)
    shards = []
    for split in dict.fromkeys([*SPLITS, *splits]):
        for campaign in dict.fromkeys(campaigns):
            of_part = parts.get((campaign, split), [])
            for number, first in enumerate(range(0, len(of_part), ROWS_PER_FILE)):
                path = Path("data", campaign or "", f"{split}-{number:05d}.parquet")
                shards.append(Shard(path, campaign, split, of_part[first : first + ROWS_PER_FILE]))
    return shards
