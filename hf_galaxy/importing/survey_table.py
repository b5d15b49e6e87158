"""Columns of the predictions for a whole survey, as `hf-galaxy predict` writes them, and the rows in it of some galaxies.

Only the columns that are needed are read, some rows at a time: of each galaxy a few numbers stay in memory. Legend: N galaxies of the
survey, n that are looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hf_galaxy.errors import BadInput
from hf_galaxy.importing.catalogue_table import readable
from hf_galaxy.importing.column_types import dtype_of, without_missing
from hf_galaxy.importing.guess import check_named
from hf_galaxy.importing.join_keys import names_of
from hf_galaxy.importing.table_file import read_pieces, text_columns
from hf_galaxy.importing.tables import PARQUET

ROWS = 100_000  # in memory as texts
CSV = "predictions.csv"
LARGEST = 1e30  # of predictions, whose squares are added
MOST_TEXTS = 1000  # of a column that groups galaxies
OPTION = "--predictions"


@dataclass(frozen=True, eq=False)
class Groups:
    """A column of texts.

    Attributes:
        names: the texts, in alphabetical order.
        codes: (N,) int32, the place of each galaxy's text among them; -1 for an empty cell.
    """

    names: list[str]
    codes: np.ndarray


@dataclass(frozen=True, eq=False)
class SurveyColumns:
    """Some columns of a survey.

    Attributes:
        prediction: (N,) float32.
        numbers: (N,) float64 by column, NaN for empty cells.
        groups: columns of texts.
        rows: (n,) of the galaxies that were looked for; -1 where the survey has none of the name.
        first_name: of the survey, for messages.
    """

    prediction: np.ndarray
    numbers: dict[str, np.ndarray]
    groups: dict[str, Groups]
    rows: np.ndarray
    first_name: str


class SurveyTable:
    """The table of a survey: a Parquet file, one of the other formats of tables, or the folder of `hf-galaxy predict`.

    Raises:
        BadInput: there is no such table, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            self.files = sorted(file for file in path.glob("*.parquet") if not file.name.startswith("."))
            if not self.files and (path / CSV).exists():
                self.files = [path / CSV]
            if not self.files:
                raise BadInput(
                    f"{OPTION} {path}: has neither Parquet files nor {CSV}; name what hf-galaxy predict has written"
                )
        else:
            self.files = [path]
        with readable(self.files[0], OPTION):
            self.columns, self.others = text_columns(self.files[0])

    def check(self, option: str, column: str | None) -> None:
        """Refuse a column that an option names and the table has not.

        Raises:
            BadInput: names the columns that there are.
        """
        check_named(option, column, self.columns, f"{OPTION} {self.path}")

    def numeric(self) -> list[str]:
        """The columns of a Parquet table that hold numbers; of another one all, as cells tell."""
        if not _is_parquet(self.files[0]):
            return self.columns
        schema = pq.read_schema(self.files[0])
        return [name for name in self.columns if _is_number(schema.field(name).type)]

    def is_number(self, column: str) -> bool:
        """Whether a column holds numbers, as its type or its first cells tell."""
        if _is_parquet(self.files[0]):
            return column in self.numeric()
        with readable(self.files[0], OPTION):
            return dtype_of(without_missing(next(read_pieces(self.files[0], [column]))[column])) not in (
                "string",
                "bool",
            )

    def read(
        self, prediction: str, key: str, wanted: pd.Series, numbers: Sequence[str] = (), groups: Sequence[str] = ()
    ) -> SurveyColumns:
        """Read columns, and find galaxies.

        Args:
            prediction: the column of the predictions.
            key: the column of the names.
            wanted: (n,) names, each once.
            numbers, groups: columns of numbers and of texts.

        Raises:
            BadInput: a name is there twice; or a cell is empty or no number, with its file and name.
        """
        rows, hashes = np.full(len(wanted), -1), []
        predictions: list[np.ndarray] = []
        parts: dict[str, list[np.ndarray]] = {name: [] for name in (*numbers, *groups)}
        seen: dict[str, dict[str, int]] = {name: {} for name in groups}
        index, start, first_name = pd.Index(wanted), 0, ""
        for file, piece in self._pieces({prediction, key, *numbers, *groups}):
            names = names_of(piece[key], key, str(file))
            if (unnamed := (names == "").to_numpy()).any():
                raise BadInput(
                    f"{file}: {unnamed.sum():,} galaxies have no {key}; name the column of the names with --on"
                )
            first_name = first_name or names.iloc[0]
            found = index.get_indexer(names)
            hashes.append(pd.util.hash_array(names.to_numpy(dtype=object), categorize=False))
            rows[found[found >= 0]] = start + np.flatnonzero(found >= 0)
            predictions.append(self._predictions(file, prediction, piece[prediction], names))
            for name in numbers:
                parts[name].append(_numbers(file, name, piece[name], names))
            for name in groups:
                parts[name].append(self._codes(file, name, piece[name], seen[name]))
            start += len(names)
        if start == 0:
            raise BadInput(f"{OPTION} {self.path}: has no galaxies")
        joined = np.concatenate(hashes)
        hashes.clear()
        self._check_once(key, joined)
        del joined
        columns = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
        return SurveyColumns(
            np.concatenate(predictions), {name: columns[name] for name in numbers},
            {name: _in_order(columns[name], seen[name]) for name in groups}, rows, first_name,
        )  # fmt: skip

    def _pieces(self, columns: set[str]) -> Iterator[tuple[Path, dict[str, pa.ChunkedArray]]]:
        for file in self.files:
            with readable(file, OPTION):
                if _is_parquet(file):
                    with pq.ParquetFile(file) as table:
                        if lacking := sorted(columns - {*table.schema_arrow.names}):
                            raise BadInput(f"{file}: has no column {lacking[0]}, which {self.files[0].name} has")
                        for batch in table.iter_batches(ROWS, columns=sorted(columns)):
                            yield file, {name: pa.chunked_array([batch[name]]) for name in columns}
                else:
                    for piece in read_pieces(file, columns, ROWS):
                        texts = {name: without_missing(piece[name]) for name in columns}
                        yield file, {name: pa.chunked_array([pa.array(texts[name], pa.string())]) for name in columns}

    def _predictions(self, file: Path, column: str, values: pa.ChunkedArray, names: pd.Series) -> np.ndarray:
        numbers = _numbers(file, column, values, names)
        if (large := np.abs(np.nan_to_num(numbers)) > LARGEST).any():
            raise BadInput(f"{file}, galaxy {names[int(large.argmax())]}, column {column}: is too large a number")
        if (wrong := ~np.isfinite(numbers)).any():
            first = names[int(wrong.argmax())]
            raise BadInput(
                f"{file}, column {column}: {wrong.sum():,} galaxies have no prediction, such as {first}; predict them, or leave them out of the "
                "survey that you ask about"
            )
        return numbers.astype(np.float32)

    def _codes(self, file: Path, column: str, values: pa.ChunkedArray, seen: dict[str, int]) -> np.ndarray:
        try:
            texts = values.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise BadInput(f"{file}, column {column}: holds {values.type}, neither texts nor numbers") from error
        encoded = texts.combine_chunks().dictionary_encode()
        own = [text.strip() for text in encoded.dictionary.to_pylist()]
        codes = np.array([seen.setdefault(text, len(seen)) if text else -1 for text in own] + [-1], np.int32)
        if len(seen) > MOST_TEXTS:
            raise BadInput(
                f"{file}, column {column}: has more than {MOST_TEXTS} different texts; give a column of a few classes"
            )
        return codes[encoded.indices.fill_null(len(own)).to_numpy(zero_copy_only=False)]

    def _check_once(self, key: str, hashes: np.ndarray) -> None:
        hashes.sort()
        if not (again := hashes[1:] == hashes[:-1]).any():
            return
        twice, number, seen = hashes[1:][again], int(again.sum()), set[str]()
        for file, piece in self._pieces({key}):
            names = names_of(piece[key], key, str(file))
            for name in names[np.isin(pd.util.hash_array(names.to_numpy(dtype=object), categorize=False), twice)]:
                if name in seen:
                    raise BadInput(
                        f"{file}: the galaxy {name!r} is there twice ({number:,} rows are too many); each galaxy counts once: remove the others, or "
                        "name another column of names with --on"
                    )
                seen.add(name)


def _is_parquet(file: Path) -> bool:
    return file.name.lower().endswith(PARQUET)


def _is_number(dtype: pa.DataType) -> bool:
    return pa.types.is_floating(dtype) or pa.types.is_integer(dtype) or pa.types.is_decimal(dtype)


def _numbers(file: Path, column: str, values: pa.ChunkedArray, names: pd.Series) -> np.ndarray:
    """(rows,) float64, NaN for empty cells."""
    if pa.types.is_string(values.type):
        texts = values.to_pandas()
        numbers = pd.to_numeric(texts.where(texts != "", "nan"), errors="coerce").to_numpy(np.float64)
        if (wrong := np.isnan(numbers) & ~texts.isin(["", "nan"]).to_numpy()).any():
            row = int(wrong.argmax())
            raise BadInput(f"{file}, galaxy {names[row]}, column {column}: {texts[row]!r} is no number")
        return numbers
    try:
        return values.cast(pa.float64()).to_numpy().copy()  # else all that the piece was read from stays in memory
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(f"{file}, column {column}: holds {values.type}, not numbers") from error


def _in_order(codes: np.ndarray, seen: dict[str, int]) -> Groups:
    names = sorted(seen)
    places = np.array([names.index(name) for name in seen] + [-1], np.int32)
    return Groups(names, places[codes])
