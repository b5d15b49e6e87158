"""Fluxes of a galaxy -> the columns `flux` and `image` of a dataset. Legend: C bands, H and W of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hf_galaxy.data.band_cells import encoded_cell
from hf_galaxy.data.band_files import BandPicture, read_bands, read_file_of_each_band
from hf_galaxy.data.fluxes import FLUX, filled
from hf_galaxy.data.picture_files import FILES, PictureFiles
from hf_galaxy.data.pictures import REMARK, Decoded, Rendering, reading
from hf_galaxy.data.pixels import content_of

KIND = "bands"  # of such files, beside those of `pictures.kind_of`
SUFFIX = ".safetensors"
KNOWN = 0.5  # share of the pixels that become one which must have values


def read_fluxes(pictures: PictureFiles, file: str, bands: Sequence[str]) -> BandPicture:
    """The fluxes in a file, or in a file of each band.

    Args:
        file: its name; or several, in the order of the bands, with `FILES` between them.

    Raises:
        BadInput: as `read_bands` and `read_file_of_each_band`.
    """
    if FILES not in file:
        return read_bands(pictures.read(file), file, bands)
    names = zip(bands, file.split(FILES), strict=True)
    return read_file_of_each_band({band: (pictures.read(name), name) for band, name in names})


def fluxes_of(
    picture: Any,
    bands: Sequence[str],
    rendering: Rendering,
    timeout: float = 20,
    planes: Sequence[str] | None = None,
) -> np.ndarray:
    """(C, H, W) float32: the fluxes that a dataset would hold of a picture, with `fluxes.filled`.

    Args:
        picture: path or URL of a file with all bands, or what `band_cells.encoded_cell` takes: its bytes, an array, ...
        bands: C bands, in the order wanted.
        rendering: whose crop and size are applied.
        timeout: seconds that a download may take.
        planes: what the planes of the picture are called, in their order, if they have no names; all of `bands` are among them. None: `bands`.

    Raises:
        BadInput: as `read_bands`.
    """
    if isinstance(picture, str | Path):
        content, name = content_of(str(picture), timeout), str(picture)
    else:
        content, name = encoded_cell(picture), ""
    shown = reduced(read_bands(content, name, planes or bands), rendering)
    return filled(np.stack([shown.planes[band] for band in bands]))


def flux_columns(picture: BandPicture, rendering: Rendering, stem: str) -> tuple[dict[str, Any], set[str]]:
    """The columns `image`, an 8-bit preview, and `flux` of a galaxy; and the kinds of its file.

    Args:
        rendering: its crop and size are of both, the rest of the preview.
        stem: of the names in the columns.

    Raises:
        BadInput: the preview cannot be made.
    """
    with reading(""):
        image, suffix = rendering.encode(Decoded(b"", KIND, preview(picture, rendering), stem))
    columns = {
        "image": {"bytes": image, "path": stem + suffix},
        FLUX: {"bytes": reduced(picture, rendering).encode(), "path": stem + SUFFIX},
    }
    return columns, {KIND, *(REMARK + remark for remark in picture.remarks)}


def remarks_of(kinds: Iterable[str]) -> list[str]:
    """Sentences on how the files of these kinds were read."""
    remarks = sorted(kind.removeprefix(REMARK) for kind in kinds if kind.startswith(REMARK))
    return [f"{remark[0].upper()}{remark[1:]}." for remark in remarks]


def preview(picture: BandPicture, rendering: Rendering) -> Image.Image:
    """The whole picture in 8 bits: grey of one or two bands, else in the colours of three (`preview_bands`).

    It is black where a band has no value, and everywhere if all its values are one number.
    """
    chosen = preview_bands(tuple(picture.planes))
    planes = np.stack([picture.planes[band] for band in chosen])
    if np.isnan(planes).all():  # then another band has values
        planes[:] = next(plane for plane in picture.planes.values() if not np.isnan(plane).all())
    if picture.from_bottom:
        planes = planes[:, ::-1]
    low, high = np.nanpercentile(planes.astype(np.float64), [rendering.low, rendering.high])
    if low == high:
        return Image.new("RGB" if len(planes) == 3 else "L", picture.size[::-1])
    return rendering.stretched(planes)


def described_bands(bands: Sequence[str]) -> str:
    """A sentence on the two columns, for cards and logs."""
    shown = preview_bands(bands)
    preview = f"in grey of {shown[0]}" if len(shown) == 1 else f"in colour of {', '.join(shown)}"
    return f"`flux` holds the fluxes in the bands {', '.join(bands)}; `image` is a picture for people, {preview}."


def preview_bands(bands: Sequence[str]) -> list[str]:
    """The bands of the preview: the first of one or two, all of three, the second to the fourth of more, such as gri of ugriz."""
    if len(bands) < 3:
        return [bands[0]]
    return list(bands if len(bands) == 3 else bands[1:4])


def reduced(picture: BandPicture, rendering: Rendering) -> BandPicture:
    """The centre of a picture, or a smaller one, as `Rendering.reduced` makes it of the preview.

    Values stay what they are per pixel of the file: fluxes per area in the sky. A pixel has no value if that is so for most of what it is made
    of.
    """
    height, width = picture.size
    shorter = min(height, width)
    planes, scale = picture.planes, picture.arcsec_per_pixel
    if rendering.crop < 1:
        shorter = max(1, round(shorter * rendering.crop))
        left, top = (width - shorter) // 2, (height - shorter) // 2
        if picture.from_bottom:
            top = height - shorter - top
        planes = {band: plane[top : top + shorter, left : left + shorter] for band, plane in planes.items()}
        height = width = shorter
    if rendering.size and shorter > rendering.size:
        sides = [max(1, round(side * rendering.size / shorter)) for side in (width, height)]
        planes = {band: _resized(plane, sides) for band, plane in planes.items()}
        scale = scale and scale * shorter / rendering.size
    return replace(picture, planes=planes, arcsec_per_pixel=scale)


def _resized(plane: np.ndarray, sides: list[int]) -> np.ndarray:
    """A plane with another width and height: each pixel is a mean of those that it covers, weighted as bicubic interpolation does."""
    known = ~np.isnan(plane)
    if not known.any():
        return np.full(sides[::-1], np.nan, np.float32)

    def smaller(values: np.ndarray, filter: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(values.astype(np.float32)).resize(sides, filter))

    result = smaller(filled(plane[None])[0], Image.Resampling.BICUBIC).copy()
    if not known.all():
        result[smaller(known, Image.Resampling.BOX) < KNOWN] = np.nan
    return result
