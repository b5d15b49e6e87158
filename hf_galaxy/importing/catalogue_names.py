"""The names and picture files of the galaxies of a catalogue, checked; they wait on the disk. Legend: N rows, G galaxies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from hf_galaxy.data.picture_files import FILES, PictureFiles
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.catalogue_table import FILE_NAME, CatalogueTable, refuse_rows
from hf_galaxy.importing.column_file import ColumnFile, Texts
from hf_galaxy.importing.column_map import ColumnMap
from hf_galaxy.importing.first_of import first_of
from hf_galaxy.importing.groups import Groups, hashes_of
from hf_galaxy.importing.plan import LeftOut

NAME, PICTURE = "name", "file"  # columns of the file


@dataclass(frozen=True, eq=False)
class CatalogueNames:
    """The galaxies of a catalogue that have a picture. `CatalogueNames.of` makes it.

    Attributes:
        kept: (N,) bool, the rows of the catalogue that have a picture.
        ids, files: (G,) name and picture file of each galaxy.
        missing: the rows without a picture.
    """

    kept: np.ndarray
    ids: Texts
    files: Texts
    missing: list[LeftOut]

    @classmethod
    def of(
        cls, path: Path, pieces: Iterator[CatalogueTable], columns: ColumnMap, pictures: PictureFiles, skip_missing: bool
    ) -> CatalogueNames:  # fmt: skip
        """Read the names.

        Args:
            path: of the catalogue, for messages.
            pieces: all its rows, some at a time.
            skip_missing: leave out rows without a picture.

        Raises:
            BadInput: names the first row whose picture is missing, or whose name is empty or that of an earlier row.
        """
        masks: list[np.ndarray] = []
        written = ColumnFile(_tables(pieces, columns, pictures, masks))
        there = np.concatenate(masks)
        files = Texts(written, PICTURE)
        by_base_name = np.zeros(len(there), bool)
        if not there.all():
            by_base_name = _with_base_names(files, there, pictures)
        kept = there | by_base_name
        missing: list[LeftOut] = []
        if not kept.all():
            reason = f"is not a picture in {pictures}"
            absent = _Changed(files, partial(_absent, pictures=pictures))
            if not skip_missing:
                remedy, column = "--skip-missing leaves them out", columns.image.replace(FILES, ", ")
                refuse_rows(path, np.arange(1, len(kept) + 1), ~kept, column, reason, absent, remedy)
            if not kept.any():
                raise BadInput(f"{path}: no row has a picture in {pictures}")
            names = Texts(written, NAME)
            missing = [LeftOut(names[row], row + 1, absent[row], reason) for row in np.flatnonzero(~kept).tolist()]
        if missing or by_base_name.any():
            written = ColumnFile(_chosen(written, kept, by_base_name))
        ids = Texts(written, NAME)
        _check_ids(path, ids, np.flatnonzero(kept) + 1, columns.id_str or FILE_NAME)
        return cls(kept, ids, Texts(written, PICTURE), missing)

    @property
    def notes(self) -> list[str]:
        """A sentence on the rows without a picture, if there are such."""
        if not self.missing:
            return []
        names = first_of([each.id_str or f"row {each.row}" for each in self.missing])
        rows = len(self.kept)
        return [f"{len(self.missing):,} of the catalogue's {rows:,} rows have no picture and are left out: {names}."]


def _tables(
    pieces: Iterator[CatalogueTable], columns: ColumnMap, pictures: PictureFiles, masks: list[np.ndarray]
) -> Iterator[pa.Table]:
    """Names and files of all rows; to `masks` is added for each of these tables which rows have a picture."""
    for piece in pieces:
        files = piece.image_files(columns).map(lambda file: _as_here(file, pictures))
        masks.append(files.map(lambda file: file in pictures).to_numpy(bool))
        names = piece[columns.id_str] if columns.id_str is not None else piece.named_by_files(columns)[FILE_NAME]
        yield _table(names, files)


def _absent(file: str, pictures: PictureFiles) -> str:
    """Of the files of several bands those that are missing."""
    return ", ".join(each for each in file.split(FILES) if each not in pictures)


def _as_here(file: str, pictures: PictureFiles) -> str:
    """A path of Windows with the separators of others."""
    return file.replace("\\", "/") if "\\" in file and file not in pictures else file


def _table(names: Any, files: Any) -> pa.Table:
    return pa.table({NAME: pa.array(names, pa.string()), PICTURE: pa.array(files, pa.string())})


def _with_base_names(files: Texts, there: np.ndarray, pictures: PictureFiles) -> np.ndarray:
    """(N,) bool: rows whose files were in other folders when the table was written, and are here by their names alone, if these differ.

    Args:
        there: (N,) bool, rows whose files are here by their paths.
    """
    alone = ~there
    alone[Groups.of_equal(hashes_of(_Changed(files, _base_name))).rows] = False
    for row in np.flatnonzero(alone).tolist():
        alone[row] = _base_name(files[row]) in pictures
    return alone


class _Changed(Sequence[str]):
    """Texts on the disk, each changed when it is read."""

    def __init__(self, files: Texts, change: Callable[[str], str]) -> None:
        self.files, self.change = files, change

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, chosen: Any) -> Any:
        found = self.files[chosen]
        return list(map(self.change, found)) if isinstance(chosen, slice) else self.change(found)


def _base_name(file: str) -> str:
    """The name of a file, or of those of several bands, without folders."""
    return FILES.join(each.rpartition("/")[2] for each in file.split(FILES))


def _chosen(written: ColumnFile, kept: np.ndarray, by_base_name: np.ndarray) -> Iterator[pa.Table]:
    """The rows that are kept, with the base names of some files."""
    first = 0
    for piece in written.pieces():
        here = slice(first, first + len(piece))
        files = piece[PICTURE].to_pylist()
        for i in np.flatnonzero(by_base_name[here]).tolist():
            files[i] = _base_name(files[i])
        yield _table(piece[NAME].combine_chunks(), files).filter(pa.array(kept[here]))
        first += len(piece)


def _check_ids(path: Path, ids: Texts, rows: np.ndarray, column: str) -> None:
    """Refuse names that are empty, or there twice, or were once numbers.

    Args:
        rows: (G,) number of each galaxy's row in the catalogue, from 1.
    """
    empty, rounded = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
    first = 0
    for names in ids.pieces():
        texts = pd.Series(names, dtype=str)
        empty[first : first + len(names)] = texts == ""
        rounded[first : first + len(names)] = texts.str.fullmatch(r"\d\.\d+[eE]\+?\d+")
        first += len(names)
    refuse_rows(path, rows, empty, column, "is empty", ids)
    lost = "was once a number of many digits and has lost some: write the names as texts"
    refuse_rows(path, rows, rounded, column, lost, ids)
    repeated = np.zeros(len(ids), bool)
    repeated[Groups.of_equal(hashes_of(ids)).pairs()[:, 1]] = True
    refuse_rows(path, rows, repeated, column, "is in an earlier row too", ids)
