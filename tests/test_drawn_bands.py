"""The survey of results/bands has the light, the noise and the colours that its table and its page say."""

import csv
import importlib.util
import sys

import galsim
import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def draw():
    spec = importlib.util.spec_from_file_location("draw_bands", ROOT / "results/bands/draw.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    yield spec.loader.exec_module(module) or module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def survey(draw, tmp_path_factory):
    """Rows of the table of 24 galaxies, each with its planes (4, 64, 64)."""
    folder = tmp_path_factory.mktemp("bands")
    (folder / "fits").mkdir()
    rows = [draw.row(i, seed=5, out=folder) for i in range(24)]
    files = [folder / row["file"] for row in rows]
    return rows, np.stack([[fits.getdata(file, band) for band in draw.BANDS] for file in files])


def test_apertures_hold_the_fluxes_of_the_table(draw, survey):
    rows, pictures = survey
    x = (np.arange(64) - 31.5) * draw.SCALE
    aperture = np.hypot(x, x[:, None]) < 7
    measured = 22.5 - 2.5 * np.log10(np.nansum(pictures[..., aperture], axis=-1))
    drawn = np.array([[row[f"mag_{band}"] for band in draw.BANDS] for row in rows])
    # Neighbours brighten some galaxies, and some light lies outside of the aperture.
    assert np.abs(np.median(measured - drawn, axis=0)).max() < 0.08


def test_the_noise_is_that_of_the_depth(draw, survey):
    _, pictures = survey
    x = (np.arange(64) - 31.5) * draw.SCALE
    for plane, fwhm, depth in zip(np.moveaxis(pictures, 1, 0), draw.SEEING, draw.DEPTH, strict=True):
        sky = plane[:, np.hypot(x, x[:, None]) > 8.4]
        sigma = np.nanmedian(np.abs(sky - np.nanmedian(sky))) * 1.4826
        # The flux of a point source that is fitted to white noise has the variance sigma^2 / sum(psf^2).
        psf = galsim.Moffat(beta=3.5, fwhm=fwhm).drawImage(nx=65, ny=65, scale=draw.SCALE).array
        assert 22.5 - 2.5 * np.log10(5 * sigma / np.sqrt((psf**2).sum())) == pytest.approx(depth, abs=0.06)


def test_colours_are_those_that_galsim_calculates(draw):
    bands = [galsim.Bandpass(f"LSST_{band}.dat", "nm").withZeropoint("AB") for band in draw.BANDS]
    z = 60
    for template, ours in zip(draw.TEMPLATES, draw.template_magnitudes()[:, z], strict=True):
        light = galsim.SED(f"CWW_{template}_ext.sed", "Ang", "flambda").atRedshift(draw.REDSHIFTS[z])
        theirs = np.array([light.calculateMagnitude(band) for band in bands])
        assert ours - ours[draw.R] == pytest.approx(theirs - theirs[draw.R], abs=3e-3)


def test_a_galaxy_depends_on_the_seed_and_its_number_alone(draw, survey, tmp_path):
    rows, pictures = survey
    (tmp_path / "fits").mkdir()
    assert draw.row(7, seed=5, out=tmp_path) == rows[7]
    again = np.stack([fits.getdata(tmp_path / rows[7]["file"], band) for band in draw.BANDS])
    assert np.array_equal(again, pictures[7], equal_nan=True)


def test_the_table_is_written(draw, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["draw.py", "--out", str(tmp_path), "--galaxies", "3"])
    draw.main()
    with (tmp_path / "survey.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["drawn-0-00000", "drawn-0-00001", "drawn-0-00002"]
    assert all((tmp_path / row["file"]).is_file() for row in rows)
    assert fits.getheader(tmp_path / rows[0]["file"], "z")["BUNIT"] == "nanomaggy"


def test_pictures_of_the_galaxies_are_made_in_three_ways(draw, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["draw.py", "--out", str(tmp_path), "--galaxies", "8"])
    draw.main()
    spec = importlib.util.spec_from_file_location("draw_pictures", ROOT / "results/bands/pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    monkeypatch.setattr(sys, "argv", ["pictures.py", "--survey", str(tmp_path)])
    pictures.main()
    for way in ("asinh", "lupton", "fixed"):
        with (tmp_path / f"{way}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 8
        shown = [np.asarray(Image.open(tmp_path / row["file"]).convert("RGB")).astype(int) for row in rows]
        assert {picture.shape for picture in shown} == {(64, 64, 3)}
    # With one stretch for all a picture is brighter where there is more flux: red is i, and the first row of FITS is the last.
    flux = np.stack([fits.getdata(tmp_path / "fits" / f"{row['id']}.fits", "i") for row in rows])[:, ::-1]
    red, known = np.stack(shown)[..., 0], np.isfinite(flux)
    order = np.argsort(flux[known])
    assert (np.diff(red[known][order]) >= 0).all()
