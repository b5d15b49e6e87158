"""An answer counts if it is the whole picture of the size that was asked for, with something on it."""

import numpy as np
import pytest
from astropy.io import fits

from hf_galaxy.cutouts.answers import NoPicture, WrongAnswer, check_fits, check_picture, cube, fits_file
from tests.cutouts.survey_server import fits_at, jpeg_at

JPEG, FITS = jpeg_at(1, 2, 64), fits_at(1, 2, 64, bands=3)


def test_whole_pictures_count():
    check_picture(JPEG, 64)
    check_fits(FITS, 64)
    check_fits(fits_at(1, 2, 64), 64)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("whole", [1, 2880], ids=["anywhere", "after a whole block"])
def test_parts_do_not(share, whole):
    with pytest.raises(WrongAnswer):
        check_picture(JPEG[: int(len(JPEG) * share)], 64)
    with pytest.raises(WrongAnswer):
        check_fits(FITS[: int(len(FITS) * share) // whole * whole], 64)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b" \n<HTML>", "a web page"), (b"No image", "something else"), (b"\xff\xd8" + bytes(99), "damaged"),
     (FITS, "something else instead of a JPEG")],
)  # fmt: skip
def test_other_content_is_said(content, said):
    with pytest.raises(WrongAnswer, match=said):
        check_picture(content, 64)


def test_a_fits_file_without_an_image_is_said():
    with pytest.raises(WrongAnswer, match="without an image"):
        check_fits(fits_file(None), 64)
    with pytest.raises(WrongAnswer, match="something else instead of a FITS file"):
        check_fits(JPEG, 64)
    with pytest.raises(WrongAnswer, match="64 x 64 pixels instead of 63 x 63"):
        check_fits(FITS, 63)


@pytest.mark.parametrize("level", [0, np.nan, 3.5])
def test_a_field_without_values_is_outside_of_the_survey(level):
    with pytest.raises(NoPicture, match="outside of its footprint") as raised:
        check_fits(fits_at(1, 2, 64, 3, level), 64)
    assert type(raised.value) is NoPicture  # another try would bring the same


def test_bands_are_joined_in_order_with_the_wcs_of_the_first(tmp_path):
    values = [np.full((8, 8), band, np.float32) for band in range(3)]
    headers = [fits.Header({"CRVAL1": 10.0 + band}) for band in range(3)]
    (tmp_path / "t.fits").write_bytes(
        cube([fits_file(*each) for each in zip(values, headers, strict=True)], ("g", "r", "i"))
    )
    joined, header = fits.getdata(tmp_path / "t.fits", header=True)
    np.testing.assert_array_equal(joined, np.stack(values))
    assert (header["CRVAL1"], header["BANDS"]) == (10, "g r i")
    with pytest.raises(WrongAnswer, match="different sizes"):
        cube([fits_file(values[0]), fits_file(values[1][:4])], ("g", "r"))
