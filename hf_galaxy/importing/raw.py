"""What holds galaxies but is no published dataset: which kind it is, and its rows."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hf_galaxy.importing.folders import Contents, is_published
from hf_galaxy.importing.loaded import LOADERS, loaded_rows, saved_rows
from hf_galaxy.importing.picture_folders import folder_rows
from hf_galaxy.importing.tables import is_table, open_table
from hf_galaxy.progress import log_once

if TYPE_CHECKING:
    from hf_galaxy.data.pictures import Rendering
    from hf_galaxy.importing.catalogues import Catalogue
    from hf_galaxy.importing.dataset_rows import DatasetRows
    from hf_galaxy.importing.reading import Reading

logger = logging.getLogger(__name__)


class Raw(NamedTuple):
    """Rows to import, and the split of each if it is given."""

    source: Catalogue | DatasetRows
    splits: Sequence[str] | None = None

    @classmethod
    def of_rows(cls, rows: DatasetRows) -> Raw:
        """Rows of the datasets library; how they are read is logged once."""
        log_once(logger, str(rows))
        return cls(rows, rows.splits)

    def rendered(self, rendering: Rendering) -> Raw:
        """The same rows, whose files become pictures so."""
        return self._replace(source=self.source.rendered(rendering))


def raw_galaxies(name: str, reading: Reading) -> Raw | None:
    """The rows of what is no published dataset; None if it is one, or there is no such file or folder.

    Args:
        name: of a table of galaxies, of a folder, or of a dataset on the Hub.
        reading: what its columns and pictures are.

    Raises:
        BadInput: it cannot be read.
    """
    path = Path(name)
    if path.is_dir():
        rows = _in_folder(name, path, reading)
    elif path.is_file() and zipfile.is_zipfile(path):
        rows = folder_rows(name, Contents.of(path, fluxes=reading.bands is not None), reading)
    elif is_table(name):
        return Raw(open_table(name, reading))
    elif path.is_file() and path.suffix in LOADERS:
        rows = loaded_rows(name, path, reading)
    else:
        return None
    return Raw.of_rows(rows) if rows else None


def holds_its_pictures(name: str) -> bool:
    """Whether a dataset has its pictures itself, as published ones, folders and zips of pictures and those of the Hub do."""
    path = Path(name)
    if path.is_dir():
        contents = Contents.of(path)
        return not contents.is_saved and (not contents.holds_rows or _has_published(path, contents))
    return zipfile.is_zipfile(path) if path.is_file() else not is_table(name)


def _has_published(path: Path, contents: Contents) -> bool:
    return any(is_published(path / file) for file in contents.rows if file.endswith(".parquet"))


def _in_folder(name: str, path: Path, reading: Reading) -> DatasetRows | None:
    contents = Contents.of(path, fluxes=reading.bands is not None)
    if contents.is_saved:
        return saved_rows(name, contents, reading)
    if not contents.holds_rows:
        return folder_rows(name, contents, reading)
    asked = reading.image_column or reading.id_column
    return None if not asked and _has_published(path, contents) else loaded_rows(name, path, reading)
