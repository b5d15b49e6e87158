"""A catalogue and its pictures as rows of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pandas as pd

from hf_galaxy.data.picture_files import PictureFiles
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.schema import row_features
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.catalogue_table import CatalogueTable
from hf_galaxy.importing.column_map import ColumnMap, Fractions, Metadata
from hf_galaxy.importing.fractions import conditional_fractions, votes_of_fractions
from hf_galaxy.importing.plan import Batch, Row, batch_of
from hf_galaxy.importing.table_file import column_names


@dataclass(frozen=True)
class CatalogueOptions:
    """How a catalogue is read.

    Attributes:
        rendering: how the pictures are made.
        native: keep each picture at its original size too.
        volunteers: number of volunteers assumed for each galaxy, for a catalogue of fractions without that number.
        skip_missing: leave out galaxies without a picture instead of refusing the catalogue.
        skip_bad: leave out galaxies whose picture cannot be read.
    """

    rendering: Rendering = field(default_factory=Rendering)
    native: bool = False
    volunteers: int | None = None
    skip_missing: bool = False
    skip_bad: bool = False


@dataclass(frozen=True, eq=False)
class Catalogue:
    """A catalogue of which each row has been checked: a `plan.Source`. `Catalogue.read` reads one.

    Attributes:
        path, pictures, columns, options: what it was read from, and how.
        tree: decision tree of the votes; None: there are no votes.
        rows: (N,) number of each galaxy's row in the catalogue, from 1.
        ids, files: name and picture file of each galaxy.
        data: column of the dataset -> values, except id_str and image.
        dtypes: those columns that are neither votes nor classes -> type.
        notes: sentences for the card.
        split_names: as of `plan.Source`.
    """

    path: Path
    pictures: PictureFiles
    columns: ColumnMap
    options: CatalogueOptions
    tree: DecisionTree | None
    rows: np.ndarray
    ids: list[str]
    files: list[str]
    data: dict[str, Any]
    dtypes: dict[str, str]
    notes: list[str]
    split_names: list[str] | None = None
    campaigns: ClassVar[None] = None

    @classmethod
    def read(
        cls, path: Path, pictures: PictureFiles, columns: ColumnMap, tree: DecisionTree | None = None,
        options: CatalogueOptions | None = None,
    ) -> Catalogue:  # fmt: skip
        """Read a catalogue: a table in CSV, Parquet, FITS, ECSV or VOTable format.

        Args:
            columns: its columns.
            tree: decision tree of the votes that it holds; None: it holds no votes.

        Raises:
            BadInput: names the first row that is wrong, and the number of further ones.
        """
        columns = _without_missing_questions(columns, path)
        table = CatalogueTable.read(path, columns.needed(tree), columns.join)
        return cls.of(table, pictures, columns, tree, options)

    @classmethod
    def of(
        cls, table: CatalogueTable, pictures: PictureFiles, columns: ColumnMap, tree: DecisionTree | None = None,
        options: CatalogueOptions | None = None,
    ) -> Catalogue:  # fmt: skip
        """The catalogue in a table that has been read; as `read`."""
        options = options or CatalogueOptions()
        table, files, notes = _with_pictures(table, columns, pictures, options.skip_missing)
        ids = table[columns.id_str]
        table.refuse(ids == "", columns.id_str, "is empty")
        rounded = ids.str.fullmatch(r"\d\.\d+[eE]\+?\d+")
        table.refuse(
            rounded, columns.id_str, "was once a number of many digits and has lost some: write the names as texts"
        )
        table.refuse(ids.duplicated(), columns.id_str, "is in an earlier row too")
        votes = _read_votes(table, columns, tree, options.volunteers)
        entries = {ours: Metadata(column, "float32") for ours, column in columns.values.items()} | columns.metadata
        data = (
            votes.data
            | {column: table.classes(entry) for column, entry in columns.classes.items()}
            | {column: table.metadata(entry) for column, entry in entries.items()}
        )
        dtypes = votes.dtypes | {column: entry.dtype for column, entry in entries.items()}
        catalogue = cls(
            table.path, pictures, columns, options, votes.tree, table.rows, ids.tolist(), files, data, dtypes,
            notes + votes.notes,
        )  # fmt: skip
        _check_positions(table, catalogue)
        _check_names(catalogue)
        return catalogue

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def features(self) -> datasets.Features:
        """Schema of the rows."""
        return row_features(self.tree, self.columns.class_names, self.dtypes)

    @property
    def values(self) -> list[str]:
        """Columns of numbers to predict, and the vote fractions."""
        return [*self.columns.values, *(column for column in self.dtypes if column.endswith("_fraction"))]

    @property
    def caption(self) -> str:
        """The first class label; without one, the name."""
        return next(iter([*self.columns.classes, "id_str"]))

    @property
    def rendering(self) -> Rendering:
        """How the pictures are made."""
        return self.options.rendering

    @property
    def positions(self) -> np.ndarray | None:
        """(N, 2) right ascension and declination in degrees, NaN where unknown; None: there are no such columns."""
        if not {"ra", "dec"} <= self.dtypes.keys():
            return None
        return np.array([self.data["ra"], self.data["dec"]], dtype=np.float64).T  # None becomes NaN

    @property
    def votes(self) -> np.ndarray | None:
        """(N, A) votes; None: there are none."""
        return np.stack([self.data[c] for c in self.tree.columns], axis=1) if self.tree else None

    @property
    def total_votes(self) -> np.ndarray | None:
        """(N,) number of votes of each galaxy; None: there are none."""
        votes = self.votes
        return None if votes is None else votes.sum(axis=1)

    def batch(self, rows: Sequence[int]) -> Batch:
        """These galaxies with their pictures."""
        return batch_of(self.features, map(self.row, rows))

    def row(self, i: int) -> Row | None:
        """Galaxy i with its picture; None: the picture cannot be read, and is to be left out.

        Raises:
            BadInput: the picture cannot be read.
        """
        file = self.files[i]
        try:
            decoded = self.rendering.decode(self.pictures.read(file), file)
            image = self._image(i, *self.rendering.encode(decoded))
            whole = replace(self.rendering, size=None, crop=1.0)
            native = self._image(i, *whole.encode(decoded)) if self.options.native else None
        except BadInput as error:
            if self.options.skip_bad:
                return None
            raise BadInput(f"{self.path}, row {self.rows[i]} (id_str {self.ids[i]}): {error}") from error
        columns = {column: values[i] for column, values in self.data.items()}
        return Row({"id_str": self.ids[i], "image": image} | columns, native, decoded.kind)

    def _image(self, i: int, content: bytes, suffix: str) -> dict[str, Any]:
        return {"bytes": content, "path": Path(self.files[i]).stem + suffix}

    def fingerprint(self) -> str:
        """Changes whenever the rows may change; of the pictures it holds paths, sizes and times."""
        stamps = self.pictures.stamps(self.files)
        made_of = (stamps, self.ids, self.files, self.columns, self.rendering, self.options.native, self.features)
        digest = hashlib.sha256(repr(made_of).encode())
        for values in self.data.values():
            digest.update(repr(values.tolist() if isinstance(values, np.ndarray) else values).encode())
        return digest.hexdigest()

    def inconsistencies(self) -> Iterator[str]:
        """A sentence for each galaxy and question whose votes contradict the tree (`DecisionTree.inconsistencies`)."""
        if self.tree is None or (votes := self.votes) is None:
            return
        for first in range(0, len(votes), 10_000):  # a wrong column map breaks every galaxy
            for i in self.tree.inconsistencies(votes[first : first + 10_000]):
                row = first + i.row
                yield (
                    f"{self.path}, row {self.rows[row]} (id_str {self.ids[row]}): {i.question} has {i.votes} votes, "
                    f"but the answers that lead to it have {i.parent_votes}"
                )


@dataclass(frozen=True)
class _Votes:
    """The votes of a catalogue, and its vote fractions: columns with their values and types, and notes for the card."""

    tree: DecisionTree | None = None
    data: dict[str, Any] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _without_missing_questions(columns: ColumnMap, path: Path) -> ColumnMap:
    """The map without the questions of which the catalogue has no fractions."""
    if not columns.fractions:
        return columns
    try:
        available = set(column_names(path))
    except (OSError, ValueError):
        return columns  # reading the table will report it
    questions = {q: answers for q, answers in columns.fractions.questions.items() if available & set(answers.values())}
    return replace(columns, fractions=replace(columns.fractions, questions=questions))


def _with_pictures(
    table: CatalogueTable, columns: ColumnMap, pictures: PictureFiles, skip_missing: bool
) -> tuple[CatalogueTable, list[str], list[str]]:
    """The rows that have a picture, their files, and a note on those without one."""
    files = table.image_files(columns)
    if files.str.contains("\\", regex=False).any():  # paths of Windows
        files = files.map(lambda name: name if name in pictures else name.replace("\\", "/"))
    missing = ~files.map(lambda name: name in pictures).to_numpy(bool)
    if missing.any():
        files, missing = _by_base_names(files, missing, pictures)
    if not missing.any():
        return table, files.tolist(), []
    if not skip_missing:
        table.refuse(missing, columns.image, f"is not a picture in {pictures}", files, "--skip-missing leaves them out")
    if missing.all():
        raise BadInput(f"{table.path}: no row has a picture in {pictures}")
    note = f"{missing.sum():,} of the catalogue's {len(table):,} rows have no picture and are left out."
    return table.select(~missing), files[~missing].tolist(), [note]


def _by_base_names(files: pd.Series, missing: np.ndarray, pictures: PictureFiles) -> tuple[pd.Series, np.ndarray]:
    """Files that were in other folders when the table was written, by their names alone if these differ; and which rows lack one."""
    names = files.map(lambda name: name.rpartition("/")[2])
    here = missing & ~names.duplicated(keep=False).to_numpy(bool)
    here &= names.where(here, "").map(lambda name: name in pictures).to_numpy(bool)
    return files.where(~here, names), missing & ~here


def _read_votes(table: CatalogueTable, columns: ColumnMap, tree: DecisionTree | None, volunteers: int | None) -> _Votes:
    if tree is None:
        return _Votes()
    if columns.fractions:
        return _read_fractions(table, columns.fractions, tree, volunteers)
    if unknown := set(columns.votes) - set(tree.columns):
        raise BadInput(f"--columns: tree {tree.name} has no vote column {', '.join(sorted(unknown))}")
    problem = "is not a number of votes: whole, and not negative"
    return _Votes(
        tree,
        {
            ours: table.numbers(columns.votes.get(ours, ours), problem, whole=True).astype(np.int32)
            for ours in tree.columns
        },
    )


def _read_fractions(
    table: CatalogueTable, fractions: Fractions, tree: DecisionTree, assumed_volunteers: int | None
) -> _Votes:
    """The fractions, and the votes that they stand for where the number of volunteers is known or assumed."""
    names = [f"{question}_{answer}" for question, answers in fractions.questions.items() for answer in answers]
    tree = _tree_of_fractions(tree, names)
    ends = np.cumsum([len(answers) for answers in fractions.questions.values()])
    slices = [slice(e - len(answers), e) for e, answers in zip(ends, fractions.questions.values(), strict=True)]
    conditional = conditional_fractions(_published_fractions(table, fractions), slices)
    columns = [f"{name}_fraction" for name in names]
    data = dict(zip(columns, np.where(np.isnan(conditional), np.array(None), conditional).T.tolist(), strict=True))
    dtypes = dict.fromkeys(columns, "float32")
    about = (
        "The catalogue publishes vote fractions, not votes. Columns `{question}_{answer}_fraction` hold them among those who "
        "were asked the question (divided by the sum of the question's fractions), and are null where nobody was."
    )
    if fractions.volunteers is None and assumed_volunteers is None:
        unknown = "It does not say how many volunteers looked at a galaxy: **there are no vote counts here**."
        return _Votes(None, data, dtypes, [about, unknown])
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
    return _Votes(tree, data | dict(zip(tree.columns, votes.T, strict=True)), dtypes, [about, about_votes])


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


def _check_positions(table: CatalogueTable, catalogue: Catalogue) -> None:
    if (positions := catalogue.positions) is None:
        return
    names = catalogue.columns.values | {name: entry.column for name, entry in catalogue.columns.metadata.items()}
    for axis, (name, low, high) in enumerate((("ra", 0, 360), ("dec", -90, 90))):
        outside = (positions[:, axis] < low) | (positions[:, axis] > high)
        table.refuse(outside, names[name], f"is not a value of {name} in degrees, {low} to {high}")


def _check_names(catalogue: Catalogue) -> None:
    columns, tree = catalogue.columns, catalogue.tree
    votes = tree.columns if tree else []
    names = ["id_str", "image", *votes, *columns.classes, *columns.values, *columns.metadata]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"--columns: {', '.join(twice)} would be in the dataset twice; rename the labels")
