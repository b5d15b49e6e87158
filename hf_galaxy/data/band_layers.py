"""Files of fluxes in several formats -> their arrays, which are not read yet. Legend: C planes, H and W of a picture."""

from __future__ import annotations

import gzip
import io
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import IO, Any

import numpy as np
from PIL import Image

from hf_galaxy.data.fluxes import arcsec_per_pixel_of
from hf_galaxy.data.hdf5_files import FILTERS, PLANES, hdf5_arrays
from hf_galaxy.data.packed_fits import check_counts, image_values
from hf_galaxy.data.pictures import FITS_START, GZIP_START, MAX_BYTES, kind_of, open_picture
from hf_galaxy.errors import BadInput

HDF5_START, NPY_START, ZIP_START = b"\x89HDF\r\n\x1a\n", b"\x93NUMPY", b"PK\x03\x04"
NPY_HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
MARKED_BITS = ("BAD", "SAT", "NO_DATA", "CR")  # in masks of LSST and HSC; DETECTED marks the galaxies
DO_NOT_USE = 1  # of the DQ of JWST
COLOURS = ("red", "green", "blue")  # so that a dataset of colour pictures says which of them its bands are
MAX_FRAMES = 64  # of a TIFF


@dataclass(frozen=True, eq=False)
class Layer:
    """An array in a file.

    Attributes:
        name: its name in the file, "" if it has none.
        shape: (H, W) or (C, H, W).
        read: gives its values, in any shape that can be reshaped to this one.
        filters: further texts that may name its band.
        planes: names of the planes of (C, H, W); empty: they have none.
        bits: of a mask: those that mark bad pixels; None: unknown.
        scale: side of a pixel in arcsec; None: unknown.
        from_bottom: the first row is the lowest, as in FITS.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Any]
    filters: tuple[str, ...] = ()
    planes: tuple[str, ...] = ()
    bits: int | None = None
    scale: float | None = None
    from_bottom: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """H and W."""
        return self.shape[-2], self.shape[-1]

    @property
    def number(self) -> int:
        """The number of its planes."""
        return math.prod(self.shape[:-2])

    @cached_property
    def values(self) -> np.ndarray:
        """(C, H, W), in the type of the file.

        Raises:
            BadInput: they are no real numbers, or empty, or more than a picture may have.
        """
        if not 0 < math.prod(self.shape) <= (Image.MAX_IMAGE_PIXELS or math.inf):
            raise BadInput(f"an array of shape {self.shape} is empty or too large")
        values = np.asarray(self.read())
        if values.dtype.kind not in "buif":
            raise BadInput(f"{self.name or 'its array'} holds {values.dtype}, no numbers")
        return values.reshape(self.number, *self.size)


def layers_of(content: bytes, bands: int) -> list[Layer]:
    """The arrays of two and three dimensions in a file.

    Args:
        content: of a FITS, npy, npz, HDF5 or safetensors file, or of a picture that Pillow reads; or gzipped.
        bands: number of the bands wanted: where an array has as many columns, and not as many planes, its last axis is the bands.

    Raises:
        BadInput: it has none of these formats, or what it holds cannot be read safely.
        Exception: many kinds, if it is damaged.
    """
    if content.startswith(GZIP_START):
        with gzip.open(io.BytesIO(content)) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise BadInput("is larger than 1 GiB")
    if content.startswith(FITS_START):
        return list(_in_fits(content))
    if content.startswith(NPY_START):
        return list(_in_npy("", content, (), bands))
    if content.startswith(ZIP_START):
        return list(_in_npz(content, bands))
    if content.startswith(HDF5_START):
        return list(_in_hdf5(content, bands))
    if content[8:9] == b"{":  # behind the length of the header
        return list(_in_safetensors(content, bands))
    return list(_in_picture(content))


def _of_array(
    name: str, shape: Sequence[int], read: Callable[[], Any], bands: int, planes: Sequence[str] = (), **more: Any
) -> Iterator[Layer]:
    """The layer of an array without a format that says which axis is which; none if it has not two or three dimensions."""
    shape = tuple(shape)
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) not in (2, 3):
        return
    planes = tuple(planes) if len(shape) == 3 and len(planes) in (shape[0], shape[2]) else ()
    if len(shape) == 3 and shape[0] not in (bands, len(planes)) and shape[2] in (bands, len(planes)):
        yield Layer(
            name, (shape[2], *shape[:2]), lambda: np.moveaxis(np.reshape(read(), shape), -1, 0), planes=planes, **more
        )
        return
    yield Layer(name, shape, read, planes=planes, **more)


def _in_fits(content: bytes) -> Iterator[Layer]:
    from astropy.io import fits

    check_counts(content)
    hdus = fits.open(io.BytesIO(content), memmap=False, uint=False)
    telescope = str(hdus[0].header.get("TELESCOP", ""))
    for place, hdu in enumerate(hdus):
        if not hdu.is_image or len(hdu.shape) < 2 or math.prod(hdu.shape[:-3]) != 1:
            continue
        header, shape = hdu.header, hdu.shape[-3:]
        name = str(header.get("EXTNAME", "")).strip()  # hdu.name is in capitals
        yield Layer(
            name, shape, partial(image_values, hdu, place, content),
            filters=tuple(str(header[key]).strip() for key in FILTERS if key in header),
            planes=_planes_of(header, shape[0]) if len(shape) == 3 else (),
            bits=_bits_of(header, name, telescope), scale=_scale_of(header), from_bottom=True,
        )  # fmt: skip


def _planes_of(header: Mapping[str, Any], number: int) -> tuple[str, ...]:
    """The names of the planes of a FITS cube: BAND0, BAND1, ... or BANDS, as Legacy Surveys writes them, or from BAND1 on."""
    for first in (0, 1):
        keys = [f"BAND{first + i}" for i in range(number)]
        if all(key in header for key in keys):
            return tuple(str(header[key]).strip() for key in keys)
    text = str(header.get("BANDS", ""))
    names = text.replace(",", " ").split()
    return next((tuple(each) for each in (names, text.strip()) if len(each) == number), ())


def _bits_of(header: Mapping[str, Any], name: str, telescope: str) -> int | None:
    """The bits of a mask that mark bad pixels; None: its header does not say what its bits mean."""
    if any(key.startswith("MP_") for key in header):
        known = (header.get(f"MP_{bit}") for bit in MARKED_BITS)
        return sum(1 << place for place in known if isinstance(place, int) and 0 <= place < 63)
    return DO_NOT_USE if telescope.strip().upper() == "JWST" and name.upper().startswith("DQ") else None


def _scale_of(header: Any) -> float | None:
    """Side of a pixel in arcsec by the header's world coordinates; None: it has none, or they cannot be understood."""
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    if "CTYPE1" not in header:
        return None
    try:
        wcs = WCS(header, naxis=2, fix=False)
        if not wcs.has_celestial:
            return None
        scale = 3600 * float(np.sqrt(np.prod(proj_plane_pixel_scales(wcs))))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):  # headers are wrong in many ways
        return None
    return float(f"{scale:.9g}") if 0 < scale < math.inf else None  # without the noise of the last digits


def _in_npy(name: str, content: bytes, planes: Sequence[str], bands: int) -> Iterator[Layer]:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in NPY_HEADERS:
        raise BadInput(f"{name or 'its array'} has fields, not numbers")
    shape, _, dtype = NPY_HEADERS[version](file)
    if dtype.hasobject:
        raise BadInput(f"{name or 'its array'} holds pickled Python objects, which could run any code, not numbers")
    # numpy would make room for what a header only claims.
    if math.prod(shape) * dtype.itemsize > len(content) - file.tell():
        raise BadInput(f"is truncated: {name or 'its array'} has shape {shape} by its header")
    yield from _of_array(name, shape, partial(_loaded, content), bands, planes)


def _in_npz(content: bytes, bands: int) -> Iterator[Layer]:
    members: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        if sum(info.file_size for info in infos) > MAX_BYTES:
            raise BadInput("is larger than 1 GiB")
        members = {info.filename.removesuffix(".npy"): archive.read(info) for info in infos}
    if not members:
        raise BadInput("is a zip without arrays, no npz file")
    planes: tuple[str, ...] = ()
    for name in PLANES:
        if name in members:
            texts = np.load(io.BytesIO(members[name]), allow_pickle=False)
            planes = tuple(map(str, texts)) if texts.dtype.kind == "U" and texts.ndim == 1 else ()
    for name, member in members.items():
        yield from _in_npy(name, member, planes, bands)


def _in_hdf5(content: bytes, bands: int) -> Iterator[Layer]:
    for array, values in hdf5_arrays(content, MAX_BYTES, Image.MAX_IMAGE_PIXELS or MAX_BYTES):
        yield from _of_array(
            array.name, array.shape, partial(_loaded, values), bands, array.planes, filters=array.filters, scale=array.scale
        )  # fmt: skip


def _loaded(content: bytes) -> np.ndarray:
    return np.load(io.BytesIO(content), allow_pickle=False)


def _in_safetensors(content: bytes, bands: int) -> Iterator[Layer]:
    from safetensors.numpy import load

    scale = arcsec_per_pixel_of(content)
    for name, array in load(content).items():
        yield from _of_array(name, array.shape, partial(np.asarray, array), bands, scale=scale)


def _in_picture(content: bytes) -> Iterator[Layer]:
    """The pages of a picture: grey, of any number of bits, or red, green and blue."""
    try:
        picture = open_picture(content)
    except Image.UnidentifiedImageError as error:
        raise BadInput("is neither FITS, npy, npz, HDF5 nor safetensors, nor a picture that Pillow reads") from error
    if kind_of(content) == "png16rgb":
        raise BadInput("is a PNG with colours of 16 bits, of which only 8 could be read; save it as FITS or npy")

    def grey(number: int) -> np.ndarray:
        picture.seek(number)
        return np.asarray(picture)

    def colours(number: int) -> np.ndarray:
        return np.moveaxis(grey(number), -1, 0)

    for number in range(MAX_FRAMES):
        try:
            picture.seek(number)
        except EOFError:
            return
        width, height = picture.size
        if picture.mode == "RGB":
            yield Layer("", (3, height, width), partial(colours, number), planes=COLOURS)
        elif picture.mode in ("L", "F") or picture.mode.startswith("I"):
            yield Layer("", (height, width), partial(grey, number))
        else:
            raise BadInput(f"its mode {picture.mode} is neither grey nor RGB")
    raise BadInput(f"has more than {MAX_FRAMES} pages")
