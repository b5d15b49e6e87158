"""left_out.csv: the galaxies that are in no file of a dataset, since their pictures are missing or cannot be read."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from hf_galaxy.errors import BadInput
from hf_galaxy.files import whole_file
from hf_galaxy.importing.plan import LeftOut, Plan, Source
from hf_galaxy.safe_text import csv_rows

FILE = "left_out.csv"
READABLE = "could not be read when the files were written"


def write_left_out(source: Source, planned: Plan, folder: Path) -> list[LeftOut]:
    """Write `folder`/left_out.csv, unless all galaxies are in the files; those whose picture cannot be read come last.

    Args:
        folder: of the files, which are complete.
    """
    lost = source.left_out(list(_not_written(source, planned, folder)))
    if lost:
        with whole_file(folder / FILE) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(LeftOut._fields)
            table.writerows(csv_rows(lost))
    return lost


def reason(strict: Source, row: int) -> str:
    """Why the picture of a galaxy cannot be read.

    Args:
        strict: its source, which leaves out none.
    """
    try:
        strict.batch([row])
    except BadInput as error:
        return str(error.__cause__ or error)
    return READABLE


def _not_written(source: Source, planned: Plan, folder: Path) -> Iterator[int]:
    """The planned rows that are in no file; those that are stand in the planned order."""
    for shard in planned.shards:
        with pq.ParquetFile(folder / shard.path) as file:
            if file.metadata.num_rows == len(shard.rows):
                continue
            written = iter(file.read(["id_str"])["id_str"].to_pylist())
        name = next(written, None)
        for row in shard.rows.tolist():
            if source.ids[row] == name:
                name = next(written, None)
            else:
                yield row
