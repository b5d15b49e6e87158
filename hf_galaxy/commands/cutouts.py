"""Make a picture of every galaxy of a catalogue of positions, from survey servers or from FITS tiles on disk.

    hf-galaxy cutouts positions.csv --survey legacy-dr10 --fov-arcsec 60 --contact me@example.org --out data/cutouts
    hf-galaxy cutouts positions.fits --survey files:tiles --bands g r z --fov-column radius --out data/cutouts
    hf-galaxy finetune --dataset data/cutouts/cutouts.csv --images data/cutouts/images ...

The same command goes on where it was interrupted, and tries those galaxies again that have no picture.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hf_galaxy.command_line import Command, OutputPath
from hf_galaxy.cutouts.services import Format
from hf_galaxy.errors import BadInput

if TYPE_CHECKING:
    from hf_galaxy.cutouts.folder import CutoutFolder
    from hf_galaxy.cutouts.positions import Galaxy, Positions

logger = logging.getLogger(__name__)
PIXELS = 256  # by default, where the pixels are not those of the survey
FILES = "files:"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Make a picture of every galaxy of a catalogue. Every row is checked before the first picture is asked for."""

    catalogue: Annotated[Path, tyro.conf.Positional]
    """Table with a row for each galaxy: CSV (with commas, semicolons or tabs; also .gz), Parquet, FITS, ECSV or VOTable."""
    survey: str
    """Where the pictures come from: legacy-dr10, legacy-dr9, sdss, panstarrs, hips:ID such as hips:CDS/P/DSS2/color, or files:DIR."""
    out: OutputPath
    """Folder to write: images/, cutouts.csv, and failed.csv with what has no picture and why."""
    fov_arcsec: float | None = None
    """Side of the field of every picture, in arcseconds."""
    fov_column: str | None = None
    """Column of a radius in arcseconds, instead: the field of each galaxy is a multiple of it."""
    fov_factor: float = 8.5
    """The multiple; 8.5 times the radius with 90 % of the light is the frame of Galaxy Zoo DECaLS."""
    fov_min: float = 10
    """Side of the smallest field in arcseconds, with --fov-column."""
    fov_max: float = 600
    """Side of the largest field in arcseconds, with --fov-column."""
    size: int | None = None
    """Side of the pictures in pixels; 256 if not given. FITS files from tiles and of panstarrs keep the pixels of the survey."""
    bands: tuple[str, ...] = ()
    """Bands from blue to red, such as g r z; by default those that the survey shows. With files:DIR, words in the names of the files."""
    format: Format = "jpg"
    """JPEG, with colours as the survey shows them, or FITS, with the values of each band."""
    id_column: str | None = None
    """Column of the galaxies' names; by default it is guessed, and the guess is said. Without one the positions are names."""
    ra_column: str | None = None
    """Column of right ascensions, in degrees or as 12:18:57.6; by default it is guessed, and the guess is said."""
    dec_column: str | None = None
    """Column of declinations, in degrees or as -47:18:14; by default it is guessed, and the guess is said."""
    contact: str = ""
    """Your e-mail address or page, for the hosts of the server: they can write to you instead of locking you out."""
    per_second: float = 5
    """The most requests in a second."""
    parallel: int = 4
    """Requests at the same time."""
    retries: int = 4
    """Further tries where a server is busy, fails, or sends something else than the picture; the wait doubles from try to try."""


def main(settings: Cut) -> None:
    """Check everything, make the pictures that are not there, and write the tables."""
    from hf_galaxy.cutouts.fetching import GivenUp
    from hf_galaxy.cutouts.folder import FAILED, CutoutFolder
    from hf_galaxy.cutouts.positions import FieldSize, read_positions

    size = FieldSize(settings.fov_arcsec, settings.fov_column, settings.fov_factor, settings.fov_min, settings.fov_max)
    make = _from_tiles(settings) if settings.survey.startswith(FILES) else _from_server(settings)
    columns = settings.id_column, settings.ra_column, settings.dec_column
    positions = read_positions(settings.catalogue, size, settings.size or PIXELS, settings.format, columns)
    request = {
        "survey": _source(settings.survey),
        "format": settings.format,
        "size": settings.size or PIXELS,
        "bands": settings.bands,
    }
    with CutoutFolder.opened(settings.out, request) as folder:
        todo = [galaxy for galaxy in positions.galaxies if not folder.has(galaxy)]
        if len(todo) < len(positions.galaxies):
            done = len(positions.galaxies) - len(todo)
            logger.info("%s: %s of %s pictures are there", settings.out, f"{done:,}", f"{len(positions.galaxies):,}")
        try:
            failures = make(todo, folder) if todo else {}
        except GivenUp as error:
            folder.write_tables(positions, error.failures)
            raise BadInput(f"{error}; when the server is there again, the same command goes on") from error
        folder.write_tables(positions, failures)
        print(summary(settings.out, positions, folder, failures))
        if failures:
            print(f"{settings.out / FAILED}: why the others have none; the same command tries them again")


def summary(out: Path, positions: Positions, folder: CutoutFolder, failures: Mapping[str, str]) -> str:
    """How many galaxies have a picture, and how many of these lack pixels."""
    from hf_galaxy.cutouts.folder import TABLE

    number = len(positions.galaxies)
    done = [galaxy for galaxy in positions.galaxies if galaxy.id_str not in failures]
    text = f"{out / TABLE}: {len(done):,} of {number:,} galaxies have a picture"
    if partial := sum((folder.missing(galaxy) or 0) > 0 for galaxy in done):
        text += f"; {partial:,} of them have pixels without a value (column missing)"
    return text


Make = Callable[["list[Galaxy]", "CutoutFolder"], Mapping[str, str]]


def _from_server(settings: Cut) -> Make:
    """What asks a survey server."""
    from hf_galaxy.cutouts import fetching, services
    from hf_galaxy.cutouts.polite import Client

    server = services.service(settings.survey, settings.format, settings.bands)
    if isinstance(server, services.PanStarrs) and settings.format == "fits":
        _check_own_pixels(settings)
    if not 1 <= settings.parallel <= 64:
        raise BadInput("--parallel must be from 1 to 64")
    least, most = server.sides
    if not least <= (settings.size or PIXELS) <= most:
        raise BadInput(f"--size {settings.size}: this server makes pictures with sides from {least} to {most} pixels")
    client = Client(settings.per_second, settings.retries, settings.contact)
    return lambda galaxies, folder: fetching.fetch(galaxies, server, client, folder, settings.parallel)


def _from_tiles(settings: Cut) -> Make:
    """What cuts galaxies out of tiles."""
    from hf_galaxy.cutouts.cutting import Cutting, Form
    from hf_galaxy.cutouts.tiles import tile_files

    if settings.format == "fits":
        _check_own_pixels(settings)
    if not 16 <= (settings.size or PIXELS) <= 3000:
        raise BadInput(f"--size {settings.size}: pictures have sides from 16 to 3000 pixels")
    form = Form(settings.format, settings.bands, settings.size or PIXELS)
    tiles = tile_files(settings.survey.removeprefix(FILES), settings.bands)
    return lambda galaxies, folder: Cutting(galaxies, form, folder).run(tiles)


def _source(survey: str) -> str:
    """The survey, with the whole path if it is a folder."""
    return f"{FILES}{Path(survey.removeprefix(FILES)).resolve()}" if survey.startswith(FILES) else survey


def _check_own_pixels(settings: Cut) -> None:
    if settings.size is not None:
        raise BadInput(
            "--size: these FITS files keep the pixels of the survey; leave it out, or resample them afterwards"
        )


command = Command(Cut, main)

if __name__ == "__main__":
    command()
