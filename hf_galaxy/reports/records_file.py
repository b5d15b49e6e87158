"""All records of a study in one file, records.parquet: those of runs (`RunRecord`) and of cells of a benchmark.

Each row is a record: `name`, the path of the run folder or of the file of the cell from the folder of the records file, and the
fields of the record, each as JSON text in a column of its own (null if the record lacks the field). The file is Parquet because Zstandard, unlike gzip, finds
what distant records have in common, so that it is 40 % smaller than gzipped lines, and because pandas and DuckDB read it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath

from hf_galaxy.errors import BadInput, unwritable
from hf_galaxy.files import remove_left_beside, whole_file
from hf_galaxy.locks import locked

FILE = "records.parquet"
NAME = "name"


def write_records(file: Path, records: Mapping[str, dict]) -> None:
    """Write the records in the order of their names, whole or not at all; equal records give equal bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    names = in_order(records)
    fields = list(dict.fromkeys(field for name in names for field in records[name]))
    columns = {field: [_json(records[name], field) for name in names] for field in fields}
    schema = pa.schema([(column, pa.string()) for column in (NAME, *fields)])
    with whole_file(file) as partial:
        # Each column is one page, as pages are compressed by themselves.
        parquet.write_table(
            pa.table({NAME: names, **columns}, schema=schema), partial, compression="zstd", compression_level=19,
            use_dictionary=False, write_statistics=False, row_group_size=max(1, len(names)), data_page_size=2**30,
        )  # fmt: skip


@contextmanager
def changing(file: Path) -> Iterator[dict[str, dict]]:
    """The records in a file, to change them: they are written when the block succeeds. Of several processes one waits for the other.

    Raises:
        BadInput: as `read_records`; or the file cannot be written.
    """
    try:
        with locked(file.with_name(f".{file.name}.lock")):
            remove_left_beside(file)
            records = dict(read_records(file))
            yield records
            write_records(file, records)
    except OSError as error:
        raise unwritable(file, error) from error


def read_records(file: Path) -> Mapping[str, dict]:
    """The records in a file by name; none if there is no file. They are shared by all callers, who must not change them.

    Raises:
        BadInput: the file cannot be read, or holds no records.
    """
    if not file.exists():
        return {}
    status = file.stat()
    return _read(file, status.st_mtime_ns, status.st_size)


def recorded(folder: Path) -> dict | None:
    """The record of a run folder in a records file one or two folders above it; None if there is none."""
    folder = folder.absolute()
    for above in folder.parents[:2]:
        if (record := read_records(above / FILE).get(folder.relative_to(above).as_posix())) is not None:
            return record
    return None


def holds_records(file: Path) -> bool:
    """Whether this is a records file, and not another kind of Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return NAME in parquet.read_schema(file).names
    except (
        OSError,
        ValueError,
        pa.ArrowException,
    ):  # pa.ArrowInvalid is a ValueError, and so is a name that is no UTF-8
        return False


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the order of paths: folder by folder."""
    return sorted(names, key=lambda name: PurePosixPath(name).parts)


@lru_cache(maxsize=2)  # a sweep asks for one record after the other
def _read(file: Path, modified: int, size: int) -> dict[str, dict]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        rows = parquet.read_table(file).to_pylist()
        if not all(isinstance(row[NAME], str) for row in rows):
            raise ValueError(f"a {NAME} is no text")
        return {row.pop(NAME): {key: json.loads(text) for key, text in row.items() if text is not None} for row in rows}
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{file}: cannot be read as records of a study ({error})") from error


def _json(record: dict, field: str) -> str | None:
    return json.dumps(record[field], separators=(",", ":"), allow_nan=False) if field in record else None
