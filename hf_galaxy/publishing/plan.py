"""Which galaxies of a source go into which file of a dataset, before the first picture is read.

The file that a galaxy is in, and its place there, depend on its name alone, and on those of its duplicates.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import datasets
import numpy as np

from hf_galaxy.data.schema import SPLITS, place_in_order, split_of
from hf_galaxy.errors import BadInput
from hf_galaxy.publishing.duplicates import SAME_GALAXY_ARCSEC, groups_of_pairs, pairs_on_the_sky


class Row(NamedTuple):
    """A galaxy to be published.

    Attributes:
        columns: its value of every column; `image` as {"bytes", "path"}.
        native: its picture at its own size, as {"bytes", "path"}, if that is kept too.
        kind: what its picture was made from.
    """

    columns: dict
    native: dict | None = None
    kind: str = "as it was"


ROWS_PER_FILE = 5000
# Chains of neighbours longer than both are no duplicates but a crowded field.
MOST_IN_A_GROUP, MOST_OF_ALL = 10, 0.01


class Source(Protocol):
    """What can be published: a `catalogues.Catalogue`, a `simulate.MockSurvey`. Copies of it work in other processes.

    Attributes:
        ids: unique names of the galaxies.
        features: the schema of the rows.
        split_names: what decides the split, where that is not the name: rows with the same are the same galaxy.
        campaigns: which campaign each galaxy is from; None: there is only one.
        positions: (N, 2) right ascension and declination in degrees; None: not known.
        votes: (N, A) votes; None: there are none.
        notes: sentences for the card: what was done to the data.
    """

    ids: list[str]
    split_names: list[str] | None
    notes: list[str]
    features: datasets.Features
    campaigns: list[str] | None
    positions: np.ndarray | None
    votes: np.ndarray | None

    def row(self, i: int) -> Row | None:
        """Galaxy i with its picture; None: it has none that can be read, and is to be left out."""

    def fingerprint(self) -> str:
        """Of all that the rows are made of."""


@dataclass(frozen=True)
class Duplicates:
    """Galaxies that stand in several rows, by their positions or (in joined datasets) by their names.

    Attributes:
        arcsec: how near counts as the same.
        groups: how many galaxies have several rows.
        rows: how many rows these are.
        moved: how many of them are in another split than their own name says, to be in one with the others.
        dropped: how many were left out.
    """

    arcsec: float = SAME_GALAXY_ARCSEC
    groups: int = 0
    rows: int = 0
    moved: int = 0
    dropped: int = 0

    def __str__(self):
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


def plan(
    source: Source, drop_duplicates: bool = False, arcsec: float = SAME_GALAXY_ARCSEC
) -> tuple[list[Shard], Duplicates]:
    """Which rows go into which file; all rows that are one galaxy, or next to it, into one split.

    Args:
        drop_duplicates: of rows within `arcsec` of each other keep those with the most votes, so that none are left that near.

    Raises:
        BadInput: the galaxies stand so densely that chains of neighbours hold much of the field together.
    """
    names = source.split_names or source.ids
    splits, kept = [split_of(name) for name in names], np.ones(len(names), bool)
    # What belongs together: what is near in the sky, and what has one name.
    sky = np.empty((0, 2), int) if source.positions is None else pairs_on_the_sky(source.positions, arcsec)
    first = {}
    same_name = [(first.setdefault(name, i), i) for i, name in enumerate(names)]
    same_name = np.array([pair for pair in same_name if pair[0] != pair[1]], dtype=int).reshape(-1, 2)
    group = groups_of_pairs(np.concatenate([sky, same_name]), len(names))
    sizes = np.bincount(group)
    if sizes.max() > max(MOST_IN_A_GROUP, len(names) * MOST_OF_ALL):
        raise BadInput(
            f"{sizes.max():,} of {len(names):,} galaxies hang together by steps of up to {arcsec:g} arcsec and would all be in one "
            "split: the field is too crowded for that; give a smaller --same-galaxy-arcsec, such as 1"
        )
    members = {}
    for i in np.flatnonzero(sizes[group] > 1).tolist():
        members.setdefault(int(group[i]), []).append(i)
    moved = 0
    for rows in members.values():
        # Not the least `hashed_place`, which decides the split: of several numbers the least is nearly always train's.
        leader = min(rows, key=lambda i: place_in_order(names[i]))
        moved += sum(splits[i] != splits[leader] for i in rows)
        for i in rows:
            splits[i] = splits[leader]
    if drop_duplicates:
        kept = _apart(sky, len(names), None if source.votes is None else source.votes.sum(axis=1))
    rows = sum(map(len, members.values()))
    duplicates = Duplicates(arcsec, len(members), rows, moved, int((~kept).sum()))
    parts = {}
    for i in sorted(np.flatnonzero(kept).tolist(), key=lambda i: place_in_order(source.ids[i])):
        parts.setdefault((source.campaigns[i] if source.campaigns else None, splits[i]), []).append(i)
    shards = [
        Shard(Path("data", campaign or "", f"{split}-{first // ROWS_PER_FILE:05d}.parquet"), campaign, split, rows[first : first + ROWS_PER_FILE])
        for split in SPLITS
        for campaign in (dict.fromkeys(source.campaigns) if source.campaigns else [None])
        for rows in [parts.get((campaign, split), [])]
        for first in range(0, len(rows), ROWS_PER_FILE)
    ]  # fmt: skip
    return shards, duplicates


def _apart(pairs, rows, votes):
    """Which rows to keep so that no pair is left: the one with the most votes first, then whichever is near none kept."""
    near = {}
    for i, j in pairs.tolist():
        near.setdefault(i, []).append(j)
        near.setdefault(j, []).append(i)
    kept = np.ones(rows, bool)
    for i in sorted(near, key=lambda i: (0 if votes is None else -votes[i], i)):
        if kept[i]:
            kept[near[i]] = False
    return kept
