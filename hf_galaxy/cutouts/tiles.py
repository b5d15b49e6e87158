"""Tiles of a survey on disk: which files belong together, and what part of the sky they show. Each file is opened once."""

from __future__ import annotations

import glob
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_galaxy.cutouts.services import Field
from hf_galaxy.data.packed_fits import check_counts, image_values
from hf_galaxy.data.pictures import NOT_SCIENCE
from hf_galaxy.errors import BadInput

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

logger = logging.getLogger(__name__)
SUFFIXES = re.compile(r".*\.(fits|fit|fts)(\.(fz|gz))?", re.IGNORECASE)
WORD_ENDS = re.compile(r"[-_./\\]")  # in the names of files
LARGEST_FIELD = 4  # times the pixels of a tile: more than half of a larger one would be missing anyway


def tile_files(source: str, bands: tuple[str, ...]) -> list[tuple[Path, ...]]:
    """The tiles, each with a file for each band.

    The files of a tile have the same path, but for a word of it that is the band: tile-7-g.fits and tile-7-r.fits. Files of
    weights, masks and the like, by their names, are no tiles.

    Args:
        source: a folder, with the folders in it; or a pattern such as tiles/*-image-*.fits.fz.
        bands: in the order of the cutouts; (): every file is a tile of its own.

    Raises:
        BadInput: there is no tile.
    """
    folder = Path(source)
    found = sorted(folder.rglob("*") if folder.is_dir() else map(Path, glob.glob(source, recursive=True)))
    files = [file for file in found if SUFFIXES.fullmatch(file.name) and not file.name.startswith(".")]
    if not files:
        raise BadInput(f"--survey files:{source}: there is no FITS file")
    science = [file for file in files if not any(map(NOT_SCIENCE.fullmatch, WORD_ENDS.split(file.name)))]
    if len(science) < len(files):
        logger.info("%d files of weights, masks and the like are no tiles, by their names", len(files) - len(science))
    if not bands:
        if len(science) > 1:
            logger.info("each of %d files is a tile of its own; --bands joins those of several bands", len(science))
        return [(file,) for file in science]
    groups: dict[tuple[str, ...], dict[str, Path]] = {}
    for file in science:
        if named := _band_of(file, bands):
            band, key = named
            groups.setdefault(key, {})[band] = file
    for band in bands:
        if not any(band in group for group in groups.values()):
            raise BadInput(
                f"--survey files:{source}: no file has the band {band} as a word of its name (tile-{band}.fits)"
            )
    if others := len(science) - sum(map(len, groups.values())):
        logger.info("%d files have none of the bands %s in their names, and are left out", others, " ".join(bands))
    whole = {key: group for key, group in groups.items() if len(group) == len(bands)}
    if len(whole) < len(groups):
        logger.warning(
            "%d tiles lack a file of one of the bands %s, and are left out", len(groups) - len(whole), " ".join(bands)
        )
    if not whole:
        raise BadInput(f"--survey files:{source}: no tile has a file of each of the bands {' '.join(bands)}")
    return [tuple(whole[key][band] for band in bands) for key in sorted(whole)]


def _band_of(file: Path, bands: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
    """The band of a file, and the words of its path without it; None if it has none."""
    words = WORD_ENDS.split(str(file))
    places = [place for place, word in enumerate(words) if word in bands]
    if not places:
        return None
    return words[places[-1]], (*words[: places[-1]], "", *words[places[-1] + 1 :])


@dataclass(frozen=True, eq=False)
class Image:
    """The image in one file of a tile, open.

    Attributes:
        values: (H, W).
        wcs: where its pixels are in the sky.
        header: the same for a FITS file, with distortions.
        scales: (2,) arcseconds per pixel, in x and y.
    """

    values: np.ndarray
    wcs: Any
    header: Any
    scales: np.ndarray

    def cut(self, field: Field, place: np.ndarray) -> tuple[np.ndarray, Any]:
        """The pixels of a field, NaN where it is outside of the image, and a header with their WCS.

        Args:
            place: (2,) x and y of its centre in pixels.

        Raises:
            BadInput: the file is damaged.
        """
        from astropy.nddata import Cutout2D

        with np.errstate(all="ignore"):
            sides = np.maximum(1, np.rint(field.arcsec / self.scales))
        if not sides.prod() <= LARGEST_FIELD * self.values.size:  # nor if a header says that a pixel has no size
            raise BadInput(f"its field is more than {LARGEST_FIELD} times as large as its tile")
        width, height = sides.astype(int)
        try:
            cut = Cutout2D(self.values, tuple(place), (height, width), mode="partial", fill_value=np.nan)
        except Exception as error:  # astropy raises many kinds
            raise BadInput(f"its tile cannot be read ({' '.join(str(error).split())})") from error
        header = self.header.copy()
        for axis, (first, start) in enumerate(zip(cut.origin_original, cut.slices_cutout[::-1], strict=True), 1):
            header[f"CRPIX{axis}"] = header.get(f"CRPIX{axis}", 0.0) - (first - start.start)
        return cut.data.astype(np.float32), header


@dataclass(frozen=True, eq=False)
class Tile:
    """A tile, open.

    Attributes:
        name: of its first file.
        images: one for each band.
        centre: (3,) unit vector to its middle.
        radius: angle from there to its farthest corner, in degrees.
    """

    name: str
    images: tuple[Image, ...]
    centre: np.ndarray
    radius: float

    def pixels(self, places: SkyCoord) -> list[np.ndarray]:
        """The x and y of places on the image of each band: for each (N, 2).

        Raises:
            BadInput: the WCS of an image has no pixels for them.
        """
        try:
            return [np.stack(image.wcs.world_to_pixel(places), axis=-1) for image in self.images]
        except Exception as error:  # astropy raises many kinds
            raise BadInput(f"{self.name}: its WCS is of no use ({' '.join(str(error).split())})") from error

    def shows(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """(N,) bool: whether places are on the images of all bands.

        Args:
            pixels: as of `pixels`.
        """
        ends = [np.array(image.values.shape[::-1]) - 0.5 for image in self.images]
        inside = [((each >= -0.5) & (each <= end)).all(axis=1) for each, end in zip(pixels, ends, strict=True)]
        return np.logical_and.reduce(inside)


@contextmanager
def opened(files: Sequence[Path]) -> Iterator[Tile]:
    """Open a tile; no pixel is read.

    Raises:
        BadInput: a file has no image with a WCS.
    """
    with ExitStack() as stack:
        images = tuple(stack.enter_context(_image(file)) for file in files)
        try:
            circle = _circle(images[0])
        except Exception as error:  # astropy raises many kinds
            raise BadInput(f"{files[0]}: its WCS is of no use ({' '.join(str(error).split())})") from error
        yield Tile(str(files[0]), images, *circle)


@contextmanager
def _image(file: Path) -> Iterator[Image]:
    """The first image of two axes with a WCS in a file."""
    from astropy.io import fits

    with ExitStack() as stack, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="astropy")  # of oddities in headers
        try:
            check_counts(file)
            hdus = stack.enter_context(fits.open(file, memmap=True, do_not_scale_image_data=True))
            image = next(filter(None, (_of_hdu(hdu, place, file) for place, hdu in enumerate(hdus))), None)
        except Exception as error:  # astropy raises many kinds
            raise BadInput(f"{file}: cannot be read as a FITS file ({' '.join(str(error).split())})") from error
        if image is None:
            raise BadInput(f"{file}: has no image of two axes with a WCS")
        yield image


def _of_hdu(hdu: Any, place: int, file: Path) -> Image | None:
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    if not hdu.is_image or len(hdu.shape) != 2 or NOT_SCIENCE.fullmatch(hdu.name):
        return None
    wcs = WCS(hdu.header)
    if not wcs.has_celestial or wcs.naxis != 2:
        return None
    return Image(_values(hdu, place, file), wcs, wcs.to_header(relax=True), proj_plane_pixel_scales(wcs) * 3600)


def _values(hdu: Any, place: int, file: Path) -> np.ndarray:
    """The pixels: mapped into memory where the file has them as they are; else all of them, once, which is faster than parts."""
    header = hdu.header
    scale, zero, is_whole = header.get("BSCALE", 1), header.get("BZERO", 0), header["BITPIX"] > 0
    stored, blank = image_values(hdu, place, file, scaled=False), header.get("BLANK")
    if (scale, zero) == (1, 0) and not is_whole:
        return stored
    values = (stored * np.float64(scale) + zero).astype(np.float32)
    if is_whole and blank is not None:
        values[stored == blank] = np.nan
    return values


def _circle(image: Image) -> tuple[np.ndarray, float]:
    """The middle of an image as a unit vector, and the angle to its farthest corner in degrees."""
    height, width = image.values.shape
    corners = image.wcs.pixel_to_world([-0.5, -0.5, width - 0.5, width - 0.5], [-0.5, height - 0.5, -0.5, height - 0.5])
    middle = image.wcs.pixel_to_world((width - 1) / 2, (height - 1) / 2).icrs
    return middle.cartesian.xyz.value, float(corners.icrs.separation(middle).deg.max())
