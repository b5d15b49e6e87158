"""Files of a visitor -> pictures, one after the other: single ones, those in zip files, and those of places that a CSV names.

Nothing in a zip is extracted, so that no name in it is a place on the disk.
"""

import csv
import io
import itertools
import mmap
import re
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cutouts
from hf_galaxy.errors import BadInput
from picture import MOST_BYTES, Picture, plain_name, read_picture, refusal
from text import say

MOST_PICTURES, MOST_SECONDS = 500, 300  # of one call
MOST_ZIP, MOST_EXPANDED = 100_000_000, 200_000_000  # bytes of a zip file, and of all that is read of it
MOST_MEMBERS = 2_000  # of a zip: with folders, and a Mac's notes on each file
MOST_TABLE, MOST_ROWS = 1_000_000, 50  # bytes of a CSV, and galaxies in it
ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # the latter without files
NOTES = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Refused:
    """A file, or a row of a table, that became no picture.

    Attributes:
        name: as of a Picture.
        reason: in words for the visitor.
    """

    name: str
    reason: str


def read_pictures(files: Iterable[str | Path]) -> Iterator[Picture | Refused]:
    """The pictures in these files in their order, each read when its turn comes; what is none stops no other.

    Args:
        files: of pictures; zip files of them; and CSV files with columns `ra` and `dec`, and perhaps `id_str` or `name`, whose
            pictures come from the Legacy Surveys (`cutouts.cutout`).
    """
    found, spent = itertools.chain.from_iterable(map(_in_file, files)), 0.0
    for number in itertools.count():
        start = time.monotonic()
        picture = next(found, None)
        spent += time.monotonic() - start
        if picture is None:
            return
        if number == MOST_PICTURES:
            break
        yield picture
        if spent > MOST_SECONDS:
            yield Refused("", say("inputs.many_seconds", limit=MOST_SECONDS))
            return
    yield Refused("", say("inputs.many_files", limit=MOST_PICTURES))


def _in_file(file):
    path = Path(file)
    name = plain_name(path.name)
    try:
        with path.open("rb") as opened:
            start = opened.read(4)
        size = path.stat().st_size
    except (OSError, ValueError):  # ValueError: no path at all
        yield Refused(name, say("inputs.gone"))
        return
    if start in ZIP_STARTS:
        yield from _in_zip(path, name, size)
    elif name.lower().endswith(".csv"):
        yield from _in_table(path, name, size)
    else:
        yield _read(name, read_picture, path)


def _read(name, function, *arguments):
    """The picture that a function gives, or why it does not."""
    try:
        return function(*arguments)
    except BadInput as error:
        return Refused(name, str(error))


def _in_zip(path, name, size):
    try:
        archive = _opened(path, size)
    except BadInput as error:
        yield Refused(name, str(error))
        return
    with archive:
        members = [each for each in archive.infolist() if not each.is_dir() and not _is_note(each.filename)]
        if not members:
            yield Refused(name, say("inputs.zip_empty"))
        left = MOST_EXPANDED
        for member in members:
            inside = plain_name(member.filename)
            content = _read(inside, _member, archive, member)
            if isinstance(content, Refused):
                yield content
                continue
            left -= len(content)
            if left < 0:
                yield Refused(name, say("inputs.zip_expanded", limit=f"{MOST_EXPANDED // 1_000_000} MB"))
                return
            yield _read(inside, read_picture, content, inside)


def _is_note(name):
    return name.startswith(NOTES[0]) or name.rpartition("/")[2] in NOTES or name.rpartition("/")[2].startswith("._")


def _opened(path, size):
    """The zip file, if it has no more members than it may."""
    if size > MOST_ZIP:
        raise refusal("zip_too_large", limit=f"{MOST_ZIP // 1_000_000} MB")
    try:
        # Before zipfile makes an object of each of millions. Each has this mark; the number that the file gives may lie.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            marks = itertools.islice(re.finditer(b"PK\x01\x02", content), MOST_MEMBERS + 1)
            many = sum(1 for _ in marks) > MOST_MEMBERS
        if not many:
            return zipfile.ZipFile(path)
    except Exception as error:  # zips raise many kinds; each means that the file is no good
        raise refusal("zip_damaged") from error
    raise refusal("zip_many_files", limit=MOST_MEMBERS)


def _member(archive, member):
    """Its bytes, no more than one above what a picture may have, whatever it says of its size."""
    if member.flag_bits & 1:
        raise refusal("zip_encrypted")
    # Of other methods Python expands all that some bytes hold at once.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refusal("zip_method")
    try:
        with archive.open(member) as file:
            content = file.read(MOST_BYTES + 1)
    except Exception as error:
        raise refusal("zip_member") from error
    if content.startswith(ZIP_STARTS):
        raise refusal("zip_nested")
    return content


def _in_table(path, name, size):
    try:
        rows, columns = _table(path, size)
    except BadInput as error:
        yield Refused(name, str(error))
        return
    if not rows:
        yield Refused(name, say("inputs.csv_empty"))
    for number, row in rows[:MOST_ROWS]:
        cells = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        galaxy = plain_name(cells.get("id_str") or cells.get("name") or "") or say("inputs.csv_row", row=number)
        yield _read(galaxy, _of_row, cells, number, galaxy)
    if len(rows) > MOST_ROWS:
        yield Refused(name, say("inputs.csv_many_rows", limit=MOST_ROWS))


def _table(path, size):
    """The rows that are not empty with their numbers in the file, and the names of the columns."""
    if size > MOST_TABLE:
        raise refusal("csv_too_large", limit=f"{MOST_TABLE // 1_000_000} MB", rows=MOST_ROWS)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        first, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (OSError, ValueError, csv.Error) as error:  # ValueError: not UTF-8, or no row at all
        raise refusal("csv_text") from error
    columns = [column.strip().lower() for column in first]
    if not {"ra", "dec"} <= set(columns):
        raise refusal("csv_url" if "url" in columns else "csv_columns")
    return [(number, row) for number, row in enumerate(rows, 2) if any(cell.strip() for cell in row)], columns


def _of_row(cells, number, name):
    degrees = []
    for column, parsed in [("ra", cutouts.right_ascension), ("dec", cutouts.declination)]:
        try:
            degrees.append(parsed(cells.get(column, "")))
        except BadInput as error:
            raise refusal("csv_cell", row=number, column=column, wrong=error) from error
    return cutouts.cutout(*degrees, name=name)
