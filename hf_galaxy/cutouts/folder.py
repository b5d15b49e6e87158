"""The folder of the cutouts of a catalogue, which grows until it is complete, whatever interrupts its writer.

images/        a file for each galaxy
cutouts.csv    the galaxies that have one, as a table for publishing and training
failed.csv     those that have none, and why
request.json   what was asked for, since a folder holds pictures of one kind
.journal       a line for each file that is in place, with what it shows; a file without one is made again
"""

from __future__ import annotations

import csv
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd

from hf_galaxy.cutouts.positions import OWN, Galaxy, Positions
from hf_galaxy.errors import BadInput, unwritable
from hf_galaxy.files import check_new, only_writer_of, remove_partial, whole_file, write_json
from hf_galaxy.plain_json import mapping_in, text_of
from hf_galaxy.safe_text import csv_rows

IMAGES, TABLE, FAILED, REQUEST, JOURNAL = "images", "cutouts.csv", "failed.csv", "request.json", ".journal"


class CutoutFolder:
    """The folder, while it is written; `opened` makes one.

    Args:
        path: of the folder.
        journal: open for appending.
        entries: of the journal, by galaxy.
    """

    def __init__(self, path: Path, journal: IO[bytes], entries: dict[str, dict]) -> None:
        self.path, self.images = path, path / IMAGES
        self._journal, self._entries, self._lock = journal, entries, threading.Lock()
        self._present = _names(self.images)

    @classmethod
    @contextmanager
    def opened(cls, path: Path, request: Mapping[str, object]) -> Iterator[CutoutFolder]:
        """Open a folder for writing, a new one or one of the same request.

        Args:
            request: all that decides on a picture, but its galaxy.

        Raises:
            InUse: another command is writing it.
            BadInput: it holds something else, or it cannot be written.
        """
        path = path.resolve()
        try:
            with only_writer_of(path):
                _check_request(path, dict(request))
                (path / IMAGES).mkdir(parents=True, exist_ok=True)
                remove_partial([*path.glob(".*"), *(path / IMAGES).iterdir()])
                if not (path / REQUEST).exists():
                    write_json(path / REQUEST, dict(request))
                entries = _read_journal(path / JOURNAL, _names(path / IMAGES))
                with open(path / JOURNAL, "ab", buffering=0) as journal:
                    yield cls(path, journal, entries)
        except OSError as error:
            raise unwritable(path, error) from error

    def has(self, galaxy: Galaxy) -> bool:
        """Whether the picture of a galaxy is in place, and shows the place and the field that are asked for now."""
        entry = self._entries.get(galaxy.id_str)
        return entry is not None and _what(galaxy) == _what_of(entry) and galaxy.image in self._present

    def save(self, galaxy: Galaxy, content: bytes) -> None:
        """Write the picture of a galaxy, which is not in place before `record`."""
        with whole_file(self.images / galaxy.image, is_only_writer=True) as partial:
            partial.write_bytes(content)

    def record(self, galaxy: Galaxy, missing: float | None = None) -> None:
        """Note that the picture of a galaxy is in place.

        Args:
            missing: share of its pixels without a value; None: not known.
        """
        entry = {"id_str": galaxy.id_str, "missing": missing} | _what(galaxy)
        with self._lock:
            self._journal.write(f"{json.dumps(entry)}\n".encode())
            self._entries[galaxy.id_str] = entry
            self._present.add(galaxy.image)

    def missing(self, galaxy: Galaxy) -> float | None:
        """The share of the pixels without a value in a picture that is in place."""
        return self._entries[galaxy.id_str]["missing"]

    def write_tables(self, positions: Positions, failures: Mapping[str, str]) -> None:
        """Write cutouts.csv, of the pictures in place, and failed.csv.

        Args:
            failures: galaxy -> why it has no picture.
        """
        done = [self.has(galaxy) for galaxy in positions.galaxies]
        galaxies = [galaxy for galaxy, is_done in zip(positions.galaxies, done, strict=True) if is_done]
        own = pd.DataFrame(
            [(g.id_str, g.image, g.field.ra, g.field.dec, g.field.arcsec, self.missing(g)) for g in galaxies],
            columns=list(OWN),
        )
        cells = positions.cells[done].reset_index(drop=True)
        with whole_file(self.path / TABLE) as partial:
            pd.concat([own, cells], axis=1).to_csv(partial, index=False)
        failed = [galaxy for galaxy in positions.galaxies if galaxy.id_str in failures]
        if not failed:
            (self.path / FAILED).unlink(missing_ok=True)
            return
        with whole_file(self.path / FAILED) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            rows = ([g.id_str, g.field.ra, g.field.dec, g.field.arcsec, failures[g.id_str]] for g in failed)
            csv.writer(file).writerows(csv_rows([("id_str", "ra", "dec", "fov_arcsec", "reason"), *rows]))


def _what(galaxy: Galaxy) -> dict[str, object]:
    """What the picture of a galaxy shows, and its file."""
    field = galaxy.field
    return {"image": galaxy.image, "ra": field.ra, "dec": field.dec, "fov_arcsec": field.arcsec}


def _what_of(entry: Mapping[str, object]) -> dict[str, object]:
    return {name: entry.get(name) for name in ("image", "ra", "dec", "fov_arcsec")}


def _check_request(path: Path, request: dict[str, object]) -> None:
    """Refuse a folder that holds something else than pictures of this request."""
    if not (path / REQUEST).exists():
        if not (path / IMAGES).is_dir():  # a writer that was killed at its first step
            check_new(path)
        return
    try:
        earlier = mapping_in((path / REQUEST).read_bytes())
        other = next((name for name in request if json.dumps(request[name]) != json.dumps(earlier.get(name))), None)
    except ValueError as error:
        raise BadInput(f"{path / REQUEST}: is not what this command writes; choose another --out") from error
    if other:
        raise BadInput(
            f"{path}: holds cutouts with --{other} {_words(earlier.get(other))}, not {_words(request[other])}; "
            "choose another --out, or remove it"
        )


def _words(value: object) -> str:
    return " ".join(map(str, value)) or "as by default" if isinstance(value, list | tuple) else str(value)


def _names(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _read_journal(path: Path, present: set[str]) -> dict[str, dict]:
    """The last entry of each galaxy whose file is there; the journal is written anew if it has other lines."""
    if not path.exists():
        return {}
    lines = path.read_bytes().splitlines(keepends=True)
    try:
        entries = [_entry(line) for line in lines if line.endswith(b"\n")]  # a killed writer leaves part of a line
    except ValueError as error:
        raise BadInput(
            f"{path}: is not what this command writes; remove it, and all pictures are made again"
        ) from error
    kept = {entry["id_str"]: entry for entry in entries}
    kept = {galaxy: entry for galaxy, entry in kept.items() if entry["image"] in present}
    if len(kept) < len(lines):
        with whole_file(path) as partial:
            partial.write_text("".join(f"{json.dumps(entry)}\n" for entry in kept.values()), encoding="utf-8")
    return kept


def _entry(line: bytes) -> dict[str, Any]:
    """A line of the journal.

    Raises:
        ValueError: it is none.
    """
    entry = mapping_in(line)
    for key in ("id_str", "image"):
        text_of(entry, key)
    missing = entry.setdefault("missing", None)
    if missing is not None and not (isinstance(missing, int | float) and 0 <= missing <= 1):
        raise ValueError("its missing is no share")
    return entry
