"""Whether what a server sends is the picture that it was asked for. A status of 200 says little: the content decides."""

from __future__ import annotations

import io
import threading
import warnings
from typing import TYPE_CHECKING, Any

from hf_galaxy.data.packed_fits import check_counts, image_values
from hf_galaxy.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

NO_LIGHT = 3  # levels of 255; the noise of any sky has a larger range
FITS_BLOCK = 2880  # bytes, of which every FITS file has a whole number

_turn = threading.Lock()  # the filters of warnings are shared by all threads


class NoPicture(BadInput):
    """There is no picture of this place; the message says why, without the place."""


class WrongAnswer(NoPicture):
    """An answer that is not the picture, such as half of it: another try may bring it."""


class Unreachable(NoPicture):
    """The server did not answer, or it answered that it cannot or will not serve now, whatever it was asked."""


def check_picture(content: bytes, pixels: int) -> None:
    """Check a JPEG.

    Args:
        pixels: its sides.

    Raises:
        WrongAnswer: it is something else, damaged, or of another size.
        NoPicture: it has no light, as surveys answer outside of their footprint.
    """
    import numpy as np
    from PIL import Image

    _check_start(content, b"\xff\xd8", "a JPEG")
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            size = picture.size
            levels = (
                np.asarray(picture) if size == (pixels, pixels) else None
            )  # a few bytes may say that they are gigabytes
    except Exception as error:  # decoders raise many kinds
        raise WrongAnswer("the answer is a damaged JPEG") from error
    if levels is None:
        raise WrongAnswer(f"the answer has {size[0]} x {size[1]} pixels instead of {pixels} x {pixels}")
    if np.ptp(levels, axis=(0, 1)).max() < NO_LIGHT:
        raise NoPicture("the survey has no light here: it is outside of its footprint")


def check_fits(content: bytes, pixels: int) -> None:
    """Check a FITS image of any number of bands.

    Args:
        pixels: its sides.

    Raises:
        WrongAnswer: it is something else, damaged, or of another size.
        NoPicture: it has no values, or all are equal.
    """
    import numpy as np

    values = fits_values(content)
    if values.shape[-2:] != (pixels, pixels):
        height, width = values.shape[-2:]
        raise WrongAnswer(f"the answer has {width} x {height} pixels instead of {pixels} x {pixels}")
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() == finite.max():
        raise NoPicture("the survey has no values here: it is outside of its footprint")


def fits_values(content: bytes) -> np.ndarray:
    """The values of the first image in a FITS file, of shape (..., H, W).

    Raises:
        WrongAnswer: it is something else, damaged, or without an image.
    """
    return _of_fits(content)[1]


def cube(contents: list[bytes], bands: tuple[str, ...]) -> bytes:
    """FITS files of one band each as one of shape (bands, H, W), with the header of the first; a single one stays as it is.

    Raises:
        WrongAnswer: a file is not such an image, or has another size than the first.
    """
    if len(contents) == 1:
        return contents[0]
    headers, values = zip(*map(_of_fits, contents), strict=True)
    if len({each.shape for each in values}) > 1:
        raise WrongAnswer("the bands have pictures of different sizes")
    import numpy as np

    return fits_file(np.stack(values), headers[0], bands)


def fits_file(values: np.ndarray, header: Any = None, bands: tuple[str, ...] = ()) -> bytes:
    """A FITS file of one image.

    Args:
        values: (H, W), or (bands, H, W).
        header: of astropy; what does not fit the values is replaced.
        bands: their names, for the header.
    """
    from astropy.io import fits

    hdu = fits.PrimaryHDU(values, header)
    if bands:
        hdu.header["BANDS"] = (" ".join(bands), "in the order of the third axis")
    file = io.BytesIO()
    hdu.writeto(file, output_verify="silentfix")
    return file.getvalue()


def _of_fits(content: bytes) -> tuple[Any, np.ndarray]:
    """The header and the values of the first image."""
    from astropy.io import fits

    _check_start(content, b"SIMPLE  =", "a FITS file")
    if len(content) % FITS_BLOCK:
        raise WrongAnswer("the answer is a FITS file that breaks off")
    try:
        with _turn, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oddities in headers; a file that breaks off is an error below
            check_counts(content)
            with fits.open(io.BytesIO(content), memmap=False, uint=False) as hdus:
                for place, hdu in enumerate(hdus):
                    if hdu.is_image and len(hdu.shape) >= 2:
                        return hdu.header, image_values(hdu, place, content)
    except Exception as error:  # astropy raises many kinds
        raise WrongAnswer("the answer is a damaged FITS file") from error
    raise WrongAnswer("the answer is a FITS file without an image")


def _check_start(content: bytes, start: bytes, kind: str) -> None:
    if not content:
        raise WrongAnswer(f"the answer is empty instead of {kind}")
    if not content.startswith(start):
        other = "a web page" if content.lstrip()[:1] == b"<" else "something else"
        raise WrongAnswer(f"the answer is {other} instead of {kind}")
