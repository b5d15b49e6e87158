"""The pictures of many galaxies from tiles on disk: each tile is opened once, and gives the galaxies that it shows."""

from __future__ import annotations

import io
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_galaxy.cutouts.answers import fits_file
from hf_galaxy.cutouts.folder import CutoutFolder
from hf_galaxy.cutouts.positions import Galaxy
from hf_galaxy.cutouts.services import Format
from hf_galaxy.cutouts.tiles import Tile, opened
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.errors import BadInput
from hf_galaxy.progress import progress

logger = logging.getLogger(__name__)
WRITERS, MOST_WAITING = 4, 64  # threads that write files, and files that wait for them
MOST_MISSING = 0.5  # share of the pixels without a value, above which there is no picture


@dataclass(frozen=True)
class Form:
    """How cutouts become files.

    Attributes:
        format: FITS keeps the pixels and values of the tile; a JPEG is stretched by `data.pictures.Rendering`.
        bands: from blue to red; for the header of FITS files.
        size: side of a JPEG in pixels.
    """

    format: Format
    bands: tuple[str, ...]
    size: int

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            BadInput: a JPEG would have two or more than three bands.
        """
        if self.format == "jpg" and len(self.bands) not in (0, 1, 3):
            raise BadInput("--bands: a JPEG has one band, or three from blue to red; --format fits takes any number")

    def file(self, tile: Tile, galaxy: Galaxy, places: Sequence[np.ndarray]) -> tuple[bytes, float]:
        """The file of a galaxy, and the share of its pixels without a value.

        Args:
            places: of its centre, in pixels of each band.

        Raises:
            BadInput: it has no picture, and why.
        """
        cuts = [image.cut(galaxy.field, place) for image, place in zip(tile.images, places, strict=True)]
        bands, headers = zip(*cuts, strict=True)
        if len({each.shape for each in bands}) > 1:
            raise BadInput("the bands of its tile have pixels of different sizes")
        values = np.stack(bands) if len(bands) > 1 else bands[0]
        finite = values[np.isfinite(values)]
        missing = 1 - finite.size / values.size
        if missing > MOST_MISSING:
            raise BadInput(f"{missing:.0%} of the pixels of its field have no values")
        if finite.min() == finite.max():  # as where a mosaic has no exposure
            raise BadInput(f"the values in its field are all {finite[0]:g}")
        if self.format == "fits":
            return fits_file(values, headers[0], self.bands), missing
        return self._jpeg(values), missing

    def _jpeg(self, values: np.ndarray) -> bytes:
        from PIL import Image

        picture = Rendering().decode(fits_file(values)).pixels
        file = io.BytesIO()
        # 4:4:4: blue knots are small
        picture.resize((self.size, self.size), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95, subsampling=0)
        return file.getvalue()


class Cutting:
    """The work of cutting galaxies out of tiles.

    Of overlapping tiles, the one with most values in the field of a galaxy gives it; of equal ones the first.

    Args:
        galaxies: to cut out.
        form: of their files.
        folder: where they go.
    """

    def __init__(self, galaxies: Sequence[Galaxy], form: Form, folder: CutoutFolder) -> None:
        from astropy.coordinates import SkyCoord

        self.galaxies, self.form, self.folder = galaxies, form, folder
        ra, dec = (np.array([getattr(galaxy.field, name) for galaxy in galaxies]) for name in ("ra", "dec"))
        self.places = SkyCoord(ra, dec, unit="deg")
        self.vectors = self.places.cartesian.xyz.value.T
        self.missing = np.full(len(galaxies), np.inf)  # share without values, of the best cutout of each so far
        self.reasons: dict[int, str] = {}

    def run(self, tiles: Sequence[tuple[Path, ...]]) -> dict[str, str]:
        """Open each tile, and cut out and save the galaxies on it.

        Args:
            tiles: the files of each, as of `tiles.tile_files`.

        Returns:
            Galaxy -> why it has no picture.

        Raises:
            OSError: a file cannot be written.
        """
        unreadable = []
        for files in progress(tiles, desc="cutouts", unit=" tiles"):
            try:
                with opened(files) as tile:
                    self._cut(tile)
            except BadInput as error:
                unreadable.append(str(error))
        if unreadable:
            logger.warning("%d tiles are left out, such as %s", len(unreadable), unreadable[0])
        in_part = np.isfinite(self.missing) & (self.missing > 0)
        for index in np.flatnonzero(in_part).tolist():  # now no tile has more of them
            self.folder.record(self.galaxies[index], float(self.missing[index]))
        nowhere = np.flatnonzero(np.isinf(self.missing)).tolist()
        return {self.galaxies[index].id_str: self.reasons.get(index, "no tile shows its place") for index in nowhere}

    def _cut(self, tile: Tile) -> None:
        """Cut galaxies out of a tile, unless one before has as much of them; whole ones are recorded, as none has more."""
        cosine = np.cos(np.radians(min(180, 1.01 * tile.radius)))
        near = np.flatnonzero((self.vectors @ tile.centre >= cosine) & (self.missing > 0))
        if not len(near):
            return
        pixels = tile.pixels(self.places[near])
        shown = tile.shows(pixels)
        written: deque[Future[None]] = deque()
        with ThreadPoolExecutor(WRITERS) as writers:  # a disk takes its time to say that a file is safe
            for index, *own in zip(near[shown].tolist(), *(each[shown] for each in pixels), strict=True):
                try:
                    content, missing = self.form.file(tile, self.galaxies[index], own)
                except BadInput as error:
                    self.reasons[index] = str(error)
                    continue
                if missing < self.missing[index]:
                    self.missing[index] = missing
                    written.append(writers.submit(self._write, index, content, missing))
                if len(written) > MOST_WAITING:
                    written.popleft().result()
        for each in written:
            each.result()

    def _write(self, index: int, content: bytes, missing: float) -> None:
        self.folder.save(self.galaxies[index], content)
        if missing == 0:
            self.folder.record(self.galaxies[index], missing)
