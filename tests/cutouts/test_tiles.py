"""Cutouts from tiles are the pixels of the sky at that place; no file is opened twice, and the tile that shows most is used."""

import io
import logging
import os
import re
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS, Sip
from PIL import Image

from hf_galaxy.commands.cutouts import command
from hf_galaxy.cutouts import cutting
from hf_galaxy.cutouts.tiles import tile_files
from hf_galaxy.errors import BadInput

SKY = np.random.default_rng(1).normal(size=(3, 150, 150)).astype(np.float32)
SCALE = 0.5  # arcsec
RA, DEC = 359.9999, 60.0  # in the middle of the sky, near which the right ascension jumps
BANDS = ("g", "r", "z")


@pytest.fixture(autouse=True)
def no_bar(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


def wcs_of(x=0, y=0, angle=0.0):
    """The WCS of a tile whose first pixel is (x, y) of the sky."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [RA, DEC], [75 - x, 75 - y]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = turn @ np.diag([-SCALE, SCALE]) / 3600
    return wcs


def write_tile(path, values, wcs, compressed=False, first=(), **header):
    hdu = (fits.CompImageHDU if compressed else fits.ImageHDU if first else fits.PrimaryHDU)(
        values, wcs.to_header(relax=True)
    )
    hdu.header.update(header)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([fits.PrimaryHDU(), *first, hdu] if compressed or first else [hdu]).writeto(path)


@pytest.fixture
def survey(tmp_path):
    """Four tiles of 80 x 80 pixels, 10 of them shared with the next, in three bands."""
    for y in (0, 70):
        for x in (0, 70):
            for band, values in zip(BANDS, SKY, strict=True):
                part = values[y : y + 80, x : x + 80]
                write_tile(tmp_path / f"tiles/sky-{x}-{y}-{band}.fits", part, wcs_of(x, y))
    return tmp_path / "tiles"


def catalogue(path, pixels):
    """A table of galaxies at pixels of the sky."""
    places = [wcs_of().pixel_to_world(x, y) for x, y in pixels]
    table = {"id": [f"g{i}" for i in range(len(pixels))], "ra": [each.ra.deg for each in places]}
    pd.DataFrame(table | {"dec": [each.dec.deg for each in places]}).to_csv(path, index=False)
    return path


def cut(tmp_path, source, pixels, *words, out="out", format="fits", side=15):
    table = catalogue(tmp_path / "t.csv", pixels)
    fov = side * SCALE
    command(
        [
            str(table),
            "--survey",
            f"files:{source}",
            "--fov-arcsec",
            str(fov),
            "--format",
            format,
            *words,
            "--out",
            str(tmp_path / out),
        ]
    )
    return pd.read_csv(tmp_path / out / "cutouts.csv", index_col="id_str")


def values_of(tmp_path, name, out="out"):
    return fits.getdata(tmp_path / out / "images" / f"{name}.fits")


def of_sky(x, y, side=15, band=0):
    return Cutout2D(SKY[band], (x, y), side, mode="partial", fill_value=np.nan).data


PIXELS = [(20, 20), (72, 20), (100.6, 40.3), (100.2, 110.7), (130, 30), (30, 130)]


def test_cutouts_are_the_pixels_of_the_sky_with_their_wcs(tmp_path, survey):
    done = cut(tmp_path, survey, PIXELS, "--bands", *BANDS)
    assert done.missing.tolist() == [0] * len(PIXELS)
    for i, (x, y) in enumerate(PIXELS):
        values, header = fits.getdata(tmp_path / f"out/images/g{i}.fits", header=True)
        assert header["BANDS"] == "g r z"
        for band in range(3):
            np.testing.assert_array_equal(values[band], of_sky(x, y, band=band))
        centre = SkyCoord(done.ra.iloc[i], done.dec.iloc[i], unit="deg")
        place = WCS(header, naxis=2).world_to_pixel(centre)
        assert np.abs(np.array(place) - 7).max() <= 0.5


def test_no_file_is_opened_twice(tmp_path, survey, monkeypatch):
    opened, real = Counter(), fits.open

    def counted(file, *args, **options):
        opened[os.path.basename(str(file))] += 1
        return real(file, *args, **options)

    monkeypatch.setattr(fits, "open", counted)
    pixels = [(x, y) for x in range(10, 140, 24) for y in range(10, 140, 24)]
    cut(tmp_path, survey, pixels, "--bands", "r")
    tiles = {name: number for name, number in opened.items() if name.startswith("sky-")}
    assert set(tiles.values()) == {1}
    assert len(tiles) == 4


def test_the_tile_that_shows_most_is_used_and_what_is_missing_is_counted(tmp_path, survey, capsys):
    # The fields have 15 pixels: that of (72, 40), from 65 to 79, is whole on the tile from 0 to 79, but not on that from 70.
    done = cut(tmp_path, survey, [(72, 40), (78, 40), (145, 75), (148, 148), (149.4, 149.4)], "--bands", "g")
    np.testing.assert_array_equal(values_of(tmp_path, "g0"), of_sky(72, 40))
    np.testing.assert_array_equal(values_of(tmp_path, "g1"), of_sky(78, 40))
    expected = of_sky(145, 75)
    expected[:2] = np.nan  # rows 68 and 69; the upper tile begins at 70
    np.testing.assert_array_equal(values_of(tmp_path, "g2"), expected)
    assert done.missing["g2"] == pytest.approx(np.isnan(expected).mean())
    place = SkyCoord(done.ra["g2"], done.dec["g2"], unit="deg")
    middle = WCS(fits.getheader(tmp_path / "out/images/g2.fits")).world_to_pixel(place)
    assert np.abs(np.array(middle) - 7).max() <= 0.5
    failed = pd.read_csv(tmp_path / "out/failed.csv", index_col="id_str")
    assert list(failed.index) == ["g3", "g4"]
    assert failed.reason.str.contains("% of the pixels of its field have no values").all()
    assert "3 of 5 galaxies have a picture; 1 of them have pixels without a value" in capsys.readouterr().out


def test_pixels_that_are_nan_are_missing_too(tmp_path):
    values = SKY[0].copy()
    values[:, :60] = np.nan
    write_tile(tmp_path / "a/a.fits", values, wcs_of())
    write_tile(tmp_path / "a/b.fits", SKY[0][:80, :80], wcs_of())
    write_tile(tmp_path / "a/c.fits", np.where(np.arange(150) < 59, np.nan, SKY[0]).astype(np.float32), wcs_of())
    done = cut(tmp_path, tmp_path / "a", [(60, 40), (60, 110), (20, 110), (40, 75)])
    np.testing.assert_array_equal(values_of(tmp_path, "g0"), of_sky(60, 40))
    # g1: 7 columns are missing on a, 6 on c. g3: 3 rows are on no tile but b, where they are missing.
    assert done.missing.to_dict() == pytest.approx({"g0": 0, "g1": 6 / 15, "g3": 3 / 15})


def test_a_tile_that_shows_less_changes_nothing(tmp_path):
    for name, first in [("a", 55), ("b", 58), ("c", 54), ("d", 59)]:
        write_tile(
            tmp_path / f"a/{name}.fits", np.where(np.arange(150) < first, np.nan, SKY[0]).astype(np.float32), wcs_of()
        )
    done = cut(tmp_path, tmp_path / "a", [(60, 40)])
    assert done.missing["g0"] == pytest.approx(np.isnan(values_of(tmp_path, "g0")).mean()) == pytest.approx(1 / 15)


def test_an_interrupted_command_looks_at_the_tiles_again_that_may_show_more(tmp_path, survey, monkeypatch):
    real = cutting.opened

    def stopped(files):
        if "sky-0-70" in files[0].name:
            raise KeyboardInterrupt
        return real(files)

    monkeypatch.setattr(cutting, "opened", stopped)
    monkeypatch.setattr("signal.raise_signal", lambda number: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    pixels = [(78, 40), (20, 20)]  # the first is cut in part by now
    with pytest.raises(FileNotFoundError, match=r"cutouts\.csv"):
        cut(tmp_path, survey, pixels, "--bands", "g")
    assert np.isnan(values_of(tmp_path, "g0")).any()
    monkeypatch.setattr(cutting, "opened", real)
    done = cut(tmp_path, survey, pixels, "--bands", "g")
    np.testing.assert_array_equal(values_of(tmp_path, "g0"), of_sky(78, 40))
    assert done.missing.tolist() == [0, 0]


@pytest.mark.parametrize("format", ["fits", "jpg"])
def test_a_field_of_zeros_is_no_picture(tmp_path, format):
    values = SKY[0].copy()
    values[:60] = 0
    write_tile(tmp_path / "a/t.fits", values, wcs_of())
    assert len(cut(tmp_path, tmp_path / "a", [(60, 40), (60, 62)], format=format)) == 1
    assert pd.read_csv(tmp_path / "out/failed.csv")["reason"].tolist() == ["the values in its field are all 0"]


def test_the_same_tiles_by_another_path_are_the_same(tmp_path, survey, monkeypatch):
    cut(tmp_path, survey, [(20, 20)], "--bands", "g")
    monkeypatch.chdir(tmp_path)
    cut(tmp_path, "tiles", [(20, 20)], "--bands", "g")
    with pytest.raises(SystemExit, match="holds cutouts with --survey files:"):
        cut(tmp_path, "tiles/sky-*.fits", [(20, 20)], "--bands", "g")


def test_outside_of_all_tiles_is_said(tmp_path, survey):
    cut(tmp_path, survey, [(20, 20), (-50, 20), (20, 20000)], "--bands", "g")
    assert pd.read_csv(tmp_path / "out/failed.csv")["reason"].tolist() == ["no tile shows its place"] * 2


@pytest.mark.parametrize(
    "kind", ["compressed", "gzipped", "scaled", "whole numbers", "second extension", "galactic", "distorted"]
)
def test_tiles_of_every_kind(tmp_path, kind):
    path, values, wcs = tmp_path / "a/tile.fits", SKY[0], wcs_of()
    pixels = (60.3, 81.8)
    if kind == "compressed":
        write_tile(path.with_name("tile.fits.fz"), values, wcs, compressed=True)
    elif kind == "gzipped":
        write_tile(path.with_name("tile.fits.gz"), values, wcs)
    elif kind == "scaled":
        hdu = fits.PrimaryHDU(values.copy(), wcs.to_header())  # which is scaled in place
        hdu.scale("int16", bscale=0.001, bzero=1)
        path.parent.mkdir()
        hdu.writeto(path)
    elif kind == "whole numbers":
        values = np.rint(values * 1000).astype(np.int16)
        values[82, 60] = -32768
        write_tile(path, values, wcs, BLANK=-32768)
        values = np.where(values == -32768, np.nan, values)
    elif kind == "second extension":
        mask = fits.ImageHDU(np.ones((150, 150), np.float32), wcs.to_header(), "MASK")
        write_tile(path, values, wcs, first=[fits.ImageHDU(np.ones((3, 4, 5), np.float32)), mask])
    elif kind == "distorted":
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
        wcs.sip = Sip(np.diag([0, 0, 2e-4])[:, ::-1], np.diag([1e-4, 0, 0]), None, None, wcs.wcs.crpix)
        x, y = wcs.world_to_pixel(wcs_of().pixel_to_world(*pixels))
        assert abs(x - pixels[0]) > 0.01
        write_tile(path, values, wcs)
        values = Cutout2D(SKY[0], (float(x), float(y)), 15).data
    else:
        middle = SkyCoord(RA, DEC, unit="deg").galactic
        wcs.wcs.ctype, wcs.wcs.crval = ["GLON-TAN", "GLAT-TAN"], [middle.l.deg, middle.b.deg]
        place = wcs_of().pixel_to_world(*pixels)
        x, y = wcs.world_to_pixel(place)
        write_tile(path, values, wcs)
        values = Cutout2D(SKY[0], (float(x), float(y)), 15).data
    cut(tmp_path, tmp_path / "a", [pixels])
    expected = values if kind in ("galactic", "distorted") else Cutout2D(values.astype(np.float32), pixels, 15).data
    header = fits.getheader(tmp_path / "out/images/g0.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the sizes that the header of a mosaic with distortions has
        assert np.abs(np.array(WCS(header).world_to_pixel(wcs_of().pixel_to_world(*pixels))) - 7).max() <= 0.5
    tolerance = {"compressed": 0.2, "scaled": 0.001}.get(kind, 0)
    np.testing.assert_allclose(values_of(tmp_path, "g0"), expected, atol=tolerance, rtol=0)


def test_a_source_is_in_the_middle_of_its_cutout_on_a_turned_tile(tmp_path):
    wcs = wcs_of(angle=0.7)
    place = wcs_of().pixel_to_world(62.0, 93.0)
    x, y = (float(each) for each in wcs.world_to_pixel(place))
    rows, columns = np.mgrid[:150, :150]
    write_tile(tmp_path / "a/t.fits", np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8).astype(np.float32), wcs)
    cut(tmp_path, tmp_path / "a", [(62.0, 93.0)], side=21)
    values = values_of(tmp_path, "g0")
    rows, columns = np.mgrid[:21, :21]
    assert (values * rows).sum() / values.sum() == pytest.approx(10, abs=0.51)
    assert (values * columns).sum() / values.sum() == pytest.approx(10, abs=0.51)


def test_a_jpeg_has_the_size_that_was_asked_for_and_north_up(tmp_path):
    sky = np.zeros((3, 150, 150), np.float32) + 0.01 * SKY
    sky[2, 90:93, 70:73] = 5  # red, north of the middle
    for band, values in zip(BANDS, sky, strict=True):
        write_tile(tmp_path / f"a/t.{band}.fits", values, wcs_of())
    done = cut(tmp_path, tmp_path / "a", [(71, 81)], "--bands", *BANDS, "--size", "64", format="jpg", side=32)
    picture = np.asarray(Image.open(tmp_path / "out/images" / done.image["g0"])).astype(int)
    assert picture.shape == (64, 64, 3)
    red = picture[..., 0] - picture[..., 2]
    row, column = np.unravel_index(red.argmax(), red.shape)
    assert row < 20
    assert 24 < column < 40


def test_a_second_run_opens_nothing_and_a_killed_one_makes_partial_cutouts_again(tmp_path, survey, monkeypatch):
    pixels = [(20, 20), (145, 75)]
    done = cut(tmp_path, survey, pixels, "--bands", "g")
    assert done.missing["g1"] > 0
    monkeypatch.setattr(cutting, "opened", None)
    cut(tmp_path, survey, pixels, "--bands", "g")
    monkeypatch.undo()
    journal = tmp_path / "out/.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0])  # as if it was killed before the last tile: g1 might be better on another
    (tmp_path / "out/images/g1.fits").write_bytes(b"worse")
    again = cut(tmp_path, survey, pixels, "--bands", "g")
    pd.testing.assert_frame_equal(again, done)
    assert values_of(tmp_path, "g1").shape == (15, 15)


# Which files are tiles


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_files_of_a_tile_differ_in_the_word_of_their_band(tmp_path, caplog):
    touch(
        tmp_path, "ls-1p2-image-g.fits.fz", "ls-1p2-image-r.fits.fz", "ls-1p2-invvar-g.fits.fz", "g/t1.fit", "r/t1.fit",
        "rings.2069.stk.g.unconv.fits", "rings.2069.stk.r.unconv.fits", "alone_g.fits", "big.fits", "notes.txt", ".x_g.fits",
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        found = tile_files(str(tmp_path), ("g", "r"))
    assert [[file.relative_to(tmp_path).as_posix() for file in each] for each in found] == [
        ["g/t1.fit", "r/t1.fit"],
        ["ls-1p2-image-g.fits.fz", "ls-1p2-image-r.fits.fz"],
        ["rings.2069.stk.g.unconv.fits", "rings.2069.stk.r.unconv.fits"],
    ]
    assert "1 files of weights, masks and the like are no tiles" in caplog.text
    assert "1 files have none of the bands g r in their names" in caplog.text
    assert "1 tiles lack a file of one of the bands g r" in caplog.text
    caplog.set_level("INFO")
    assert len(tile_files(f"{tmp_path}/ls-*.fits.fz", ())) == 2
    assert "each of 2 files is a tile of its own; --bands joins those of several bands" in caplog.messages


@pytest.mark.parametrize(
    ("source", "bands", "said"),
    [("empty", (), "there is no FITS file"), (".", ("i",), "no file has the band i as a word of its name"),
     (".", ("g", "r"), "no tile has a file of each of the bands g r")],
)  # fmt: skip
def test_no_tiles_are_refused(tmp_path, source, bands, said):
    touch(tmp_path, "a-g.fits", "b-r.fits", "empty/readme.txt")
    with pytest.raises(BadInput, match=said):
        tile_files(str(tmp_path / source), bands)


def test_damaged_tiles_are_left_out_and_said(tmp_path, caplog):
    write_tile(tmp_path / "a/good.fits", SKY[0], wcs_of())
    whole = (tmp_path / "a/good.fits").read_bytes()
    for name, content in {"short": whole[:-30000], "page": b"<html>", "empty": b""}.items():
        (tmp_path / f"a/{name}.fits").write_bytes(content)
    file = io.BytesIO()
    fits.PrimaryHDU(SKY[0]).writeto(file)
    (tmp_path / "a/placeless.fits").write_bytes(file.getvalue())
    cut(tmp_path, tmp_path / "a", [(60, 40)])
    np.testing.assert_array_equal(values_of(tmp_path, "g0"), of_sky(60, 40))
    assert re.search("4 tiles are left out, such as .*empty.fits: cannot be read as a FITS file", caplog.text)


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--bands", "g", "r"), "one band, or three from blue to red"), (("--bands", "g", "--size", "5"), "from 16 to 3000"),
     (("--bands", "g", "--size", "50", "--format", "fits"), "keep the pixels of the survey")],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_any_tile_is_opened(tmp_path, survey, words, said):
    table = catalogue(tmp_path / "t.csv", [(1, 1)])
    with pytest.raises(SystemExit, match=said):
        command(
            [str(table), "--survey", f"files:{survey}", "--fov-arcsec", "8", *words, "--out", str(tmp_path / "out")]
        )
    assert not (tmp_path / "out").exists()


def test_bands_of_other_pixels_are_said(tmp_path):
    wide = wcs_of()
    wide.wcs.cd = wide.wcs.cd * 2
    write_tile(tmp_path / "a/t-g.fits", SKY[0], wcs_of())
    write_tile(tmp_path / "a/t-r.fits", SKY[1], wide)
    cut(tmp_path, tmp_path / "a", [(75, 75)], "--bands", "g", "r")
    assert "pixels of different sizes" in pd.read_csv(tmp_path / "out/failed.csv")["reason"][0]
