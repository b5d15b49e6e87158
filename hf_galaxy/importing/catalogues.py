"""A catalogue and its pictures as rows of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa

from hf_galaxy.data.band_pictures import described_bands, flux_columns, read_fluxes
from hf_galaxy.data.fluxes import FLUX
from hf_galaxy.data.picture_files import FILES, PictureFiles, stem_of
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.schema import row_features
from hf_galaxy.data.vote_matrix import matrix_of
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.catalogue_names import CatalogueNames
from hf_galaxy.importing.catalogue_table import CatalogueTable
from hf_galaxy.importing.catalogue_votes import read_votes
from hf_galaxy.importing.column_file import ColumnFile, Texts
from hf_galaxy.importing.column_map import ColumnMap, Metadata
from hf_galaxy.importing.left_out import reason
from hf_galaxy.importing.plan import Batch, LeftOut, Row
from hf_galaxy.importing.sky_columns import SkyColumns
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
        bands: of the fluxes that are read; None: pictures are.
    """

    rendering: Rendering = field(default_factory=Rendering)
    native: bool = False
    volunteers: int | None = None
    skip_missing: bool = False
    skip_bad: bool = False
    bands: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Catalogue:
    """A catalogue of which each row has been checked: a `plan.Source`. `Catalogue.read` reads one.

    Attributes:
        path, pictures, columns, options: what it was read from, and how.
        tree: decision tree of the votes; None: there are no votes.
        rows: (N,) number of each galaxy's row in the catalogue, from 1.
        ids, files: name and picture file of each galaxy.
        cells: the columns of the dataset, except id_str and image.
        dtypes: those columns that are neither votes nor classes -> type.
        notes: sentences for the card.
        digest: of the cells.
        missing: the rows without a picture, which are not among the galaxies.
        split_names: as of `plan.Source`.
    """

    path: Path
    pictures: PictureFiles
    columns: ColumnMap
    options: CatalogueOptions
    tree: DecisionTree | None
    rows: np.ndarray
    ids: Texts
    files: Texts
    cells: ColumnFile
    dtypes: dict[str, str]
    notes: list[str]
    digest: str
    missing: list[LeftOut]
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
        options = options or CatalogueOptions()
        columns = _without_missing_questions(columns, path).of_bands(options.bands)
        joined = list(columns.join.on) if columns.join else []
        names = CatalogueTable.pieces(path, columns.name_columns | {*joined}, columns.join)
        pieces = CatalogueTable.pieces(path, columns.needed(tree), columns.join)
        return cls._of_pieces(path, names, pieces, pictures, columns, tree, options)

    @classmethod
    def of(
        cls, table: CatalogueTable, pictures: PictureFiles, columns: ColumnMap, tree: DecisionTree | None = None,
        options: CatalogueOptions | None = None,
    ) -> Catalogue:  # fmt: skip
        """The catalogue in a table that has been read; as `read`."""
        options = options or CatalogueOptions()
        names, pieces = iter([table]), iter([table])
        return cls._of_pieces(table.path, names, pieces, pictures, columns.of_bands(options.bands), tree, options)

    @classmethod
    def _of_pieces(
        cls, path: Path, names: Iterator[CatalogueTable], pieces: Iterator[CatalogueTable], pictures: PictureFiles,
        columns: ColumnMap, tree: DecisionTree | None, options: CatalogueOptions,
    ) -> Catalogue:  # fmt: skip
        """The catalogue.

        Args:
            names: the columns of names and pictures, of all rows, some rows at a time.
            pieces: all columns, of all rows, some rows at a time.
        """
        galaxies = CatalogueNames.of(path, names, columns, pictures, options.skip_missing)
        conversion = _Conversion(columns, tree, options)
        file = ColumnFile(conversion.tables(pieces, galaxies.kept))
        return cls(
            path, pictures, columns, options, conversion.tree, np.flatnonzero(galaxies.kept).astype(np.int32) + 1,
            galaxies.ids, galaxies.files, file, conversion.dtypes, galaxies.notes + conversion.notes,
            conversion.digest.hexdigest(), galaxies.missing,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def features(self) -> datasets.Features:
        """Schema of the rows."""
        return row_features(self.tree, self.columns.class_names, self.dtypes, self.options.bands is not None)

    @cached_property
    def _schema(self) -> pa.Schema:
        return self.features.arrow_schema

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

    def rendered(self, rendering: Rendering) -> Catalogue:
        """The same rows, whose files become pictures so."""
        return replace(self, options=replace(self.options, rendering=rendering))

    @property
    def positions(self) -> np.ndarray | None:
        """(N, 2) right ascension and declination in degrees, NaN where unknown; None: there are no such columns."""
        if not {"ra", "dec"} <= self.dtypes.keys():
            return None
        positions = np.empty((2, len(self))).T  # each column in one piece, for sorting
        first = 0
        for piece in self.cells.pieces():
            positions[first : first + len(piece)] = _float64(piece, ["ra", "dec"])
            first += len(piece)
        return positions

    @property
    def total_votes(self) -> np.ndarray | None:
        """(N,) number of votes of each galaxy; None: there are none."""
        if self.tree is None:
            return None
        return np.concatenate([matrix_of(piece, self.tree.columns).sum(axis=1) for piece in self.cells.pieces()])

    def batch(self, rows: Sequence[int]) -> Batch:
        """These galaxies with their pictures, without those whose picture cannot be read, if these are to be left out.

        Raises:
            BadInput: a picture cannot be read.
        """
        made = [(i, each) for i in rows if (each := self._pictures(i))]
        schema = self._schema
        kept, kinds = [i for i, _ in made], {kind for _, each in made for kind in each.kinds}
        cells = self.cells.rows(kept)
        columns = {"id_str": pa.array([self.ids[i] for i in kept], pa.string())}
        for name in ("image", FLUX) if self.options.bands else ("image",):
            columns[name] = pa.array([each.columns[name] for _, each in made], schema.field(name).type)
        columns |= {name: cells[name] for name in cells.column_names}
        table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
        native = (
            pa.array([each.native for _, each in made], schema.field("image").type) if self.options.native else None
        )
        return Batch(table, native, kinds)

    def _pictures(self, i: int) -> Row | None:
        """The columns of galaxy i that are made of its picture; None: it is left out."""
        file = self.files[i]
        try:
            if self.options.bands:
                picture = read_fluxes(self.pictures, file, self.options.bands)
                columns, kinds = flux_columns(picture, self.rendering, stem_of(file))
                return Row(columns, kinds=kinds)
            decoded = self.rendering.decode(self.pictures.read(file), file)
            image = self._image(i, *self.rendering.encode(decoded))
            native = self._image(i, *self.rendering.whole.encode(decoded)) if self.options.native else None
            return Row({"image": image}, native, decoded.kinds)
        except BadInput as error:
            if self.options.skip_bad:
                return None
            raise BadInput(f"{self.path}, row {self.rows[i]} (id_str {self.ids[i]}): {error}") from error

    def _image(self, i: int, content: bytes, suffix: str) -> dict[str, Any]:
        return {"bytes": content, "path": Path(self.files[i]).stem + suffix}

    def left_out(self, unread: Sequence[int]) -> list[LeftOut]:
        """The rows without a picture, and those of which it cannot be read."""
        strict = replace(self, options=replace(self.options, skip_bad=False))
        return self.missing + [
            LeftOut(self.ids[i], int(self.rows[i]), self.files[i].replace(FILES, ", "), reason(strict, i))
            for i in unread
        ]

    def fingerprint(self) -> str:
        """Changes whenever the rows may change; of the pictures it holds paths, sizes and times."""
        made_of = (self.columns, self.rendering, self.options.native, self.features, self.digest)
        if self.options.bands:
            made_of = (*made_of, self.options.bands)
        digest = hashlib.sha256(repr(made_of).encode())
        for each in chain(self.pictures.stamps(self.files), zip(self.ids, self.files, strict=True)):
            digest.update(f"{each}\n".encode())
        return digest.hexdigest()

    def inconsistencies(self) -> Iterator[str]:
        """A sentence for each galaxy and question whose votes contradict the tree (`DecisionTree.inconsistencies`)."""
        if self.tree is None:
            return
        first = 0
        for piece in self.cells.pieces():  # a wrong column map breaks every galaxy
            for i in self.tree.inconsistencies(matrix_of(piece, self.tree.columns)):
                row = first + i.row
                yield (
                    f"{self.path}, row {self.rows[row]} (id_str {self.ids[row]}): {i.question} has {i.votes} votes, "
                    f"but the answers that lead to it have {i.parent_votes}"
                )
            first += len(piece)


class _Conversion:
    """Rows of texts as columns of the dataset, some rows at a time.

    Attributes:
        tree, dtypes, notes: as of `Catalogue`, once the first rows have been converted.
        digest: of all values so far.
    """

    def __init__(self, columns: ColumnMap, tree: DecisionTree | None, options: CatalogueOptions) -> None:
        self.columns, self.options = columns, options
        self.given, self.tree = tree, tree
        self.dtypes: dict[str, str] = {}
        self.notes: list[str] = []
        self.digest = hashlib.sha256()
        self.sky = SkyColumns(columns)

    def tables(self, pieces: Iterator[CatalogueTable], kept: np.ndarray) -> Iterator[pa.Table]:
        """The columns of the dataset, except id_str and image.

        Args:
            kept: (N,) bool, the rows that have a picture.

        Raises:
            BadInput: names the first row that is wrong.
        """
        for piece in pieces:
            table = self._converted(piece.select(kept[piece.rows - 1]))
            for column in table.columns:
                self.digest.update(_content(column))
            yield table

    def _converted(self, piece: CatalogueTable) -> pa.Table:
        columns = self.columns
        bands = [described_bands(self.options.bands)] if self.options.bands else []
        votes = read_votes(piece, columns, self.given, self.options.volunteers)
        entries = {ours: Metadata(column, "float32") for ours, column in columns.values.items()} | columns.metadata
        data = (
            votes.data
            | {column: piece.classes(entry) for column, entry in columns.classes.items()}
            | {column: piece.metadata(entry) for column, entry in entries.items()}
        )
        self.tree, self.notes = votes.tree, votes.notes + bands
        self.dtypes = votes.dtypes | {column: entry.dtype for column, entry in entries.items()}
        _check_names(columns, self.tree, [FLUX] if self.options.bands else [])
        return self.sky.checked(piece, pa.table(data))


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


def _content(column: pa.ChunkedArray) -> bytes:
    """Bytes that differ if the values do. Those of Arrow itself are undefined where there is no value."""
    if pa.types.is_string(column.type):
        return repr(column.to_pylist()).encode()
    filled = column.fill_null(pa.scalar(0).cast(column.type))
    return filled.to_numpy().tobytes() + column.is_null().to_numpy().tobytes()


def _float64(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """(N, K), NaN where there is no number."""
    return np.stack([table[column].cast(pa.float64()).to_numpy() for column in columns], axis=1)


def _check_names(columns: ColumnMap, tree: DecisionTree | None, fluxes: list[str]) -> None:
    votes = tree.columns if tree else []
    names = ["id_str", "image", *fluxes, *votes, *columns.classes, *columns.values, *columns.metadata]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"--columns: {', '.join(twice)} would be in the dataset twice; rename the labels")
