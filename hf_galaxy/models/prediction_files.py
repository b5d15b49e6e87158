"""The files beside the parts of a folder of predictions: unreadable.csv, _columns.md, and whole tables in other formats."""

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from hf_galaxy.files import whole_file
from hf_galaxy.models.column_dictionary import FILE, dictionary, facts_of
from hf_galaxy.models.fits_table import check_fits, write_fits
from hf_galaxy.models.prediction_columns import Column
from hf_galaxy.models.prediction_inputs import Part, Source, parts_of
from hf_galaxy.models.predictions import KEY, UNREADABLE, unreadable_in
from hf_galaxy.models.votable import write_votable
from hf_galaxy.safe_text import csv_cell, csv_rows

if TYPE_CHECKING:
    from hf_galaxy.models.predictions import Predictor


Format = Literal["parquet", "csv", "fits", "votable"]
SUFFIXES: dict[Format, str] = {"csv": "csv", "fits": "fits", "votable": "vot"}


def check_formats(predictor: "Predictor", sources: list[Source], formats: Collection[Format]) -> None:
    """Refuse formats that cannot hold the columns, before anything is predicted.

    Raises:
        BadInput: as `check_fits`.
    """
    if "fits" in formats:
        check_fits(_without_embeddings(predictor.table_columns(sources)))


def finish(predictor: "Predictor", folder: Path, sources: list[Source], formats: Collection[Format]) -> tuple[int, int]:
    """Write what stands beside the parts: _columns.md, unreadable.csv if there are unreadable pictures, and whole tables without embeddings.

    Args:
        formats: of the tables: predictions.csv, predictions.fits, predictions.vot.

    Returns:
        The numbers of predicted galaxies and of unreadable pictures.
    """
    parts = parts_of(sources)
    predicted, unreadable = _found_in(folder, parts, sources)
    if unreadable:
        with whole_file(folder / "unreadable.csv") as partial, open(partial, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(csv_rows([UNREADABLE, *unreadable]))
    columns = predictor.table_columns(sources)
    facts = facts_of(json.loads(predictor.schema.metadata[KEY]), predicted, len(unreadable))
    with whole_file(folder / FILE) as partial:
        partial.write_text(dictionary(facts, columns), encoding="utf-8")
    files = [folder / part.file for part in parts]
    for kind in formats:
        if kind != "parquet":
            with whole_file(folder / f"predictions.{SUFFIXES[kind]}") as partial:
                _write(kind, partial, _without_embeddings(columns), files, predicted.total(), facts)
    return predicted.total(), len(unreadable)


def counts_of(folder: Path, parts: Collection[Part], sources: list[Source]) -> tuple[int, int]:
    """The numbers of predicted galaxies and of unreadable pictures in some parts that are written."""
    predicted, unreadable = _found_in(folder, parts, sources)
    return predicted.total(), len(unreadable)


def _found_in(
    folder: Path, parts: Collection[Part], sources: list[Source]
) -> tuple[Counter[str], list[tuple[str, str, str, str]]]:
    """The number of galaxies of each source in some parts, and their unreadable pictures."""
    predicted = Counter[str]()
    unreadable: list[tuple[str, str, str, str]] = []
    for part in parts:
        footer, source = pq.read_metadata(folder / part.file), sources[part.source]
        predicted[f"{source.name}, split {source.split}" if source.split else source.name] += footer.num_rows
        unreadable += unreadable_in(footer.metadata, source)
    return predicted, unreadable


def _without_embeddings(columns: list[Column]) -> list[Column]:
    return [column for column in columns if not pa.types.is_fixed_size_list(column.type)]


def _write(kind: Format, out: Path, columns: list[Column], files: list[Path], rows: int, facts: dict[str, str]) -> None:
    """A table in another format."""
    schema = pa.schema([(column.name, column.type) for column in columns])

    def parts(names: list[str]) -> Iterator[pa.Table]:
        of_these = pa.schema([schema.field(name) for name in names])
        return (pq.read_table(file, columns=names).cast(of_these) for file in files)

    if kind == "csv":
        _write_csv(out, schema, parts(schema.names))
    elif kind == "fits":
        write_fits(out, columns, parts, rows, facts)
    else:
        write_votable(out, columns, parts, rows, facts)


def _write_csv(out: Path, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    named = pa.schema([(csv_cell(field.name), field.type) for field in schema])
    with pyarrow.csv.CSVWriter(out, named) as writer:
        for part in parts:
            writer.write_table(for_people(part).rename_columns(named.names))


def for_people(table: pa.Table) -> pa.Table:
    """The table with `safe_text.csv_cell` for its texts."""
    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            cells = (text if text is None else csv_cell(text) for text in table[i].to_pylist())
            table = table.set_column(i, field, pa.array(cells, field.type))
    return table
