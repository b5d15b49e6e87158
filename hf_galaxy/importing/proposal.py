"""A column map for somebody's table, proposed for editing: what `table_guess` guesses, as the JSON file that publishing reads."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hf_galaxy.data.picture_files import FILES, FilesOfBands, PictureFiles, Pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.files import whole_file
from hf_galaxy.importing.catalogue_table import FILE_NAME, CatalogueTable
from hf_galaxy.importing.column_types import without_missing
from hf_galaxy.importing.guess import plain
from hf_galaxy.importing.reading import VotesReading
from hf_galaxy.importing.table_file import column_names
from hf_galaxy.importing.table_guess import DIGEST, Guess, guess
from hf_galaxy.importing.tables import read_table

MAX_CLASSES = 30
# Columns of few different numbers that are no labels.
COUNTED = ("votes", "count", "total", "number", "num", "split", "fold", "seed")


def is_standard(path: Path) -> bool:
    """Whether a table needs no column map: it has the columns of datasets; also if it cannot be read, which reading it will report."""
    try:
        return {"id_str", "image"} <= set(column_names(path))
    except (OSError, ValueError, BadInput):
        return True


@dataclass(frozen=True)
class Proposal:
    """A proposed column map.

    Attributes:
        columns: the content of the JSON file.
        tree: campaign of the votes, for --tree; None: there are none.
        sentence: what was guessed.
    """

    columns: dict[str, Any]
    tree: str | None
    sentence: str

    @classmethod
    def of(
        cls, path: Path, images: Collection[Path], tree: str | None, bands: tuple[str, ...] | None = None
    ) -> Proposal:
        """The map of a table.

        Args:
            tree: campaign of its votes, if it is known.
            bands: of the fluxes that are published; None: pictures are.

        Raises:
            BadInput: as `table_guess.guess`; or it has no column of names.
        """
        table = read_table(path, "--catalogue")
        pictures: PictureFiles = Pictures(list(images))
        pictures = FilesOfBands(pictures) if bands else pictures
        guessed = guess(table, pictures, VotesReading(tree=(tree,) if tree else None, bands=bands))
        names = guessed.names
        if names == DIGEST:
            names = guessed.picture  # the paths of files are different, too
            if guessed.table[names].duplicated().any():
                raise BadInput(
                    f"--catalogue {path}: no column has a different name for each galaxy; add one, and name it id_str"
                )
        name = guessed.tree.name if guessed.tree else None
        classes = {
            ours: {"column": entry.column, "names": {value: value for value in values}}
            for ours, entry in guessed.columns.metadata.items()
            if (values := _classes(guessed.table, ours, entry.column))
        }
        columns: dict[str, Any] = {"id_str": None if names == FILE_NAME else names, "image": guessed.columns.image}
        columns |= {"votes": guessed.columns.votes} if guessed.columns.votes else {}
        columns |= {"classes": classes} if classes else {}
        metadata = {
            ours: {"column": entry.column, "dtype": entry.dtype}
            for ours, entry in guessed.columns.metadata.items()
            if ours not in classes
        }
        columns |= {"metadata": metadata} if metadata else {}
        return cls(columns, name, _sentence(path, guessed, names, list(classes), name))

    def write(self, path: Path) -> None:
        """Write the JSON file.

        Raises:
            BadInput: it exists already; somebody may have edited it.
        """
        if path.exists():
            raise BadInput(f"{path} exists already: use it with --columns {path}, or remove it for a new proposal")
        with whole_file(path) as partial:
            partial.write_text(json.dumps(self.columns, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _classes(table: CatalogueTable, ours: str, column: str) -> list[str]:
    """The values of a column of labels, sorted; none if it holds no labels, or some cells are empty."""
    if ours in ("ra", "dec") or any(word in plain(column) for word in COUNTED):
        return []
    cells: pd.Series = without_missing(table[column])
    values = cells.unique().tolist()
    if not 2 <= len(values) <= min(MAX_CLASSES, len(cells) // 2) or "" in values:
        return []
    whole = all(value.removeprefix("-").isdecimal() for value in values)
    numbers = not whole and pd.to_numeric(cells, errors="coerce").notna().all()
    return [] if numbers else sorted(values, key=int if whole else str)


def _sentence(path: Path, guessed: Guess, names: str, classes: list[str], tree: str | None) -> str:
    parts = [f"picture: {guessed.columns.image.replace(FILES, ', ')}", f"name: {names}"]
    if guessed.names == DIGEST:
        parts.append("without publication the names are digests of the pictures, and the splits others")
    parts += [f"classes: {', '.join(classes)}"] if classes else []
    parts += [f"votes of {tree}"] if tree else []
    parts += (
        [f"perhaps votes of {', '.join(guessed.votes.campaigns)}: choose with --tree"]
        if guessed.votes.campaigns
        else []
    )
    return f"{path}: {'; '.join(parts)}"
