"""What somebody's table holds: its column map, guessed from the names of its columns and from their cells. Legend: N rows."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from hf_galaxy.data.fluxes import FLUX
from hf_galaxy.data.picture_files import FILES, PictureFiles
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.importing.catalogue_table import FILE_NAME, CatalogueTable
from hf_galaxy.importing.column_map import ColumnMap, Dtype, Metadata
from hf_galaxy.importing.column_types import MISSING, ROUNDED, dtype_of, without_missing
from hf_galaxy.importing.given_splits import described
from hf_galaxy.importing.guess import DEC_NAMES, ID_NAMES, RA_NAMES, check_named, columns_named_like, named_like
from hf_galaxy.importing.reading import Reading
from hf_galaxy.importing.table_pictures import PictureColumn, picture_column
from hf_galaxy.importing.vote_columns import VoteColumns, votes_among
from hf_galaxy.progress import log_once

logger = logging.getLogger(__name__)

DIGEST = "digest of the picture"  # column of names; tables of people have none that is called so
OURS = ("id_str", "image")
POSITION = {"ra": RA_NAMES, "dec": DEC_NAMES}


@dataclass(frozen=True, eq=False)
class Guess:
    """A table and the meaning of its columns.

    Attributes:
        table: with a column of names, if it had none, and "" for missing numbers.
        columns: their map; votes with missing cells are metadata in it.
        tree: decision tree of the votes; None: there are none, or some cells are missing.
        names: which names the galaxies have: a column, or `FILE_NAME` or `DIGEST`.
        picture: the column of the pictures.
        votes: those in the table.
    """

    table: CatalogueTable
    columns: ColumnMap
    tree: DecisionTree | None
    names: str
    picture: str
    votes: VoteColumns

    def describe(self, galaxies: int, where: str) -> str:
        """A line for the user.

        Args:
            where: the pictures are.
        """
        votes = self.votes.columns
        others = [ours for ours in self.columns.metadata if ours not in votes]
        others.sort(key=lambda ours: ours in ("ra", "dec"))
        shown = f"picture: {self.columns.image.replace(FILES, ', ')} (in {where}), name: {self.names}"
        if others:
            number = len(others) - 1
            more = f" and {number} other column{'s' if number > 1 else ''}" if number else ""
            shown += f", {others[0]}{more}"
        if self.votes.tree:
            shown += f", votes of {self.votes.tree.name}"
        line = f"{self.table.path}: {galaxies:,} galaxies; {shown}; splits: {described(None)}; change it with --image-column, --id-column"
        if self.votes.campaigns:
            line += f"; some columns may be votes of {', '.join(self.votes.campaigns)}: choose with --tree"
        return line


def guess(table: CatalogueTable, pictures: PictureFiles, reading: Reading, held: str | None = None) -> Guess:
    """The meaning of the columns of a table.

    Args:
        table: all its columns.
        reading: what is known already.
        held: the column that holds the pictures themselves, if one does.

    Raises:
        BadInput: a column that is named is not there, or no column names a picture.
    """
    name = str(table.path)
    for option, column in (("--image-column", reading.image_column), ("--id-column", reading.id_column)):
        check_named(option, column, table.cells.columns, name)
    bands = reading.bands
    picture = (
        PictureColumn(held, held) if held else picture_column(table.cells, pictures, name, reading.image_column, bands)
    )
    columns = ColumnMap(image=picture.pattern).of_bands(bands)
    table, names = _named(table, columns, pictures, reading.id_column, files=held is None)
    used = {names, picture.column, *columns.image_columns}
    columns = replace(columns, id_str=names, image=picture.pattern)
    cleaned, dtypes = {}, {}
    for column in table.cells.columns:
        if column not in used:
            cleaned[column] = without_missing(table[column])
            dtypes[column] = dtype_of(cleaned[column])
    cells = table.cells.assign(**{column: cleaned[column] for column, dtype in dtypes.items() if dtype != "string"})
    votes = votes_among([column for column, dtype in dtypes.items() if dtype == "int64"], reading.campaigns)
    complete = not any((cells[column] == "").any() for column in votes.columns.values())
    metadata = _metadata(dtypes, votes, complete, (*OURS, FLUX) if bands else OURS)
    texts = [
        column for usual in POSITION.values() if (column := named_like(dtypes, usual)) and dtypes[column] == "string"
    ]
    if texts:
        log_once(
            logger, f"{name}: no numbers of degrees are in {' and '.join(texts)}, so the galaxies have no positions"
        )
    columns = replace(columns, votes=_renamed(votes) if complete else {}, metadata=metadata)
    table = CatalogueTable(table.path, cells, table.rows)
    return Guess(table, columns, votes.tree if complete else None, names, picture.column, votes)


def _renamed(votes: VoteColumns) -> dict[str, str]:
    return {ours: column for ours, column in votes.columns.items() if ours != column}


def _metadata(dtypes: dict[str, Dtype], votes: VoteColumns, complete: bool, ours: Sequence[str]) -> dict[str, Metadata]:
    """All columns that have no other meaning; votes with missing cells, too.

    Args:
        complete: the votes have no missing cells.
        ours: columns that the dataset has anyway.
    """
    metadata = {} if complete else {each: Metadata(column, "int32") for each, column in votes.columns.items()}
    for position, names in POSITION.items():
        column = named_like(dtypes, names)
        if column and dtypes[column] in ("float32", "float64", "int64"):
            metadata[position] = Metadata(column, "float64")
    used = {*votes.columns.values(), *(entry.column for entry in metadata.values())}
    taken = {*ours, *POSITION, *metadata, *votes.columns}
    for column, dtype in dtypes.items():
        if column not in used:
            metadata[f"{column} of the table" if column in taken else column] = Metadata(column, dtype)
    return metadata


def _named(
    table: CatalogueTable, columns: ColumnMap, pictures: PictureFiles, given: str | None, files: bool
) -> tuple[CatalogueTable, str]:
    """The table and its column of names: the one that is given, one with a usual name, or one that is made from the pictures.

    Args:
        files: the pictures are files, which have names.
    """
    if given is not None:
        return table, given
    for column in columns_named_like(table.cells.columns, ID_NAMES):
        if _may_be_names(table[column]):
            return table, column
    named = table.named_by_files(columns)
    stems = named[FILE_NAME]
    if files and _may_be_names(stems[stems != ""]):  # rows without a picture are refused or left out
        return named, FILE_NAME
    digests = _numbered([_digest(path, pictures) for path in table.image_files(columns)])
    return table.with_column(DIGEST, pd.Series(digests, dtype=str)), DIGEST


def split_names_of(ids: Sequence[str]) -> list[str]:
    """The digests of pictures in names made of them: rows with the same picture are the same galaxy."""
    return [name.partition("-")[0] for name in ids]


def _may_be_names(cells: pd.Series) -> bool:
    """Whether all cells are filled, different, and no rounded numbers."""
    return not (cells.duplicated().any() or cells.str.lower().isin(MISSING).any() or cells.str.contains(ROUNDED).any())


def _digest(file: str, pictures: PictureFiles) -> str:
    """Of a picture that is not there, the name of its file: the row is refused or left out."""
    for name in (file, file.replace("\\", "/"), file.rpartition("/")[2]):
        if name in pictures:
            content = b"".join(map(pictures.read, name.split(FILES)))
            return hashlib.sha256(content).hexdigest()[:32]
    return file


def _numbered(digests: list[str]) -> list[str]:
    """Different names: the second time the same picture comes, "-2" is added."""
    seen: Counter[str] = Counter()
    names = []
    for digest in digests:
        seen[digest] += 1
        names.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return names
