"""Files of fluxes in several bands -> float planes. Legend: C bands, H and W of a picture.

The formats are those of `band_layers`: FITS, npy, npz, HDF5, safetensors, TIFF, PNG, JPEG. Rows are in the order of the file: of FITS the
first is the lowest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hf_galaxy.data.band_layers import Layer, layers_of
from hf_galaxy.data.band_masks import Place, bad_pixels, kind_of_layer
from hf_galaxy.data.band_names import described, places_by_name
from hf_galaxy.data.fluxes import encode_fluxes
from hf_galaxy.data.pictures import reading
from hf_galaxy.errors import BadInput

# Names of arrays that tell no band.
USUAL = ("", "flux", "fluxes", "image", "images", "sci", "science", "data", "array", "compressed_image", "primary")
EIGHT_BITS = "the bands have 8 bits: numbers from 0 to 255, as of pictures for people, which are no fluxes"


@dataclass(frozen=True, eq=False)
class BandPicture:
    """Fluxes of a galaxy.

    Attributes:
        planes: band -> (H, W) float32, NaN where there is no value.
        arcsec_per_pixel: side of a pixel; None: unknown.
        from_bottom: the first row is the lowest, as in FITS.
        remarks: what a reader of the data should know of how the file was read.
    """

    planes: dict[str, np.ndarray]
    arcsec_per_pixel: float | None = None
    from_bottom: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """H and W."""
        height, width = next(iter(self.planes.values())).shape
        return height, width

    @property
    def missing(self) -> int:
        """Number of pixels that have no value in some band."""
        return int(np.any([np.isnan(plane) for plane in self.planes.values()], axis=0).sum())

    def encode(self) -> bytes:
        """As datasets hold it (`fluxes`)."""
        return encode_fluxes(self.planes, self.arcsec_per_pixel)


def read_bands(content: bytes, name: str, bands: Sequence[str]) -> BandPicture:
    """The planes of some bands in a file.

    They are those that are named so in it: by extensions, headers FILTER or BAND, keys or attributes; or, if nothing in it has such a
    name, and there are as many planes as bands, the planes in their order.

    Args:
        name: of the file, for messages.
        bands: their names.

    Raises:
        BadInput: it cannot be read, lacks a band, its bands have several sizes, or no pixel has a value.
    """
    picture = _read(content, name, bands)
    _check_values(picture, name)
    return picture


def read_file_of_each_band(files: Mapping[str, tuple[bytes, str]]) -> BandPicture:
    """The planes of files that hold one band each.

    Args:
        files: band -> content and name of its file.

    Raises:
        BadInput: as `read_bands`; or the files have pictures of several sizes.
    """
    parts = {band: _read(content, name, [band], alone=True) for band, (content, name) in files.items()}
    names = [name for _, name in files.values()]
    sizes = [part.size for part in parts.values()]
    if len(set(sizes)) > 1:
        raise BadInput(f"the files of one galaxy have several sizes: {_sizes(names, sizes)}")
    first = next(iter(parts.values()))
    remarks = dict.fromkeys(remark for part in parts.values() for remark in part.remarks)
    planes = {band: part.planes[band] for band, part in parts.items()}
    picture = BandPicture(planes, first.arcsec_per_pixel, first.from_bottom, tuple(remarks))
    _check_values(picture, ", ".join(names))
    return picture


def _read(content: bytes, name: str, bands: Sequence[str], alone: bool = False) -> BandPicture:
    """As `read_bands`, where no pixel needs a value.

    Args:
        alone: the name of the file tells its only band.
    """
    with reading(name):
        layers = layers_of(content, len(bands))
        places, remarks = _places(layers, bands)
        of_bands = {id(place.layer): place.layer for place in places}.values()
        sizes = [place.layer.size for place in places]
        if len(set(sizes)) > 1:
            raise BadInput(f"its bands have several sizes: {_sizes(bands, sizes)}")
        if (values := sum(math.prod(layer.shape) for layer in of_bands)) > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise BadInput(f"its {values:,} values are more than {Image.MAX_IMAGE_PIXELS:,}")
        bad, unused = bad_pixels(layers, bands, places)
        planes = {}
        for band, place, without in zip(bands, places, bad, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is infinite, and so no value
                plane = place.layer.values[place.plane].astype(np.float32)
            plane[~np.isfinite(plane)] = np.nan
            if without is not None:
                plane[without] = np.nan
            planes[band] = plane
        first = places[0].layer
        eight = [EIGHT_BITS] if any(layer.values.dtype == np.uint8 for layer in of_bands) else []
        return BandPicture(planes, first.scale, first.from_bottom, (*(() if alone else remarks), *eight, *unused))


def _check_values(picture: BandPicture, name: str) -> None:
    if picture.missing == 0:
        return
    if all(np.isnan(plane).all() for plane in picture.planes.values()):
        raise BadInput(f"{name}: cannot be read as a picture (no pixel has a value in any band)")


def _places(layers: Sequence[Layer], bands: Sequence[str]) -> tuple[list[Place], list[str]]:
    """Where each band is, and sentences on what is unusual.

    Raises:
        BadInput: a band is missing, or it cannot be told where it is.
    """
    science = [layer for layer in layers if kind_of_layer(layer, bands) == "science"]
    cubes = [layer for layer in science if layer.number > 1]
    single = [layer for layer in science if layer.number == 1]
    texts = [(layer.name, *layer.filters) for layer in single]
    # 1. Planes of a cube that have names.
    for cube in cubes:
        if places := places_by_name(bands, [(plane,) for plane in cube.planes]):
            return [Place(cube, plane) for plane in places], []
    # 2. Arrays of one band each, that have names.
    if places := places_by_name(bands, texts):
        return [Place(single[place], 0) for place in places], []
    # 3. A cube of as many planes as there are bands, in their order.
    if fitting := [cube for cube in cubes if cube.number == len(bands)]:
        chosen = next((cube for cube in fitting if cube.name.lower() in USUAL), fitting[0])
        remarks = [_in_order(bands, chosen.planes)] if chosen.planes else []
        if others := [cube.name or "an array without name" for cube in fitting if cube is not chosen]:
            remarks.append(
                f"the bands are those of {chosen.name or 'the first array'}; {', '.join(others)} is not used"
            )
        return [Place(chosen, plane) for plane in range(len(bands))], remarks
    # 4. As many arrays of one band as there are bands, in their order.
    if len(single) == len(bands):
        names = [" ".join(each for each in of_layer if each.lower() not in USUAL) for of_layer in texts]
        remarks = [_in_order(bands, names)] if all(names) else []
        return [Place(layer, 0) for layer in single], remarks
    advice = (
        "; files of one band each need a table that names them, such as NAME_g.fits"
        if len(single) == 1 and not cubes
        else ""
    )
    raise BadInput(f"--bands {' '.join(bands)}: {_held(cubes, single)}{advice}")


def _in_order(bands: Sequence[str], names: Sequence[str]) -> str:
    return f"the bands {', '.join(bands)} are what the files call {', '.join(names)}, in this order"


def _held(cubes: Sequence[Layer], single: Sequence[Layer]) -> str:
    """What a file has, for a message."""
    if not cubes and not single:
        return "it has no picture of fluxes"
    planes = [(plane,) for cube in cubes for plane in cube.planes or [""] * cube.number]
    shapes = dict.fromkeys(str(layer.shape) for layer in (*cubes, *single))
    return f"{described([*planes, *((layer.name, *layer.filters) for layer in single)])} (shape {', '.join(shapes)})"


def _sizes(names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{name} {width} x {height}" for name, (height, width) in zip(names, sizes, strict=True))
