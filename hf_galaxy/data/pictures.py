"""Files of pictures in several formats -> the 8-bit pictures of a dataset."""

import gzip
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from operator import index
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Self, get_args

import numpy as np
from PIL import Image, ImageFile

from hf_galaxy.data.packed_fits import check_counts, image_values
from hf_galaxy.errors import BadInput

Stretch = Literal["asinh", "linear", "sqrt", "log", "lupton"]
UNCHANGED = {"jpeg", "png"}  # kinds of files that are published byte for byte
MAX_BYTES = 2**30  # that a compressed file may expand to
# Pillow would also open those that run another program, such as EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
# Names of extensions that belong to a science image, as surveys call them.
NOT_SCIENCE = re.compile(
    r"(?i:.*(MASK|WEIGHT|ERROR|FLAG|SEGM).*|MSK|DQ|WHT|ERR|RMS|SIGMA|VAR|VARIANCE|IVAR|INVVAR|SEG|PSF|BKG|CTX|CON|NEXP|EXP)"
)
REMARK = "bands: "  # how the kinds begin that say how files were read
FIRST_OF_SEVERAL = "files hold several pictures of a galaxy, of which only the first is shown; --bands with their names reads all as fluxes"
FITS_START, GZIP_START, PNG_START = b"SIMPLE  =", b"\x1f\x8b", b"\x89PNG"
PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True, eq=False)
class Decoded:
    """A file whose pixels have been decoded.

    Attributes:
        content: bytes of the file, unzipped.
        kind: as of `kind_of`.
        pixels: the whole picture, grey (L) or RGB.
        name: of the file, for messages.
        remark: what a reader of the data should know of how the file was read; "": nothing.
    """

    content: bytes
    kind: str
    pixels: Image.Image
    name: str = ""
    remark: str = ""

    @property
    def kinds(self) -> set[str]:
        """The kind, and the remark as another."""
        return {self.kind, *([REMARK + self.remark] if self.remark else [])}


@dataclass(frozen=True)
class Rendering:
    """How files become pictures. Grey and RGB JPEGs and PNGs of 8 bits stay byte for byte what they are.

    FITS images are shown with their first row at the bottom, as in DS9, so that north stays up; pixels that are not
    finite are black.

    Attributes:
        crop: share of the picture's shorter side that is kept, as a square from its centre; 1: the whole picture.
        size: shorter side in pixels of the published picture; smaller pictures are not enlarged. None: unchanged.
        stretch: from values to brightness, for FITS files and grey PNGs of 16 bits; "lupton" is for three bands and
            keeps the hue of pixels brighter than white.
        low: percentile of a file's finite values that becomes black.
        high: percentile that becomes white. 0.25 and 99.75 leave out bad pixels and the centres of stars, but show
            the noise of the sky, in which faint arms and tails lie. Increase it if the cores of galaxies are saturated.
        softening: of the asinh stretch: share of the interval below which it is linear.
        lupton_q: inverse of the softening of "lupton", whose asinh is applied to the mean of the bands.
        rgb: the bands of a FITS file, counted from 0, that are red, green and blue; (2, 1, 0) is for files that go from
            blue to red, such as g, r, z.
        quality: of the JPEGs that are written, from 1 to 100.
    """

    crop: float = 1.0
    size: int | None = None
    stretch: Stretch = "asinh"
    low: float = 0.25
    high: float = 99.75
    softening: float = 0.1
    lupton_q: float = 8
    rgb: tuple[int, int, int] = (2, 1, 0)
    quality: int = 95

    @classmethod
    def of(cls, stated: Mapping[str, Any] | None) -> Self:
        """The rendering that a card or a configuration states, as `to_dict` writes it; None, unknown: the default one.

        Raises:
            BadInput: as `with_values`.
        """
        return cls().with_values(stated or {})

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """The same, but for these values, by the names of the attributes.

        Raises:
            BadInput: there is no such attribute, or a value is invalid.
        """
        names = [field.name for field in fields(self)]
        if unknown := [str(name) for name in values if name not in names]:
            raise BadInput(f"pictures: {unknown[0]} is none of {', '.join(names)}")
        try:
            whole = {name: index(values[name]) for name in ("size", "quality") if values.get(name) is not None}
            bands = {"rgb": tuple(map(index, values["rgb"]))} if "rgb" in values else {}
            changed = replace(self, **{**values, **whole, **bands})
            changed.check()
        except TypeError as error:
            raise BadInput(f"pictures: {dict(values)} has a value of a wrong type") from error
        return changed

    def to_dict(self) -> dict[str, Any]:
        """As JSON and YAML hold it."""
        return asdict(self) | {"rgb": list(self.rgb)}

    @property
    def whole(self) -> Self:
        """The same, without what leaves out a part of a picture or reduces it."""
        return replace(self, crop=1.0, size=None)

    def check(self) -> None:
        """Check the values.

        Raises:
            BadInput: names the value that is invalid.
        """
        for wrong, reason in [
            (not 0 < self.crop <= 1, f"crop {self.crop} is not in (0, 1]"),
            (self.size is not None and self.size < 8, f"size {self.size} is less than 8 pixels"),
            (self.stretch not in get_args(Stretch), f"stretch {self.stretch!r} is not one of {', '.join(get_args(Stretch))}"),
            (not 0 <= self.low < self.high <= 100, f"low {self.low} and high {self.high} are not increasing percentiles"),
            (not 0 < self.softening < math.inf, f"softening {self.softening} is not positive"),
            (not 0 < self.lupton_q < math.inf, f"lupton_q {self.lupton_q} is not positive"),
            (sorted(self.rgb) != [0, 1, 2], f"rgb {self.rgb} must hold 0, 1 and 2 in some order"),
            (not 1 <= self.quality <= 100, f"quality {self.quality} is not from 1 to 100"),
        ]:  # fmt: skip
            if wrong:
                raise BadInput(f"pictures: {reason}")

    def decode(self, content: bytes, name: str = "") -> Decoded:
        """The whole picture in a file.

        Raises:
            BadInput: the file cannot be decoded completely, or its values cannot be stretched.
        """
        with reading(name):
            content = _expanded(content)
            kind, opened, remark = _opened(content)
            return Decoded(content, kind, self._decode(kind, opened), name, remark)

    def encode(self, decoded: Decoded) -> tuple[bytes, str]:
        """The bytes that a dataset holds, and their suffix, whatever the name of the file.

        Raises:
            BadInput: the picture cannot be encoded.
        """
        with reading(decoded.name):
            picture = self.reduced(decoded.pixels)
            if picture is not decoded.pixels:
                return self._jpeg(picture), ".jpg"
            if decoded.kind in UNCHANGED:
                return decoded.content, ".jpg" if decoded.kind == "jpeg" else ".png"
            file = io.BytesIO()
            picture.save(file, "PNG")
            return file.getvalue(), ".png"

    def render(self, content: bytes, name: str = "") -> tuple[bytes, str]:
        """The bytes that a dataset holds of a file, and their suffix.

        Raises:
            BadInput: as `decode` and `encode`.
        """
        return self.encode(self.decode(content, name))

    def open(self, content: bytes, name: str = "") -> Image.Image:
        """The picture that `render` writes, grey (L) or RGB, to the bit.

        Raises:
            BadInput: as `decode`.
        """
        return self.shown(self.decode(content, name).pixels)

    def shown(self, picture: Image.Image) -> Image.Image:
        """A whole picture, grey (L) or RGB, as a dataset shows it: itself, or what is kept of it, as the JPEG holds it."""
        kept = self.reduced(picture)
        return picture if kept is picture else Image.open(io.BytesIO(self._jpeg(kept)), formats=["JPEG"])

    def _jpeg(self, picture: Image.Image) -> bytes:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=self.quality, subsampling=0)  # 4:4:4: blue knots are small
        return file.getvalue()

    def _decode(self, kind: str, opened: Any) -> Image.Image:
        """The whole picture, L or RGB, of what `_opened` gives."""
        if (values := _values_of(kind, opened)) is not None:
            return self.stretched(values)
        picture = opened
        picture.load()
        if picture.has_transparency_data or picture.mode != "L":
            picture = to_rgb(picture)
        picture.info = {}  # else Pillow writes the colour profile, which no longer applies
        return picture

    def stretched(self, bands: np.ndarray) -> Image.Image:
        """Values of shape (1 or 3, height, width) -> 8-bit picture."""
        visualization = _astropy().visualization
        stretch = {
            "asinh": visualization.AsinhStretch(self.softening),
            "linear": visualization.LinearStretch(),
            "sqrt": visualization.SqrtStretch(),
            "log": visualization.LogStretch(),
            # Not LuptonAsinhStretch, whose constants turn grey what all other stretches turn white.
            "lupton": visualization.AsinhStretch(1 / self.lupton_q),
        }[self.stretch]
        if self.stretch == "lupton" and len(bands) != 3:
            raise BadInput('has one band; stretch "lupton" needs three')
        with np.errstate(over="raise", divide="ignore", invalid="ignore"):  # "lupton" divides black by black
            bands = bands.astype(np.float64)
            finite = np.isfinite(bands)
            if not finite.any():
                raise BadInput("has no finite pixel")
            low, high = visualization.AsymmetricPercentileInterval(self.low, self.high).get_limits(bands)
            if low == high:
                raise BadInput(f"its pixels are all {low:g}, from percentile {self.low:g} to {self.high:g}")
            bands = np.where(finite, bands, low)
            bands = visualization.ManualInterval(low, high)(bands, clip=False)  # shares of the interval
            if len(bands) == 3:
                bands = bands[list(self.rgb)]
            if self.stretch == "lupton":
                interval = visualization.ManualInterval(0, 1)
                shares = visualization.make_lupton_rgb(
                    *bands, interval=interval, stretch_object=stretch, output_dtype=float
                )
            else:
                shares = np.moveaxis(stretch(bands), 0, -1)
        pixels = np.rint(255 * shares).astype(np.uint8)
        return Image.fromarray(pixels if len(bands) == 3 else pixels[..., 0])

    def reduced(self, picture: Image.Image) -> Image.Image:
        """The picture itself, its centre, or a smaller picture. Bicubic, as `to_canvases`: less ringing around stars than Lanczos."""
        shorter = min(picture.size)
        if self.crop < 1:
            shorter = max(1, round(shorter * self.crop))
            left, top = ((side - shorter) // 2 for side in picture.size)
            picture = picture.crop((left, top, left + shorter, top + shorter))
        if not self.size or shorter <= self.size:
            return picture
        sides = [max(1, round(side * self.size / shorter)) for side in picture.size]
        return picture.resize(sides, Image.Resampling.BICUBIC)


def open_picture(content: bytes | None) -> ImageFile.ImageFile:
    """Open the picture in an encoded file; only the header is decoded.

    Raises:
        BadInput: there is no picture, it is truncated, or it has more pixels than Pillow allows.
        PIL.UnidentifiedImageError: it has none of FORMATS.
    """
    if content is None:
        raise BadInput("there is no picture")
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(str(error)) from error
    check_pixels(*picture.size)
    if content.startswith(PNG_START) and PNG_END not in content:
        raise BadInput("is truncated")  # behind the last pixel, which Pillow accepts and other decoders do not
    return picture


def check_pixels(width: int, height: int) -> None:
    """Check the size of a picture by its header, before a few bytes become gigabytes.

    Raises:
        BadInput: it has more pixels than Pillow allows, 89 million by default.
    """
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise BadInput(f"its {width} x {height} pixels are more than {Image.MAX_IMAGE_PIXELS:,}")


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture of 8 bits as RGB: grey becomes three equal bands, and transparent pixels lie over black, like the sky.

    Raises:
        BadInput: it has more than 8 bits.
    """
    if picture.mode.startswith(("I", "F")):
        raise BadInput(f"its mode {picture.mode} has more than 8 bits, which hf-galaxy publish stretches")
    if picture.has_transparency_data:
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture.convert("RGBA"))
    return picture.convert("RGB")


def linear_values(content: bytes, name: str = "") -> np.ndarray | None:
    """(1 or 3, height, width) what a file holds before it is stretched, from the top; None: its pixels have 8 bits.

    Raises:
        BadInput: it cannot be read.
    """
    with reading(name):
        kind, opened, _ = _opened(_expanded(content))
        return _values_of(kind, opened)


def _values_of(kind: str, opened: Any) -> np.ndarray | None:
    """As `linear_values`, of what `_opened` gives."""
    if kind in ("fits1", "fits3"):
        values = opened()
        # FITS counts rows from the bottom, pictures from the top.
        return values.reshape(int(kind[-1]), *values.shape[-2:])[:, ::-1]
    return np.asarray(opened)[None] if kind == "png16" else None


def kind_of(content: bytes, name: str = "") -> str:
    """The kind of a file, from its beginning; its pixels are not decoded.

    Returns:
        "jpeg" or "png": 8 bits, grey or RGB; "other8": those with transparency, a palette, fewer bits or another colour space,
        WebP, TIFF, GIF and BMP; "png16": grey PNG or TIFF of 16 bits or more; "png16rgb": PNG of 16 bits with colour or transparency;
        "fits1" or "fits3": FITS image of one or three bands.

    Raises:
        BadInput: it has none of these formats.
    """
    with reading(name):
        return _opened(_expanded(content))[0]


@contextmanager
def reading(name: Path | str) -> Iterator[None]:
    """Turn every error within into a BadInput about the file."""
    try:
        with warnings.catch_warnings():
            # Oddities in a FITS header do not affect pixels; only a truncated file does.
            warnings.filterwarnings("ignore", module="astropy")
            warnings.filterwarnings("error", message="File may have been truncated")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except Exception as error:  # zips and decoders raise many kinds of errors; each means that the file is damaged
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"is neither {', '.join(FORMATS)} nor FITS"
        else:
            reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{name}: cannot be read as a picture ({reason})".removeprefix(": ")) from error


def _expanded(content: bytes) -> bytes:
    """The content, decompressed if it is a gzipped FITS file."""
    if not content.startswith(GZIP_START):
        return content
    with gzip.open(io.BytesIO(content)) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadInput("is larger than 1 GiB")
    if not content.startswith(FITS_START):
        raise Image.UnidentifiedImageError
    return content


def _opened(content: bytes) -> tuple[str, Any, str]:
    """The kind of a file, its Pillow image or what reads the values of its FITS image, and a remark (`Decoded`)."""
    if content.startswith(FITS_START):
        read, bands, others = _fits_image(content)
        return f"fits{bands}", read, FIRST_OF_SEVERAL if others else ""
    picture = open_picture(content)
    return _kind_of_picture(picture), picture, ""


def _kind_of_picture(picture: ImageFile.ImageFile) -> str:
    if picture.format == "JPEG" and picture.mode in ("L", "RGB"):
        return "jpeg"
    if picture.format != "PNG":
        return "png16" if picture.mode.startswith(("I", "F")) else "other8"
    # The mode in the file: in memory, 16 bits of colour are already reduced to 8, and 2 or 4 bits of grey expanded to 8.
    stored = str(picture.tile[0].args)  # type: ignore[attr-defined] # an ImageFile has tiles
    if stored.endswith(";16B"):
        return "png16" if picture.mode.startswith("I") else "png16rgb"
    return "png" if stored in ("L", "RGB") and not picture.has_transparency_data else "other8"


def _fits_image(content: bytes) -> tuple[Callable[[], np.ndarray], int, bool]:
    """What reads the first image of one or three bands, the number of bands, and whether there are others that may show the galaxy in
    further bands; masks, weights and errors come last."""
    check_counts(content)
    hdus = _astropy().fits.open(io.BytesIO(content), memmap=False, uint=False)
    images = [(hdu, hdu.shape) for hdu in hdus if hdu.is_image and hdu.shape]
    for hdu, shape in sorted(images, key=lambda image: bool(NOT_SCIENCE.fullmatch(image[0].name.strip()))):
        if len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3)):
            if not 0 < math.prod(shape[-2:]) <= Image.MAX_IMAGE_PIXELS:  # checked before a few bytes become gigabytes
                raise BadInput(f"its image of shape {shape} is empty or too large")
            alike = [other.name for other, size in images if size == shape and other is not hdu]
            others = not all(NOT_SCIENCE.fullmatch(name.strip()) for name in alike)
            return partial(image_values, hdu, hdus.index(hdu), content), 1 if len(shape) == 2 else shape[0], others
    if images:
        shapes = ", ".join(str(shape) for _, shape in images)
        several = [shape[0] for _, shape in images if len(shape) == 3 and shape[0] <= 8]
        advice = (
            several and f"; --bands with the names of its {several[0]} bands, such as --bands g r i z, reads fluxes"
        )
        raise BadInput(
            f"its image has the shape {shapes}, not (height, width), (1, height, width) or (3, height, width){advice or ''}"
        )
    raise BadInput("has no image")


@cache
def _astropy() -> SimpleNamespace:
    """The parts of astropy for FITS and stretches; importing them takes half a second, which other pictures do not need."""
    try:
        from astropy import visualization
        from astropy.io import fits
    except ImportError as error:  # where this file was loaded with a model, astropy may be missing
        raise BadInput("needs astropy; pip install astropy") from error
    return SimpleNamespace(fits=fits, visualization=visualization)
