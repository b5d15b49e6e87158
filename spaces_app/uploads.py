"""A visitor's files as pictures, one after the other: single ones, those in zip files, and those of positions in a CSV file.

Zip files are read in memory, so that no name in them becomes a path on the disk.
"""

import csv
import io
import itertools
import mmap
import re
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cutouts
from hf_galaxy.errors import BadInput
from picture import MAX_BYTES, Picture, plain_name, read_picture, refusal
from text import sentence

MAX_PICTURES, MAX_SECONDS = 500, 300  # of one request
MAX_ZIP, MAX_EXPANDED = 100_000_000, 200_000_000  # bytes of a zip file, and of its contents
MAX_MEMBERS = 2_000  # of a zip, including folders and the metadata that macOS adds for each file
MAX_TABLE, MAX_ROWS = 1_000_000, 50  # bytes of a CSV, and galaxies in it
ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # the latter: an empty zip
SYSTEM_FILES = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")


T = TypeVar("T")


@dataclass(frozen=True)
class Rejected:
    """A file, or a row of a table, that is not a picture.

    Attributes:
        name: as of a Picture.
        reason: in words for the visitor.
    """

    name: str
    reason: str


def read_pictures(files: Iterable[str | Path]) -> Iterator[Picture | Rejected]:
    """The pictures in these files in order, each read when it is needed. A rejected file does not affect the others.

    Args:
        files: pictures; zip files of pictures; and CSV files with columns `ra` and `dec`, and optionally `id_str` or `name`,
            whose pictures come from the Legacy Surveys (`cutouts.cutout`).
    """
    found, spent = itertools.chain.from_iterable(map(_in_file, files)), 0.0
    for number in itertools.count():
        start = time.monotonic()
        picture = next(found, None)
        spent += time.monotonic() - start
        if picture is None:
            return
        if number == MAX_PICTURES:
            break
        yield picture
        if spent > MAX_SECONDS:
            yield Rejected("", sentence("inputs.many_seconds", limit=MAX_SECONDS))
            return
    yield Rejected("", sentence("inputs.many_files", limit=MAX_PICTURES))


def _in_file(file: str | Path) -> Iterator[Picture | Rejected]:
    path = Path(file)
    name = plain_name(path.name)
    try:
        with path.open("rb") as opened:
            start = opened.read(4)
        size = path.stat().st_size
    except (OSError, ValueError):  # ValueError: not a path
        yield Rejected(name, sentence("inputs.gone"))
        return
    if start in ZIP_STARTS:
        yield from _in_zip(path, name, size)
    elif name.lower().endswith(".csv"):
        yield from _in_table(path, name, size)
    else:
        yield _read(name, read_picture, path)


def _read(name: str, function: Callable[..., T], *arguments: object) -> T | Rejected:
    """The result of a function, or why it was refused."""
    try:
        return function(*arguments)
    except BadInput as error:
        return Rejected(name, str(error))


def _in_zip(path: Path, name: str, size: int) -> Iterator[Picture | Rejected]:
    try:
        archive = _opened(path, size)
    except BadInput as error:
        yield Rejected(name, str(error))
        return
    with archive:
        members = [each for each in archive.infolist() if not each.is_dir() and not _is_system_file(each.filename)]
        if not members:
            yield Rejected(name, sentence("inputs.zip_empty"))
        left = MAX_EXPANDED
        for member in members:
            inside = plain_name(member.filename)
            content = _read(inside, _member, archive, member)
            if isinstance(content, Rejected):
                yield content
                continue
            left -= len(content)
            if left < 0:
                yield Rejected(name, sentence("inputs.zip_expanded", limit=f"{MAX_EXPANDED // 1_000_000} MB"))
                return
            yield _read(inside, read_picture, content, inside)


def _is_system_file(name: str) -> bool:
    return (
        name.startswith(SYSTEM_FILES[0])
        or name.rpartition("/")[2] in SYSTEM_FILES
        or name.rpartition("/")[2].startswith("._")
    )


def _opened(path: Path, size: int) -> zipfile.ZipFile:
    """The zip file, if it is within the limits."""
    if size > MAX_ZIP:
        raise refusal("zip_too_large", limit=f"{MAX_ZIP // 1_000_000} MB")
    try:
        # Before zipfile makes an object for each of millions. Each has this mark; the number in the file may be wrong.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            marks = itertools.islice(re.finditer(b"PK\x01\x02", content), MAX_MEMBERS + 1)
            many = sum(1 for _ in marks) > MAX_MEMBERS
        if not many:
            return zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises many kinds
        raise refusal("zip_damaged") from error
    raise refusal("zip_many_files", limit=MAX_MEMBERS)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Its bytes, at most one above the limit of a picture; the size in the zip may be wrong."""
    if member.flag_bits & 1:
        raise refusal("zip_encrypted")
    # With other methods Python expands the whole content of some bytes at once.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refusal("zip_method")
    try:
        with archive.open(member) as file:
            content = file.read(MAX_BYTES + 1)
    except Exception as error:
        raise refusal("zip_member") from error
    if content.startswith(ZIP_STARTS):
        raise refusal("zip_nested")
    return content


def _in_table(path: Path, name: str, size: int) -> Iterator[Picture | Rejected]:
    try:
        rows, columns = _table(path, size)
    except BadInput as error:
        yield Rejected(name, str(error))
        return
    if not rows:
        yield Rejected(name, sentence("inputs.csv_empty"))
    for number, row in rows[:MAX_ROWS]:
        cells = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        galaxy = plain_name(cells.get("id_str") or cells.get("name") or "") or sentence("inputs.csv_row", row=number)
        yield _read(galaxy, _of_row, cells, number, galaxy)
    if len(rows) > MAX_ROWS:
        yield Rejected(name, sentence("inputs.csv_many_rows", limit=MAX_ROWS))


def _table(path: Path, size: int) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """The rows that are not empty, with their numbers in the file, and the names of the columns."""
    if size > MAX_TABLE:
        raise refusal("csv_too_large", limit=f"{MAX_TABLE // 1_000_000} MB", rows=MAX_ROWS)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        first, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (OSError, ValueError, csv.Error) as error:  # ValueError: not UTF-8, or no row
        raise refusal("csv_text") from error
    columns = [column.strip().lower() for column in first]
    if not {"ra", "dec"} <= set(columns):
        raise refusal("csv_url" if "url" in columns else "csv_columns")
    return [(number, row) for number, row in enumerate(rows, 2) if any(cell.strip() for cell in row)], columns


def _of_row(cells: dict[str, str], number: int, name: str) -> Picture:
    degrees = []
    for column, parsed in [("ra", cutouts.right_ascension), ("dec", cutouts.declination)]:
        try:
            degrees.append(parsed(cells.get(column, "")))
        except BadInput as error:
            raise refusal("csv_cell", row=number, column=column, wrong=error) from error
    return cutouts.cutout(*degrees, name=name)
