"""Published fluxes are described by the card with numbers of the data, checked, combined with alike datasets, and reduced on request."""

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from huggingface_hub import DatasetCard
from safetensors.numpy import load, save

from hf_galaxy.data.fluxes import arcsec_per_pixel_of, decode_fluxes, encode_fluxes
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.flux_counts import sentence_on_missing
from hf_galaxy.importing.reading import Reading
from hf_galaxy.publishing.check_published import check_published
from hf_galaxy.publishing.combine import Combined

BANDS = ("g", "r", "i", "z")
SCALE = 0.25


def cube_of(i):
    y, x = np.mgrid[:40, :48]
    light = np.exp(-np.hypot(x - 24, y - 20) / (3 + i % 5))
    return np.stack([(b + 1) * light for b in range(4)]).astype("f4") + np.random.default_rng(i).normal(
        0, 0.1, (4, 40, 48)
    ).astype("f4")


CUBES = {f"g{i:02}": cube_of(i) for i in range(40)}
CUBES["g07"][1, :4, :5] = np.nan
CUBES["g08"][3] = np.nan


def catalogue_in(folder, cubes=CUBES, bands=BANDS):
    (folder / "cutouts").mkdir(parents=True)
    for name, cube in cubes.items():
        hdu = fits.PrimaryHDU(cube)
        hdu.header.update(
            CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CD1_1=-SCALE / 3600, CD2_2=SCALE / 3600, BANDS="".join(bands)
        )
        hdu.writeto(folder / f"cutouts/{name}.fits")
    lines = [f"{name},{i},{40 - i}" for i, name in enumerate(cubes)]
    (folder / "votes.csv").write_text("\n".join(["id_str,ring_yes,ring_no", *lines]) + "\n")
    (folder / "columns.json").write_text(json.dumps({"image": "{id_str}.fits"}))
    return folder


def publish(run_script, folder, *options, out="data", bands=BANDS, **more):
    command = (
        "--images",
        folder / "cutouts",
        "--catalogue",
        folder / "votes.csv",
        "--columns",
        folder / "columns.json",
        "--tree",
        "gz_rings",
    )
    given = ("--bands", *bands) if bands else ()
    done = run_script("publish_dataset", "catalogue", *command, "--out", folder / out, *given, *options, **more)
    return folder / out, done


def fluxes_in(folder, bands=BANDS):
    return {
        row["id_str"]: row["flux"]["bytes"]
        for rows in open_dataset(str(folder), Reading(bands=bands)).values()
        for row in rows[list(range(len(rows)))].to_pylist()
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory, run_script):
    folder, done = publish(run_script, catalogue_in(tmp_path_factory.mktemp("survey")))
    assert "1,940 pixels (2.5 %) of 2 galaxies have no value in some band (NaN)." in done.stdout
    return folder


def findings_of(folder):
    return {
        (f.level, f.check): f.text
        for f in check_published(str(folder), None, 0.01, 2)
        if f.check in ("fluxes", "statistics", "schema")
    }


def test_the_card_and_the_statistics_have_the_numbers_of_the_data(published):
    statistics = json.loads((published / "statistics.json").read_text())
    missing = [np.isnan(cube).any(axis=0) for cube in CUBES.values()]
    assert statistics["fluxes"] == {
        "bands": sorted(BANDS), "galaxies": 40, "sizes": {"48 x 40": 40}, "arcsec_per_pixel": [SCALE, SCALE],
        "pixels": 40 * 40 * 48, "pixels_without_value": int(np.sum(missing)), "galaxies_with_such_pixels": 2,
    }  # fmt: skip
    card = DatasetCard.load(published / "README.md")
    for line in (
        "| bands | g, i, r, z |",
        "| 48 x 40 pixels | 40 galaxies |",
        "| side of a pixel | 0.25 arcsec |",
        "| pixels without a value | 1,940 of 76,800 |",
    ):
        assert line in card.text
    assert 'load(galaxies[0]["flux"]["bytes"])' in card.text
    assert "`image` is a picture for people, in colour of r, i, z." in card.text
    assert "Fluxes were converted to pictures by the asinh stretch" in card.text
    for name, content in fluxes_in(published).items():
        assert np.array_equal(np.stack([load(content)[band] for band in BANDS]), CUBES[name], equal_nan=True)


def test_the_check_agrees_and_names_bands_without_values(published):
    found = findings_of(published)
    assert found["ok", "fluxes"].startswith("g i r z: 40 of 48 x 40 pixels; 1,940 pixels (2.5 %) of 2 galaxies")
    assert found["note", "fluxes"] == "1 have no value in band z"
    assert found["ok", "statistics"] == "statistics.json agrees with the data"
    assert "image, flux" in found["ok", "schema"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "1 cannot be read: .*there is no picture of fluxes"), (b"damaged", "1 cannot be read: "),
        (encode_fluxes({"g": np.zeros((4, 4))}), "1 have the bands g, most g i r z: "),
        (encode_fluxes(dict.fromkeys(BANDS, np.full((4, 4), np.nan))), "1 have no value in any band: "),
        (save({b: np.zeros((4, 4 + i), "f4") for i, b in enumerate(BANDS)}), "1 cannot be read: .*not pictures of one size"),
    ],
)  # fmt: skip
def test_the_check_finds_what_is_wrong(published, tmp_path, content, problem):
    folder = shutil.copytree(published, tmp_path / "damaged")
    file = next((folder / "data").glob("train-*.parquet"))
    table = pq.read_table(file)
    rows = table["flux"].to_pylist()
    rows[3]["bytes"] = content
    place = table.schema.get_field_index("flux")
    pq.write_table(
        table.set_column(place, table.schema.field("flux"), pa.array(rows, table.schema.field("flux").type)), file
    )
    name = table["id_str"][3].as_py()
    texts = [f.text for f in check_published(str(folder), None, 0.01, 2) if (f.level, f.check) == ("problem", "fluxes")]
    assert len(texts) == 1
    assert re.search(problem, texts[0])
    assert name in texts[0]


def test_crop_and_size_are_of_the_fluxes_too(tmp_path, run_script):
    survey = catalogue_in(tmp_path / "survey")
    cropped, _ = publish(run_script, survey, "--crop", "0.5", out="cropped")
    for name, content in fluxes_in(cropped).items():
        assert np.array_equal(decode_fluxes(content, BANDS), CUBES[name][:, 10:30, 14:34], equal_nan=True)
        assert arcsec_per_pixel_of(content) == SCALE
    smaller, _ = publish(run_script, survey, "--size", "20", out="smaller")
    for name, content in fluxes_in(smaller).items():
        planes = decode_fluxes(content, BANDS)
        assert planes.shape == (4, 20, 24)
        assert arcsec_per_pixel_of(content) == 2 * SCALE
        if name not in ("g07", "g08"):
            assert np.allclose(planes.mean(axis=(1, 2)), CUBES[name].mean(axis=(1, 2)), atol=0.02)
    assert json.loads((smaller / "statistics.json").read_text())["fluxes"]["arcsec_per_pixel"] == [0.5, 0.5]
    refused, done = publish(run_script, survey, "--size", "20", "--native", out="native", expect=1)
    assert "--native keeps 8-bit pictures at their original size; leave it out with --bands" in done.stderr
    assert not refused.exists()


def test_parts_written_apart_are_the_whole(tmp_path, published, run_script):
    survey = catalogue_in(tmp_path / "survey")
    for part in ("1/2", "2/2"):
        publish(run_script, survey, "--part", part)
    folder, _ = publish(run_script, survey)
    files = sorted(file.relative_to(published) for file in published.rglob("*.parquet"))
    assert files
    for file in files:
        assert (folder / file).read_bytes() == (published / file).read_bytes()


def test_alike_datasets_are_combined(tmp_path, published, run_script):
    others = {f"h{i:02}": cube_of(100 + i) for i in range(30)}
    second, _ = publish(run_script, catalogue_in(tmp_path / "second", others), out="second")
    run_script("publish_dataset", "combine", "--parts", published, second, "--out", tmp_path / "both")
    expected = fluxes_in(published) | fluxes_in(second)
    assert fluxes_in(tmp_path / "both") == expected
    statistics = json.loads((tmp_path / "both/statistics.json").read_text())
    assert statistics["fluxes"]["galaxies"] == 70
    assert ("ok", "fluxes") in findings_of(tmp_path / "both")


def test_other_datasets_are_not_combined(tmp_path, published, run_script, mock_dataset):
    with pytest.raises(
        BadInput, match=r"mock: has no column flux with fluxes, in contrast to .*data; combine datasets that are alike"
    ):
        Combined.read([published, mock_dataset])
    few = {f"h{i:02}": cube_of(i)[:3] for i in range(20)}
    second, _ = publish(run_script, catalogue_in(tmp_path / "second", few, "grz"), bands=("g", "r", "z"))
    with pytest.raises(BadInput, match=r"data: its fluxes are of the bands g r z, not g i r z"):
        Combined.read([published, second])


def test_options_are_refused_before_the_catalogue_is_read(tmp_path, run_script):
    survey = catalogue_in(tmp_path / "survey")
    _, done = publish(run_script, survey, bands=("g", "g"), expect=1)
    assert "--bands g g: g is there twice" in done.stderr
    (survey / "columns.json").write_text(json.dumps({"image": "{id_str}_{band}.fits"}))
    _, done = publish(run_script, survey, bands=None, expect=1)
    assert "image '{id_str}_{band}.fits' is files of several bands; name these, such as --bands g r i z" in done.stderr
    (survey / "columns.json").write_text(json.dumps({"image": "{id_str}_g.fits\n{id_str}_r.fits"}))
    _, done = publish(run_script, survey, bands=("g", "r", "z"), expect=1)
    assert "image has 2 lines, but there are 3 --bands" in done.stderr


@pytest.mark.parametrize(
    ("pixels", "galaxies", "sentence"),
    [
        (0, 0, "All pixels have a value in all bands."),
        (1, 1, "1 pixel (less than 0.1 %) of 1 galaxy has no value in some band (NaN)."),
        (1234, 56, "1,234 pixels (0.3 %) of 56 galaxies have no value in some band (NaN)."),
    ],
)
def test_the_sentence_on_missing_values(pixels, galaxies, sentence):
    counts = {"pixels": 411_333, "pixels_without_value": pixels, "galaxies_with_such_pixels": galaxies}
    assert sentence_on_missing(counts) == sentence
