"""Several published datasets as one, with a configuration for each campaign, as Galaxy Zoo Evo joins the campaigns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_galaxy.data.card_facts import STATISTICS, read_statistics
from hf_galaxy.data.fluxes import FLUX
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.schema import NATIVE, SPLITS, InvalidVotes, class_name, has_fluxes, row_features, votes_in
from hf_galaxy.data.streaming import StreamedRows, open_stream
from hf_galaxy.data.targets import tables_of
from hf_galaxy.decision_tree import DecisionTree, Question, tree_of_columns
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.categories import Categories
from hf_galaxy.importing.column_file import ColumnFile, Texts
from hf_galaxy.importing.groups import Groups, hashes_of
from hf_galaxy.importing.plan import AS_IT_WAS, Batch, LeftOut

NAME = "id_str"
ROWS_AT_ONCE = 20_000  # of which names and votes are in memory


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
        split_names: the name decides the split as in each dataset, and rows of one name stay together.
        repeated: number of names that several galaxies have.
    """

    parts: list[Part]
    tree: DecisionTree
    ids: Sequence[str]
    features: datasets.Features
    split_names: Texts
    repeated: int
    values: ClassVar[Sequence[str]] = ()
    caption: ClassVar[str] = "dataset_name"

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Combined:
        """Open datasets with votes.

        Raises:
            BadInput: one of them has no votes, or two have columns of the same name and different types.
        """
        parts = [Part.read(folder) for folder in folders]
        tree = _joined_tree(parts)
        names = ColumnFile(piece.select([NAME]) for part in parts for piece in part.galaxies.pieces())
        ids, repeated = _unique_ids(parts, Texts(names, NAME))
        return cls(parts, tree, ids, _joined_features(parts, tree), Texts(names, NAME), repeated)

    @cached_property
    def starts(self) -> np.ndarray:
        """The first galaxy of each dataset, and behind the last one the number of galaxies."""
        return np.cumsum([0, *(len(part.rows) for part in self.parts)])

    @property
    def campaigns(self) -> Categories:
        """The campaign in which each galaxy has the most votes."""
        names = list(self.tree.campaigns)
        codes = [self._numbers(part, "campaign", np.uint8) for part in self.parts]
        numbers = [np.array([names.index(name) for name in part.tree.campaigns], np.uint8) for part in self.parts]
        own = [of_tree[code] for of_tree, code in zip(numbers, codes, strict=True)]
        return Categories.of_codes(np.concatenate(own), names)

    @property
    def positions(self) -> np.ndarray:
        """(N, 2) right ascension and declination in degrees, NaN where unknown."""
        positions = np.empty((2, len(self.ids))).T  # each column in one piece, for sorting
        for k, column in enumerate(("ra", "dec")):
            np.concatenate([self._numbers(part, column, np.float64) for part in self.parts], out=positions[:, k])
        return positions

    @property
    def total_votes(self) -> np.ndarray:
        """(N,) number of votes in all campaigns, to choose among duplicates."""
        return np.concatenate([self._numbers(part, "votes", np.int64) for part in self.parts])

    def _numbers(self, part: Part, column: str, dtype: type) -> np.ndarray:
        """A column of numbers of the galaxies of a dataset."""
        pieces = [piece[column].to_numpy().astype(dtype) for piece in part.galaxies.pieces()]
        return np.concatenate([np.empty(0, dtype), *pieces])

    @cached_property
    def _schema(self) -> pa.Schema:
        return self.features.arrow_schema

    @property
    def license(self) -> str:
        """The license of all datasets; "other" if they differ."""
        licenses = {part.statistics.get("license", "unknown") for part in self.parts}
        return licenses.pop() if len(licenses) == 1 else "other"

    @property
    def rendering(self) -> Rendering | None:
        """How the pictures of all datasets were made; None: they were made in several ways, or it is unknown."""
        stated = [part.statistics.get("rendering") for part in self.parts]
        return Rendering.of(stated[0]) if stated[0] and all(each == stated[0] for each in stated) else None

    @property
    def notes(self) -> list[str]:
        """Sentences for the card."""
        names = [part.folder.name for part in self.parts]
        notes = [f"Joined from {', '.join(names)}; pictures are kept byte for byte."]
        if self.repeated:
            notes.append(f"{self.repeated:,} names are in several of them; these rows are named `dataset/name`.")
        notes += [f"{part.folder.name}: {note}" for part in self.parts for note in part.statistics.get("notes", [])]
        if native := [part.folder.name for part in self.parts if (part.folder / NATIVE).exists()]:
            notes.append(f"The configuration `native` of {', '.join(native)} is not joined.")
        return notes

    def batch(self, rows: Sequence[int]) -> Batch:
        """These galaxies with their pictures."""
        galaxies = np.asarray(rows)
        datasets_of = np.searchsorted(self.starts, galaxies, side="right") - 1
        order = np.argsort(datasets_of, kind="stable")
        tables = [
            self._rows_of(p, galaxies[order][datasets_of[order] == p])
            for p in dict.fromkeys(datasets_of[order].tolist())
        ]
        return Batch(pa.concat_tables(tables).take(np.argsort(order)), None, {AS_IT_WAS})

    def _rows_of(self, p: int, galaxies: np.ndarray) -> pa.Table:
        """Some galaxies of one dataset, with the columns of all."""
        part = self.parts[p]
        table = part.rows[(galaxies - self.starts[p]).tolist()]
        votes = dict(zip(part.tree.columns, votes_in(table, part.tree).T, strict=True))
        zeros = np.zeros(len(galaxies), np.int32)
        own = {
            "id_str": pa.array([self.ids[i] for i in galaxies.tolist()]),
            "dataset_name": pa.array([part.folder.name] * len(galaxies)),
        } | {column: pa.array(votes.get(column, zeros)) for column in self.tree.columns}
        labels = [c for c, feature in part.rows.features.items() if isinstance(feature, datasets.ClassLabel)]
        own |= {column: _labels(table[column], part.rows.features[column]) for column in labels}
        own = {column: table[column] for column in table.column_names} | own
        schema = self._schema
        columns = {f.name: own.get(f.name, pa.nulls(len(galaxies), f.type)).cast(f.type) for f in schema}
        return pa.table(columns, schema=schema)

    def left_out(self, unread: Sequence[int]) -> list[LeftOut]:
        """None: all pictures can be read."""
        return []

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
        galaxies: of each galaxy its name, the number of the campaign of the tree in which it has the most `votes`, these, and its
            `ra` and `dec`, NaN where unknown.
    """

    folder: Path
    rows: StreamedRows
    tree: DecisionTree
    statistics: dict[str, Any]
    files: list[tuple[str, int, int]]
    galaxies: ColumnFile

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
        try:
            statistics = read_statistics(own) if own.exists() else {}
        except ValueError as error:
            raise BadInput(f"{own}: holds no statistics ({error})") from error
        files = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted((folder / "data").rglob("*.parquet"))]
        return cls(folder, rows, tree, statistics, files, ColumnFile(_galaxies_of(folder, rows, tree)))


def _galaxies_of(folder: Path, rows: StreamedRows, tree: DecisionTree) -> Iterator[pa.Table]:
    """What `Part.galaxies` holds, some rows at a time.

    Raises:
        BadInput: a number is no number of votes.
    """
    sky = [column for column in ("ra", "dec") if column in rows.features]
    for table in tables_of(rows, ["id_str", *sky, *tree.columns], size=ROWS_AT_ONCE):
        names = table["id_str"].combine_chunks().cast(pa.string())
        try:
            votes = votes_in(table, tree)
        except InvalidVotes as error:
            raise BadInput(f"{folder}, id_str {names[error.row]}, {error.reason}") from error
        unknown = np.full(len(names), np.nan)
        positions = [table[column].cast(pa.float64()).to_numpy() for column in sky] if len(sky) == 2 else [unknown] * 2
        columns = {NAME: names, "campaign": _campaigns_of(votes, tree), "votes": votes.sum(axis=1, dtype=np.int64)}
        yield pa.table(columns | dict(zip(("ra", "dec"), positions, strict=True)))


def _labels(column: pa.ChunkedArray, feature: datasets.ClassLabel) -> pa.ChunkedArray:
    """Indices of classes; null instead of -1, as a missing label is published."""
    for index in pc.unique(column).to_pylist():
        class_name(feature, index)
    return pc.if_else(pc.less(column, 0), pa.scalar(None, column.type), column)


def _campaigns_of(votes: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """(N,) uint8: the number of the campaign in which each galaxy has the most votes."""
    totals = [sum(votes[:, tree.slices[q]].sum(axis=1) for q in questions) for questions in tree.campaigns.values()]
    return np.stack(totals, axis=1).argmax(axis=1).astype(np.uint8)


def _joined_tree(parts: list[Part]) -> DecisionTree:
    """The campaigns of all datasets, in their order."""
    campaigns: dict[str, tuple[Question, ...]] = {}
    for part in parts:
        for campaign, indices in part.tree.campaigns.items():
            questions = tuple(part.tree.questions[q] for q in indices)
            if campaigns.setdefault(campaign, questions) != questions:
                raise BadInput(f"{part.folder}: has other questions of {campaign} than a dataset before it")
    return DecisionTree("+".join(campaigns), tuple(q for questions in campaigns.values() for q in questions))


def _unique_ids(parts: list[Part], names: Texts) -> tuple[Texts, int]:
    """The names of the galaxies, with the name of the dataset where several have one; and how many names several have."""
    repeated = Groups.of_equal(hashes_of(names))
    if not len(repeated):
        return names, 0
    is_repeated = np.zeros(len(names), bool)
    is_repeated[repeated.rows] = True

    def pieces() -> Iterator[pa.Table]:
        first = 0
        for part in parts:
            for piece in part.galaxies.pieces():
                own = pa.array(is_repeated[first : first + len(piece)])
                longer = pc.binary_join_element_wise(part.folder.name, piece[NAME], "/")
                yield pa.table({NAME: pc.if_else(own, longer, piece[NAME])})
                first += len(piece)

    ids = Texts(ColumnFile(pieces()), NAME)
    if len(Groups.of_equal(hashes_of(ids))):
        raise BadInput("two datasets have folders of the same name, and galaxies of the same name; rename a folder")
    return ids, len(repeated)


def _joined_features(parts: list[Part], tree: DecisionTree) -> datasets.Features:
    features: dict[str, Any] = {}
    classes: dict[str, list[str]] = {}
    metadata = {"dataset_name": "string"}
    fluxes = _have_fluxes(parts)
    for part in parts:
        for column, feature in part.rows.features.items():
            if column in ("id_str", "image") or column in tree.columns or (column == FLUX and fluxes):
                continue
            if features.setdefault(column, feature) != feature:
                raise BadInput(f"{part.folder}: column {column} has another type than in a dataset before it")
            if isinstance(feature, datasets.ClassLabel):
                classes[column] = feature.names
            elif isinstance(feature, datasets.Value):
                metadata[column] = feature.dtype
            else:
                raise BadInput(f"{part.folder}: column {column} holds {feature}; only single values can be joined")
    return row_features(tree, classes, metadata, fluxes)


def _have_fluxes(parts: list[Part]) -> bool:
    """Whether the datasets have fluxes.

    Raises:
        BadInput: only some have them, or they are of several sets of bands.
    """
    bands = {
        part.folder: part.statistics.get("fluxes", {}).get("bands") for part in parts if has_fluxes(part.rows.features)
    }
    if without := [part.folder for part in parts if part.folder not in bands]:
        if bands:
            raise BadInput(
                f"{without[0]}: has no column {FLUX} with fluxes, in contrast to {next(iter(bands))}; combine datasets that are alike"
            )
        return False
    first = next(iter(bands.values()))
    if other := next((folder for folder, each in bands.items() if each != first), None):
        named = " ".join(bands[other] or ["unknown"])
        raise BadInput(f"{other}: its fluxes are of the bands {named}, not {' '.join(first or ['unknown'])}")
    return True
