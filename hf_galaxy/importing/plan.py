"""The files of a dataset, and the galaxies in each: decided before the first picture is read.

The file of a galaxy and its place in it depend on its name alone, and on the names of its duplicates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from hf_galaxy.data.schema import SPLITS, place_in_order, split_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.categories import Categories
from hf_galaxy.importing.duplicates import SAME_GALAXY_ARCSEC, pairs_on_the_sky
from hf_galaxy.importing.groups import Groups, hashes_of

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
        kinds: of the original file, as of `pictures.kind_of` or `band_pictures.flux_columns`.
    """

    columns: dict[str, Any]
    native: dict[str, Any] | None = None
    kinds: Collection[str] = (AS_IT_WAS,)


class Batch(NamedTuple):
    """Galaxies to publish, of several rows; those whose picture cannot be read are left out.

    Attributes:
        table: their columns, with the schema of the source.
        native: their pictures at the original size, as structs of bytes and path, null where there is none; None: none has one.
        kinds: of the original files, as of `Row`.
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
        {kind for row in made for kind in row.kinds},
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
        campaigns: campaign of each galaxy, as `Categories` if they are many; None: there is only one.
        positions: (N, 2) right ascension and declination in degrees; None: unknown.
        total_votes: (N,) number of votes of each galaxy; None: there are none.
        notes: sentences for the card, on how the data were processed.
        rendering: how files became the pictures; None: unknown, or there were no files.
    """

    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def features(self) -> datasets.Features: ...
    @property
    def tree(self) -> DecisionTree | None: ...
    @property
    def values(self) -> Sequence[str]: ...
    @property
    def caption(self) -> str: ...
    @property
    def split_names(self) -> Sequence[str] | None: ...
    @property
    def campaigns(self) -> Sequence[str] | None: ...
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
    """One Parquet file: its path in the folder, and its rows in order, (R,) int32."""

    path: Path
    campaign: str | None
    split: str
    rows: np.ndarray


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
    positions = source.positions
    near = np.empty((0, 2), int) if positions is None else pairs_on_the_sky(positions, arcsec)
    del positions
    if splits is None:
        _check_crowding(near, len(names), arcsec)
    groups = Groups.of_pairs(np.concatenate([near, Groups.of_equal(hashes_of(names)).pairs()]))
    moved = in_train_too = 0
    if splits is None:
        chosen, moved = assign_splits(names, groups)
    else:
        chosen = Categories.of(splits)
        in_train_too = _in_train_too(groups, chosen)
    kept = np.ones(len(names), bool)
    if drop_duplicates:
        votes = source.total_votes
        kept = choose_rows(near, np.zeros(len(names), int) if votes is None else votes)
    duplicates = Duplicates(arcsec, len(groups), len(groups.rows), moved, int((~kept).sum()), in_train_too)
    return Plan(_shards(source, chosen, kept), duplicates)


def assign_splits(names: Sequence[str], groups: Groups) -> tuple[Categories, int]:
    """The split of each row, by its name or, in a group, by the name of one of the group; and how many rows that moved."""
    numbers = {split: number for number, split in enumerate(SPLITS)}
    codes = np.fromiter((numbers[split_of(name)] for name in names), np.uint8, len(names))
    # Not the least `hashed_place`, which decides the split: of several numbers the least is nearly always train's.
    places = np.fromiter((place_in_order(names[i]) for i in groups.rows), float, len(groups.rows))
    leaders = groups.rows[np.lexsort((places, groups.numbers))[groups.starts]]
    together = np.repeat(codes[leaders], groups.sizes)
    moved = int((codes[groups.rows] != together).sum())
    codes[groups.rows] = together
    return Categories(codes, list(SPLITS)), moved


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


def _in_train_too(groups: Groups, splits: Categories) -> int:
    """The number of rows in other splits than train whose galaxy has a row in train."""
    in_train = splits.codes[groups.rows] == (splits.names.index("train") if "train" in splits.names else -1)
    galaxies = np.bincount(groups.numbers, in_train, len(groups)) > 0
    return int((np.repeat(galaxies, groups.sizes) & ~in_train).sum())


def _check_crowding(near: np.ndarray, rows: int, arcsec: float) -> None:
    largest = Groups.of_pairs(near).sizes.max(initial=0)
    if largest > max(MAX_GROUP_SIZE, rows * MAX_GROUP_SHARE):
        raise BadInput(
            f"{largest:,} of {rows:,} galaxies are connected by steps of up to {arcsec:g} arcsec and would all be in one "
            "split: the field is too crowded for that; use a smaller --same-galaxy-arcsec, such as 1"
        )


def _shards(source: Source, splits: Categories, kept: np.ndarray) -> list[Shard]:
    """Files of at most ROWS_PER_FILE rows of one split and campaign.

    Args:
        kept: (N,) bool, the rows that are written.
    """
    order = np.argsort(np.fromiter(map(place_in_order, source.ids), float, len(kept)), kind="stable").astype(np.int32)
    order = order[kept[order]]
    campaigns = None if source.campaigns is None else Categories.of(source.campaigns)
    shards = []
    for split in dict.fromkeys([*SPLITS, *splits.names]):
        of_split = order[splits.codes[order] == splits.names.index(split)] if split in splits.names else order[:0]
        for code, campaign in enumerate([None] if campaigns is None else campaigns.names):
            of_part = of_split if campaigns is None else of_split[campaigns.codes[of_split] == code]
            for number, first in enumerate(range(0, len(of_part), ROWS_PER_FILE)):
                path = Path("data", campaign or "", f"{split}-{number:05d}.parquet")
                shards.append(Shard(path, campaign, split, of_part[first : first + ROWS_PER_FILE]))
    return shards
