"""Several published datasets as one, with a configuration for each campaign, as Galaxy Zoo Evo joins the campaigns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np

from hf_galaxy.data.card_facts import STATISTICS
from hf_galaxy.data.schema import SPLITS, InvalidVotes, class_name, row_features, votes_in
from hf_galaxy.data.streaming import StreamedRows, open_stream
from hf_galaxy.decision_tree import DecisionTree, Question, tree_of_columns
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.plan import Row


@dataclass(frozen=True, eq=False)
class Combined:
    """Rows of several published datasets: a `plan.Source`. `Combined.read` opens them.

    A galaxy has 0 votes in campaigns that it was not in, and null in columns that its dataset lacks. Pictures are copied byte
    for byte. A name that several datasets have becomes `{dataset}/{name}`: each campaign has its own pictures, and the rows
    of one galaxy are in one split by their positions.

    Attributes:
        parts: the datasets.
        tree: all their campaigns.
        ids, features: as of `plan.Source`.
    """

    parts: list[Part]
    tree: DecisionTree
    ids: list[str]
    features: datasets.Features
    values: ClassVar[Sequence[str]] = ()
    caption: ClassVar[str] = "dataset_name"
    rendering: ClassVar[None] = None

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Combined:
        """Open datasets with votes.

        Raises:
            BadInput: one of them has no votes, or two have columns of the same name and different types.
        """
        parts = [Part.read(folder) for folder in folders]
        tree = _joined_tree(parts)
        return cls(parts, tree, _unique_ids(parts), _joined_features(parts, tree))

    @cached_property
    def split_names(self) -> list[str]:
        """The name decides the split as in each dataset, and rows of one name stay together."""
        return [name for part in self.parts for name in part.ids]

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """Number of the dataset of each galaxy, and its row there."""
        return [(p, i) for p, part in enumerate(self.parts) for i in range(len(part.ids))]

    @cached_property
    def campaigns(self) -> list[str]:
        """The campaign in which each galaxy has the most votes."""
        return [campaign for part in self.parts for campaign in part.campaigns]

    @cached_property
    def positions(self) -> np.ndarray:
        """(N, 2) right ascension and declination in degrees, NaN where unknown."""
        return np.concatenate([part.positions for part in self.parts])

    @cached_property
    def votes(self) -> np.ndarray:
        """(N, 1) number of votes in all campaigns, to choose among duplicates."""
        return np.concatenate([part.votes.sum(axis=1, keepdims=True) for part in self.parts])

    @property
    def license(self) -> str:
        """The license of all datasets; "other" if they differ."""
        licenses = {part.statistics.get("license", "unknown") for part in self.parts}
        return licenses.pop() if len(licenses) == 1 else "other"

    @property
    def notes(self) -> list[str]:
        """Sentences for the card."""
        names = [part.folder.name for part in self.parts]
        notes = [f"Joined from {', '.join(names)}; pictures are kept byte for byte."]
        if several := sum(n > 1 for n in Counter(self.split_names).values()):
            notes.append(f"{several:,} names are in several of them; these rows are named `dataset/name`.")
        notes += [f"{part.folder.name}: {note}" for part in self.parts for note in part.statistics.get("notes", [])]
        if native := [part.folder.name for part in self.parts if (part.folder / "native").exists()]:
            notes.append(f"The configuration `native` of {', '.join(native)} is not joined.")
        return notes

    def row(self, i: int) -> Row:
        """Galaxy i with its picture."""
        p, place = self.places[i]
        part = self.parts[p]
        row = part.rows[[place]].to_pylist()[0]
        for column, feature in part.rows.features.items():
            if isinstance(feature, datasets.ClassLabel):
                row[column] = class_name(feature, row[column])
        row |= dict(zip(part.tree.columns, part.votes[place].tolist(), strict=True))
        empty = dict.fromkeys(self.features) | dict.fromkeys(self.tree.columns, 0) | {"dataset_name": part.folder.name}
        return Row(empty | row | {"id_str": self.ids[i]})

    def fingerprint(self) -> str:
        """Changes whenever the rows may change."""
        return repr([(part.folder.name, part.files, part.statistics) for part in self.parts])


@dataclass(frozen=True, eq=False)
class Part:
    """One dataset, all its splits in order.

    Attributes:
        tree: decision tree of the votes.
        statistics: the content of statistics.json; empty if there is none.
        files: path, size and time of the files.
        ids, votes, positions: of each galaxy.
    """

    folder: Path
    rows: StreamedRows
    tree: DecisionTree
    statistics: dict[str, Any]
    files: list[tuple[str, int, int]]
    ids: list[str]
    votes: np.ndarray
    positions: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> Part:
        """Open a dataset; pictures are not read.

        Raises:
            BadInput: it is not a published dataset with votes.
        """
        try:
            splits = open_stream(str(folder))
            rows = StreamedRows.concatenated([splits[split] for split in SPLITS if split in splits])
            tree = tree_of_columns(rows.column_names)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:  # BadInput is a ValueError
            reason = " ".join(str(error).split())
            raise BadInput(f"{folder}: is not a published dataset with votes ({reason})") from error
        own = folder / STATISTICS
        statistics = json.loads(own.read_text(encoding="utf-8")) if own.exists() else {}
        files = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted((folder / "data").rglob("*.parquet"))]
        sky = [column for column in ("ra", "dec") if column in rows.features]
        table = rows.select_columns(["id_str", *sky, *tree.columns])[:]
        ids = table["id_str"].to_pylist()
        positions = np.full((len(ids), 2), np.nan)
        if len(sky) == 2:
            positions = np.stack([table[column].to_numpy() for column in sky], axis=1)
        try:
            votes = votes_in(table, tree)
        except InvalidVotes as error:
            raise BadInput(f"{folder}, id_str {ids[error.row]}, {error.reason}") from error
        return cls(folder, rows, tree, statistics, files, ids, votes, positions)

    @property
    def campaigns(self) -> list[str]:
        """The campaign in which each galaxy has the most votes."""
        totals = [
            sum(self.votes[:, self.tree.slices[q]].sum(axis=1) for q in questions)
            for questions in self.tree.campaigns.values()
        ]
        names = list(self.tree.campaigns)
        return [names[best] for best in np.stack(totals, axis=1).argmax(axis=1)]


def _joined_tree(parts: list[Part]) -> DecisionTree:
    """The campaigns of all datasets, in their order."""
    campaigns: dict[str, tuple[Question, ...]] = {}
    for part in parts:
        for campaign, indices in part.tree.campaigns.items():
            questions = tuple(part.tree.questions[q] for q in indices)
            if campaigns.setdefault(campaign, questions) != questions:
                raise BadInput(f"{part.folder}: has other questions of {campaign} than a dataset before it")
    return DecisionTree("+".join(campaigns), tuple(q for questions in campaigns.values() for q in questions))


def _unique_ids(parts: list[Part]) -> list[str]:
    """The names of the galaxies, with the name of the dataset where several have one."""
    counts = Counter(name for part in parts for name in part.ids)
    ids = [f"{part.folder.name}/{name}" if counts[name] > 1 else name for part in parts for name in part.ids]
    if len(set(ids)) < len(ids):
        raise BadInput("two datasets have folders of the same name, and galaxies of the same name; rename a folder")
    return ids


def _joined_features(parts: list[Part], tree: DecisionTree) -> datasets.Features:
    features: dict[str, Any] = {}
    classes: dict[str, list[str]] = {}
    metadata = {"dataset_name": "string"}
    for part in parts:
        for column, feature in part.rows.features.items():
            if column in ("id_str", "image") or column in tree.columns:
                continue
            if features.setdefault(column, feature) != feature:
                raise BadInput(f"{part.folder}: column {column} has another type than in a dataset before it")
            if isinstance(feature, datasets.ClassLabel):
                classes[column] = feature.names
            elif isinstance(feature, datasets.Value):
                metadata[column] = feature.dtype
            else:
                raise BadInput(f"{part.folder}: column {column} holds {feature}; only single values can be joined")
    return row_features(tree, classes, metadata)
