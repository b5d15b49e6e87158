"""A table of galaxies as a dataset: a file such as survey.csv, and a folder or zip of pictures."""

from __future__ import annotations

import gzip
import logging
from dataclasses import replace
from pathlib import Path

from hf_galaxy.data.packed_fits import check_counts
from hf_galaxy.data.picture_files import FilesOfBands, PictureFiles, Pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.catalogue_table import CatalogueTable
from hf_galaxy.importing.catalogues import Catalogue, CatalogueOptions
from hf_galaxy.importing.reading import Reading
from hf_galaxy.importing.table_file import holds_pictures
from hf_galaxy.importing.table_guess import DIGEST, Guess, guess, split_names_of
from hf_galaxy.progress import log_once

SUFFIXES = (
    ".csv", ".tsv", ".txt", ".dat", ".tab", ".parquet", ".pq", ".ecsv", ".vot", ".votable", ".xml", ".fits", ".fit", ".fts",
)  # fmt: skip
PARQUET = (".parquet", ".pq")
FITS = (".fits", ".fit", ".fts")
FITS_BLOCK, EMPTY_PRIMARY = 2880, b"NAXIS   =                    0"
# Where people keep the pictures of a table: beside it.
FOLDERS = ("images", "pictures", "cutouts", "image", "imgs", "jpg", "png", "fits", "data")
ZIPS = ("images.zip", "pictures.zip", "cutouts.zip")

logger = logging.getLogger(__name__)


def is_table(name: str) -> bool:
    """Whether it is the file of a table, or would be if it were there; a FITS file may also be a picture, and a Parquet file hold pictures."""
    suffix = Path(Path(name).name.lower().removesuffix(".gz")).suffix
    if suffix not in SUFFIXES or Path(name).is_dir():
        return False
    if suffix in PARQUET:
        return not holds_pictures(Path(name))
    return suffix not in FITS or _holds_table(name)


def _holds_table(name: str) -> bool:
    try:
        with gzip.open(name) if name.lower().endswith(".gz") else open(name, "rb") as file:
            if EMPTY_PRIMARY not in file.read(FITS_BLOCK):
                return False  # as most pictures, of which there may be many
        from astropy.io import fits

        check_counts(Path(name))
        with fits.open(name) as hdus:  # a compressed picture counts as a picture
            pictures = any(hdu.is_image and hdu.shape for hdu in hdus)
            return not pictures and any(isinstance(hdu, fits.BinTableHDU | fits.TableHDU) for hdu in hdus)
    except Exception:  # astropy raises many kinds, or is missing; whoever opens the file says why
        return False


def open_table(name: str, reading: Reading) -> Catalogue:
    """The galaxies of a table, each with its picture; what its columns hold is guessed, and said once.

    Args:
        name: a file as `table_file.read_texts` reads it.
        reading: where the pictures are, and what is known of the columns.

    Raises:
        BadInput: names the file, and what to do; or the first row that is wrong, and the number of further ones.
    """
    if reading.config is not None:
        raise BadInput(f"--dataset-config {reading.config}: {name} is a table, which has no configurations")
    path = Path(name)
    table = read_table(path)
    pictures: PictureFiles = Pictures(list(reading.images) if reading.images else _beside(path))
    pictures = FilesOfBands(pictures) if reading.bands else pictures
    return catalogue_of(guess(table, pictures, reading), pictures, reading)


def read_table(path: Path, option: str = "--dataset") -> CatalogueTable:
    """All columns of a table that hold texts or numbers.

    Args:
        option: that names it, for messages.

    Raises:
        BadInput: it cannot be read, or has no rows.
    """
    return CatalogueTable.read_all(path, option)


def catalogue_of(guessed: Guess, pictures: PictureFiles, reading: Reading) -> Catalogue:
    """The checked rows of a table.

    Raises:
        BadInput: as `open_table`.
    """
    options = CatalogueOptions(
        skip_missing=reading.skip_missing, skip_bad=reading.skip_bad_pictures, bands=reading.bands
    )
    catalogue = Catalogue.of(guessed.table, pictures, guessed.columns, guessed.tree, options)
    if guessed.names == DIGEST:
        catalogue = replace(catalogue, split_names=split_names_of(catalogue.ids))
    log_once(logger, guessed.describe(len(catalogue), pictures.place_of(catalogue.files[0])))
    return catalogue


def _beside(path: Path) -> list[Path]:
    """The places near a table where its pictures may be."""
    folders = (path.parent / name for name in FOLDERS)
    zips = (path.parent / name for name in ZIPS)
    root = Path(Path.cwd().anchor)  # for absolute paths
    return [path.parent, *(each for each in folders if each.is_dir()), *(each for each in zips if each.is_file()), root]
