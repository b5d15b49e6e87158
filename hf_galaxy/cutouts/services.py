"""Survey servers, and how each is asked for a picture of a place. What they are asked is from their documentation, as cited."""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal
from urllib.parse import urlencode

from hf_galaxy.cutouts.answers import NoPicture, WrongAnswer, check_fits, check_picture, cube
from hf_galaxy.errors import BadInput

Format = Literal["jpg", "fits"]
Ask = Callable[[str, Callable[[bytes], None]], bytes]  # (url, check) -> content, as `polite.Client.ask`


@dataclass(frozen=True)
class Field:
    """A square of the sky, north up, east left.

    Attributes:
        ra, dec: its centre, in degrees.
        arcsec: its side on the sky.
        pixels: the side of its picture.
    """

    ra: float
    dec: float
    arcsec: float
    pixels: int

    @property
    def place(self) -> dict[str, str]:
        """The centre as parameters of a request; seven digits are less than a milliarcsecond."""
        return {"ra": f"{self.ra:.7f}", "dec": f"{self.dec:.7f}"}

    @property
    def scale(self) -> str:
        """Arcseconds per pixel, as the value of a parameter."""
        return f"{self.arcsec / self.pixels:.6f}"


@dataclass(frozen=True)
class Service:
    """A survey server.

    Attributes:
        format: of the pictures: JPEG in colours as the survey shows them, or FITS with its values.
        bands: from blue to red; () for those that the server shows by default.
    """

    format: Format = "jpg"
    bands: tuple[str, ...] = ()

    server: ClassVar[str]
    known_bands: ClassVar[tuple[str, ...]] = ()  # () if it cannot be asked for bands
    formats: ClassVar[tuple[Format, ...]] = ("jpg", "fits")
    sides: ClassVar[tuple[int, int]] = (16, 3000)  # smallest and largest side in pixels

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            BadInput: the server has no such format, or no such bands.
        """
        if self.format not in self.formats:
            raise BadInput(f"--format {self.format}: this server has only {', '.join(self.formats)}")
        for band in self.bands:
            if not self.known_bands:
                raise BadInput("--bands: this server has pictures of fixed bands; leave it out")
            if band not in self.known_bands:
                known = " ".join(self.known_bands)
                raise BadInput(f"--bands: {band} is none of the bands, which are {known}, each a word of its own")
        if len(set(self.bands)) < len(self.bands):
            raise BadInput("--bands: a band is there twice")

    def pixels_of(self, field: Field) -> int:
        """The side of the picture that it sends."""
        return field.pixels

    def picture(self, field: Field, ask: Ask) -> bytes:
        """The file of a field, checked.

        Raises:
            NoPicture: there is none.
        """
        return ask(self.url(field), self.check(field))

    def check(self, field: Field) -> Callable[[bytes], None]:
        """What raises an error if an answer is not the picture of a field."""
        return partial(check_picture if self.format == "jpg" else check_fits, pixels=self.pixels_of(field))

    def url(self, field: Field) -> str:
        """The address of the picture of a field."""
        raise NotImplementedError


@dataclass(frozen=True)
class LegacySurveys(Service):
    """The viewer of the DESI Legacy Imaging Surveys.

    https://www.legacysurvey.org/dr10/description/ and https://github.com/legacysurvey/imagine (map/urls.py, map/views.py:
    cutout.jpg and cutout.fits with ra, dec, layer, pixscale, size, bands; at most 3000 pixels).

    Attributes:
        layer: of the viewer; ls-dr10 is DR10 in the south, and DR9 in the north, as the viewer shows it.
    """

    layer: str = "ls-dr10"

    server: ClassVar[str] = "https://www.legacysurvey.org/viewer"
    known_bands: ClassVar[tuple[str, ...]] = ("g", "r", "i", "z")

    def url(self, field: Field) -> str:
        """The address of the picture of a field."""
        query = field.place | {"layer": self.layer, "pixscale": field.scale, "size": str(field.pixels)}
        if bands := self.bands or (("g", "r", "z") if self.format == "fits" else ()):
            query["bands"] = "".join(bands)
        return f"{self.server}/cutout.{self.format}?{urlencode(query)}"


@dataclass(frozen=True)
class Sdss(Service):
    """The colour pictures of SDSS (g, r, i), from SkyServer.

    https://skyserver.sdss.org/dr18/en/help/docs/api.aspx (image cutout, getJpeg); its parameters and the limits of its size are
    those of the finding chart, http://skyserver.sdss3.org/dr10/en/tools/chart/chartinfo.aspx.
    """

    server: ClassVar[str] = "https://skyserver.sdss.org/dr18/SkyServerWS"
    formats: ClassVar[tuple[Format, ...]] = ("jpg",)
    sides: ClassVar[tuple[int, int]] = (64, 2048)

    def url(self, field: Field) -> str:
        """The address of the picture of a field."""
        query = field.place | {"scale": field.scale, "width": str(field.pixels), "height": str(field.pixels)}
        return f"{self.server}/ImgCutout/getjpeg?{urlencode(query)}"


@dataclass(frozen=True)
class PanStarrs(Service):
    """The stacks of Pan-STARRS1, from MAST: first the names of the files that cover a place, then a cutout of them.

    https://outerspace.stsci.edu/display/PANSTARRS/PS1+Image+Cutout+Service and its script,
    https://ps1images.stsci.edu/ps1image.html. A FITS file has one band and the pixels of the survey, so the bands are
    asked for one after another, and `cube` joins them.
    """

    server: ClassVar[str] = "https://ps1images.stsci.edu/cgi-bin"
    known_bands: ClassVar[tuple[str, ...]] = ("g", "r", "i", "z", "y")
    pixel: ClassVar[float] = 0.25  # arcsec

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            BadInput: as `Service`; or a colour picture of two or more than three bands.
        """
        super().__post_init__()
        if self.format == "jpg" and self.bands and len(self.bands) not in (1, 3):
            raise BadInput("--bands: a JPEG has one band, or three from blue to red")

    @property
    def asked_bands(self) -> tuple[str, ...]:
        """The bands; by default those of the survey's own colour pictures, the bluest, the middle and the reddest."""
        return self.bands or ("g", "i", "y")

    def pixels_of(self, field: Field) -> int:
        """The side of the picture that it sends."""
        return field.pixels if self.format == "jpg" else self._own_pixels(field)

    def picture(self, field: Field, ask: Ask) -> bytes:
        """The file of a field, checked.

        Raises:
            NoPicture: there is none, or not in each of the bands.
        """
        listing = ask(self.names_url(field), check_listing)
        files = files_of_bands(listing)
        if missing := [band for band in self.asked_bands if band not in files]:
            raise NoPicture(f"the survey has no image of band {missing[0]} here")
        names = [files[band] for band in self.asked_bands]
        if self.format == "fits":
            contents = [ask(self.cutout_url(field, [name]), self.check(field)) for name in names]
            return cube(contents, self.asked_bands)
        return ask(self.cutout_url(field, names[::-1]), self.check(field))

    def names_url(self, field: Field) -> str:
        """The address of the list of the files that cover a place."""
        query = field.place | {"filters": "".join(self.asked_bands), "sep": "comma"}
        return f"{self.server}/ps1filenames.py?{urlencode(query)}"

    def cutout_url(self, field: Field, files: list[str]) -> str:
        """The address of a cutout of one file, or of three: red, green, blue."""
        query = field.place | {"size": str(self._own_pixels(field)), "format": self.format}
        if self.format == "jpg":
            query["output_size"] = str(field.pixels)
        return (
            f"{self.server}/fitscut.cgi?{urlencode(query | dict(zip(('red', 'green', 'blue'), files, strict=False)))}"
        )

    def _own_pixels(self, field: Field) -> int:
        return max(1, round(field.arcsec / self.pixel))


@dataclass(frozen=True)
class Hips(Service):
    """Any survey that the CDS in Strasbourg has as a HiPS, from hips2fits, which resamples it.

    https://alasky.cds.unistra.fr/hips-image-services/hips2fits and
    https://astroquery.readthedocs.io/en/latest/hips2fits/hips2fits.html; the HiPS are in https://aladin.cds.unistra.fr/hips/list.

    Attributes:
        hips: its id, such as CDS/P/DSS2/color.
    """

    hips: str = ""

    server: ClassVar[str] = "https://alasky.cds.unistra.fr/hips-image-services"

    def url(self, field: Field) -> str:
        """The address of the picture of a field."""
        query = {"hips": self.hips, "width": str(field.pixels), "height": str(field.pixels)}
        query |= {"projection": "TAN", "coordsys": "icrs", "fov": f"{field.arcsec / 3600:.8f}", "format": self.format}
        return f"{self.server}/hips2fits?{urlencode(field.place | query)}"


LEGACY = {"legacy-dr10": "ls-dr10", "legacy-dr9": "ls-dr9"}  # --survey -> layer of the viewer


def service(survey: str, format: Format, bands: tuple[str, ...]) -> Service:
    """The server of a survey.

    Args:
        survey: legacy-dr10, legacy-dr9, sdss, panstarrs or hips:ID.

    Raises:
        BadInput: there is no such survey, or it has no such format or bands.
    """
    if survey in LEGACY:
        return LegacySurveys(format, bands, LEGACY[survey])
    if survey == "sdss":
        return Sdss(format, bands)
    if survey == "panstarrs":
        return PanStarrs(format, bands)
    if survey.startswith("hips:"):
        hips = survey.removeprefix("hips:")
        if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)+", hips, re.ASCII):  # of a part of an id the server takes any HiPS
            raise BadInput(f"--survey {survey}: is not the id of a HiPS, such as hips:CDS/P/DSS2/color")
        return Hips(format, bands, hips)
    names = ", ".join([*LEGACY, "sdss", "panstarrs", "hips:ID", "files:DIR"])
    raise BadInput(f"--survey {survey}: there is no such survey; there are {names}")


def files_of_bands(listing: bytes) -> dict[str, str]:
    """The first file of each band in an answer of ps1filenames.py with sep=comma: a CSV table with the columns filter and filename."""
    files: dict[str, str] = {}
    for row in csv.DictReader(listing.decode("ascii", errors="replace").splitlines()):
        if row.get("filter") and row.get("filename"):
            files.setdefault(row["filter"], row["filename"])
    return files


def check_listing(content: bytes) -> None:
    """Check an answer of ps1filenames.py.

    Raises:
        WrongAnswer: it is not such a table.
    """
    columns = content.partition(b"\n")[0].strip().split(b",")
    if not {b"filter", b"filename"} <= set(columns):
        raise WrongAnswer("the answer is not a list of image files")
