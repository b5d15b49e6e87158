"""The files beside the parts of a folder of predictions: unreadable.csv, columns.md, and whole tables in other formats."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from hf_galaxy.files import whole_file
from hf_galaxy.models.column_dictionary import FILE, dictionary, facts_of
from hf_galaxy.models.prediction_inputs import Source, parts_of
from hf_galaxy.models.predictions import EMBEDDING, KEY, UNREADABLE, unreadable_in
from hf_galaxy.safe_text import csv_cell, csv_rows

if TYPE_CHECKING:
    from hf_galaxy.models.predictions import Predictor


def finish(predictor: "Predictor", folder: Path, sources: list[Source], as_csv: bool) -> tuple[int, int]:
    """Write what stands beside the parts: columns.md, unreadable.csv if there are unreadable pictures, and tables without embeddings.

    Args:
        as_csv: write predictions.csv.

    Returns:
        The numbers of predicted galaxies and of unreadable pictures.
    """
    parts, predicted = parts_of(sources), Counter[str]()
    unreadable: list[tuple[str, str, str, str]] = []
    for part in parts:
        footer, source = pq.read_metadata(folder / part.file), sources[part.source]
        predicted[f"{source.name}, split {source.split}" if source.split else source.name] += footer.num_rows
        unreadable += unreadable_in(footer.metadata, source)
    if unreadable:
        with whole_file(folder / "unreadable.csv") as partial, open(partial, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(csv_rows([UNREADABLE, *unreadable]))
    columns = predictor.table_columns(sources)
    facts = facts_of(json.loads(predictor.schema.metadata[KEY]), predicted, len(unreadable))
    with whole_file(folder / FILE) as partial:
        partial.write_text(dictionary(facts, columns), encoding="utf-8")
    if as_csv:
        schema = pa.schema([(column.name, column.type) for column in columns if column.name != EMBEDDING])
        with whole_file(folder / "predictions.csv") as partial:
            _write_csv([folder / part.file for part in parts], schema, partial)
    return predicted.total(), len(unreadable)


def _write_csv(parts: list[Path], schema: pa.Schema, out: Path) -> None:
    named = pa.schema([(csv_cell(field.name), field.type) for field in schema])
    with pyarrow.csv.CSVWriter(out, named) as writer:
        for part in parts:
            table = for_people(pq.read_table(part, columns=schema.names).cast(schema))
            writer.write_table(table.rename_columns(named.names))


def for_people(table: pa.Table) -> pa.Table:
    """The table with `safe_text.csv_cell` for its texts."""
    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            cells = (text if text is None else csv_cell(text) for text in table[i].to_pylist())
            table = table.set_column(i, field, pa.array(cells, field.type))
    return table
