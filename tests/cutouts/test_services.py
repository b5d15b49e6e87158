"""Each survey is asked as its documentation says, and gives the picture of the place that was asked for."""

import io
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from hf_galaxy.cutouts import services
from hf_galaxy.cutouts.answers import NoPicture
from hf_galaxy.cutouts.services import Field, files_of_bands, service
from hf_galaxy.errors import BadInput
from tests.cutouts.survey_server import jpeg_at, values_at

FIELD = Field(184.74, 5.5, 64.0, 128)


def asked(url):
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}", {k: v for k, [v] in parse_qs(parts.query).items()}


PLACE = {"ra": "184.7400000", "dec": "5.5000000"}


@pytest.mark.parametrize(
    ("survey", "format", "bands", "address", "query"),
    [
        ("legacy-dr10", "jpg", (), "https://www.legacysurvey.org/viewer/cutout.jpg",
         {"layer": "ls-dr10", "pixscale": "0.500000", "size": "128"}),
        ("legacy-dr9", "fits", ("g", "r", "i", "z"), "https://www.legacysurvey.org/viewer/cutout.fits",
         {"layer": "ls-dr9", "pixscale": "0.500000", "size": "128", "bands": "griz"}),
        ("sdss", "jpg", (), "https://skyserver.sdss.org/dr18/SkyServerWS/ImgCutout/getjpeg",
         {"scale": "0.500000", "width": "128", "height": "128"}),
        ("hips:CDS/P/DSS2/color", "jpg", (), "https://alasky.cds.unistra.fr/hips-image-services/hips2fits",
         {"hips": "CDS/P/DSS2/color", "width": "128", "height": "128", "fov": "0.01777778", "projection": "TAN",
          "coordsys": "icrs", "format": "jpg"}),
    ],
)  # fmt: skip
def test_the_request_is_that_of_the_documentation(survey, format, bands, address, query):
    assert asked(service(survey, format, bands).url(FIELD)) == (address, PLACE | query)


def test_pan_starrs_is_asked_for_files_and_then_for_cutouts():
    stars = service("panstarrs", "jpg", ("g", "r", "z"))
    base = "https://ps1images.stsci.edu/cgi-bin"
    assert asked(stars.names_url(FIELD)) == (f"{base}/ps1filenames.py", PLACE | {"filters": "grz", "sep": "comma"})
    query = {"size": "256", "format": "jpg", "output_size": "128", "red": "z", "green": "r", "blue": "g"}
    assert asked(stars.cutout_url(FIELD, ["z", "r", "g"])) == (f"{base}/fitscut.cgi", PLACE | query)
    query = {"size": "256", "format": "fits", "red": "g"}
    assert asked(service("panstarrs", "fits", ("g",)).cutout_url(FIELD, ["g"]))[1] == PLACE | query


@pytest.mark.parametrize("survey", ["legacy-dr10", "sdss", "panstarrs", "hips:CDS/P/DSS2/color"])
def test_a_jpeg_is_the_servers_byte_for_byte(server, client, survey):
    content = service(survey, "jpg", ()).picture(FIELD, client.ask)
    assert content == jpeg_at(FIELD.ra, FIELD.dec, 128)
    assert Image.open(io.BytesIO(content)).size == (128, 128)


def test_the_reddest_band_of_pan_starrs_is_red(server, client):
    service("panstarrs", "jpg", ("g", "r", "z")).picture(FIELD, client.ask)
    query = server.asked[-1][1]
    assert [query[colour] for colour in ("red", "green", "blue")] == ["/rings/z.fits", "/rings/r.fits", "/rings/g.fits"]


@pytest.mark.parametrize(
    ("survey", "bands", "shape"),
    [
        ("legacy-dr10", (), (3, 128, 128)),
        ("legacy-dr9", ("r",), (128, 128)),
        ("panstarrs", ("g", "r", "i", "z", "y"), (5, 256, 256)),  # its own pixels, of 0.25 arcsec
        ("panstarrs", ("i",), (256, 256)),
        ("hips:CDS/P/PanSTARRS/DR1/r", (), (128, 128)),
    ],
)
def test_a_fits_file_has_a_plane_for_each_band(server, client, survey, bands, shape):
    values = fits.getdata(io.BytesIO(service(survey, "fits", bands).picture(FIELD, client.ask)))
    assert values.shape == shape
    one = values_at(FIELD.ra, FIELD.dec, shape[-1], 1 if survey == "panstarrs" else (values.ndim == 3 and 3) or 1)
    np.testing.assert_array_equal(values, np.broadcast_to(one, shape) if values.ndim == 3 else one[0])


@pytest.mark.parametrize(("dec", "said"), [(-35.0, "no image of band g here"), (-50.0, "no image of band g here")])
def test_outside_of_pan_starrs_is_said(server, client, dec, said):
    with pytest.raises(NoPicture, match=said):
        service("panstarrs", "jpg", ()).picture(Field(1, dec, 60, 64), client.ask)
    assert len(server.asked) == 1


def test_the_first_file_of_a_band_is_taken():
    listing = b"filter,filename,badflag\ng,/a.fits,0\ng,/b.fits,0\nr,/c.fits,0\n"
    assert files_of_bands(listing) == {"g": "/a.fits", "r": "/c.fits"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("legacy-dr11", "jpg", ()), "there are legacy-dr10, legacy-dr9, sdss, panstarrs, hips:ID, files:DIR"),
        (("hips:DSS2", "jpg", ()), "is not the id of a HiPS"),
        (("hips:a/b?c=d", "jpg", ()), "is not the id of a HiPS"),
        (("sdss", "fits", ()), "has only jpg"),
        (("sdss", "jpg", ("g",)), "fixed bands; leave it out"),
        (("legacy-dr10", "jpg", ("grz",)), "grz is none of the bands, which are g r i z, each a word of its own"),
        (("legacy-dr10", "jpg", ("g", "g")), "a band is there twice"),
        (("panstarrs", "jpg", ("g", "r")), "one band, or three from blue to red"),
    ],
)
def test_what_a_survey_does_not_have_is_refused(arguments, said):
    with pytest.raises(BadInput, match=said.replace("?", r"\?")):
        service(*arguments)


def test_all_servers_are_asked_by_https():
    for each in (services.LegacySurveys, services.Sdss, services.PanStarrs, services.Hips):
        assert each.server.startswith("https://")
