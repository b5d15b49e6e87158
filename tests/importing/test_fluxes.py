"""Files and arrays of fluxes become datasets through every door, with the rows that publishing gives."""

import gzip
import io
import json
import shutil
import zipfile
from concurrent.futures import Future
from contextlib import ExitStack, nullcontext

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from hf_galaxy.data.fluxes import arcsec_per_pixel_of, decode_fluxes
from hf_galaxy.data.picture_files import stem_of
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.streaming import StreamedRows
from hf_galaxy.errors import BadInput
from hf_galaxy.importing import writer
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.dataset_rows import DatasetRows
from hf_galaxy.importing.objects import name_of
from hf_galaxy.importing.proposal import Proposal
from hf_galaxy.importing.reading import Reading

BANDS = ("g", "r", "i", "z")
SCALE = 0.262
NAMES = [f"J{i:02}" for i in range(12)]


def cube_of(i, bands=4):
    y, x = np.mgrid[:20, :24]
    light = np.exp(-np.hypot(x - 12, y - 10) / (2 + i % 3))
    rng = np.random.default_rng(i)
    return np.stack([(b + 1) * light + rng.normal(0, 0.1, light.shape) for b in range(bands)]).astype(np.float32)


CUBES = {name: cube_of(i) for i, name in enumerate(NAMES)}


def fits_bytes(values, **header):
    hdu = fits.PrimaryHDU(values)
    hdu.header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CD1_1=-SCALE / 3600, CD2_2=SCALE / 3600, **header)
    file = io.BytesIO()
    hdu.writeto(file)
    return file.getvalue()


def npy_bytes(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def write_table(path, columns=("objid", "smooth"), rows=None):
    rows = rows or [(name, i / 100) for i, name in enumerate(NAMES)]
    path.write_text("\n".join(",".join(map(str, row)) for row in (columns, *rows)) + "\n")


@pytest.fixture
def survey(tmp_path):
    """A table, and a cube of fluxes of each galaxy; one galaxy lacks a band and one some pixels."""
    CUBES["J03"][2] = np.nan
    CUBES["J04"][0, :2, :5] = np.nan
    (tmp_path / "cutouts").mkdir()
    for name, cube in CUBES.items():
        (tmp_path / f"cutouts/{name}.fits").write_bytes(fits_bytes(cube))
    write_table(tmp_path / "survey.csv")
    return tmp_path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def reading(**options):
    return Reading(bands=BANDS, **options)


def rows_of(opened):
    """id_str -> its row, and its split."""
    return {
        row["id_str"]: row | {"split": split}
        for split, rows in opened.items()
        for row in rows[list(range(len(rows)))].to_pylist()
    }


def fluxes_of(opened, bands=BANDS):
    return {name: decode_fluxes(row["flux"]["bytes"], bands) for name, row in rows_of(opened).items()}


def equal(fluxes, cubes):
    return fluxes.keys() == cubes.keys() and all(np.array_equal(fluxes[n], cubes[n], equal_nan=True) for n in cubes)


def test_a_table_and_its_files_become_both_columns(survey, caplog):
    caplog.set_level("INFO")
    opened = open_dataset(str(survey / "survey.csv"), reading())
    assert equal(fluxes_of(opened), CUBES)
    for name, row in rows_of(opened).items():
        assert arcsec_per_pixel_of(row["flux"]["bytes"]) == SCALE
        assert row["flux"]["path"] == f"{name}.safetensors"
        shown = np.array(CUBES[name][1:])
        assert row["image"]["bytes"] == Rendering().render(fits_bytes(shown))[0]
    assert opened["train"].column_names == ["id_str", "image", "flux", "smooth"]
    lines = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert "490 pixels (8.5 %) of 2 galaxies have no value in some band (NaN)." in lines
    assert (
        "`flux` holds the fluxes in the bands g, r, i, z; `image` is a picture for people, in colour of r, i, z."
        in lines
    )


def publish(run_script, survey, *options, columns=None, out="published"):
    columns = columns or {"id_str": "objid", "image": "{objid}.fits", "values": {"smooth": "smooth"}}
    (survey / "columns.json").write_text(json.dumps(columns))
    command = (
        "--images",
        survey / "cutouts",
        "--catalogue",
        survey / "survey.csv",
        "--columns",
        survey / "columns.json",
    )
    run_script("publish_dataset", "catalogue", *command, "--out", survey / out, *options)
    return survey / out


def test_the_import_has_the_rows_of_the_published_dataset(survey, run_script):
    published = publish(run_script, survey, "--bands", *BANDS)
    expected = open_dataset(str(published), reading())
    opened = open_dataset(str(survey / "survey.csv"), reading(), streaming=True)
    assert rows_of(opened) == rows_of(expected)
    assert rows_of(open_dataset(str(published), reading(), streaming=True)) == rows_of(expected)
    files = [file.relative_to(published) for file in sorted((published / "data").glob("*.parquet"))]
    (imported,) = (survey / "cache" / "hf_galaxy").glob("survey.csv-*")
    for file in files:
        assert (published / file).read_bytes() == (imported / file).read_bytes()


def separate(survey, place):
    shutil.rmtree(survey / "cutouts")
    for name, cube in CUBES.items():
        for band, plane in zip(BANDS, cube, strict=True):
            file = survey / "cutouts" / place.format(band=band, name=name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(npy_bytes(plane) if file.suffix == ".npy" else fits_bytes(plane, FILTER=f"DES {band}"))


@pytest.mark.parametrize(
    "place",
    ["{name}_{band}.fits", "{name}-{band}.npy", "{name}.{band}.fits", "{band}/{name}.fits", "{band}_{name}.npy"],
)
def test_a_file_of_each_band_is_found(survey, place, caplog):
    separate(survey, place)
    caplog.set_level("INFO")
    opened = open_dataset(str(survey / "survey.csv"), reading())
    assert equal(fluxes_of(opened), CUBES)
    assert any(f"picture: {place.replace('{name}', '{objid}')} (in" in record.getMessage() for record in caplog.records)
    assert {row["image"]["path"] for row in rows_of(opened).values()} == {f"{name}.png" for name in CUBES}


@pytest.mark.parametrize(
    "columns",
    [("image_g", "image_r", "image_i", "image_z"), BANDS, ("g file", "DES-r file", "file i", "file-z")],
)
def test_columns_of_files_of_each_band_are_found(survey, columns):
    separate(survey, "{name}_{band}.fits")
    rows = [(n, *(f"{n}_{band}.fits" for band in BANDS), 0.5) for n in NAMES]
    write_table(survey / "survey.csv", ("objid", *columns, "mag_g"), rows)
    opened = open_dataset(str(survey / "survey.csv"), reading())
    assert equal(fluxes_of(opened), CUBES)
    assert opened["train"].column_names == ["id_str", "image", "flux", "mag_g"]
    rows = [row[1:] for row in rows]  # without names: they are made of those of the files
    write_table(survey / "survey.csv", (*columns, "mag_g"), rows)
    assert equal(fluxes_of(open_dataset(str(survey / "survey.csv"), reading())), CUBES)


def test_files_of_one_galaxy_of_several_sizes_are_named(survey):
    separate(survey, "{name}_{band}.fits")
    (survey / "cutouts/J05_i.fits").write_bytes(fits_bytes(cube_of(5)[0, :10]))
    with pytest.raises(BadInput, match=r"row 6 \(id_str J05\): .*J05_g.fits 24 x 20, .*J05_i.fits 24 x 10"):
        open_dataset(str(survey / "survey.csv"), reading())


def test_a_missing_file_of_a_band_is_named_or_left_out(survey):
    separate(survey, "{name}_{band}.fits")
    (survey / "cutouts/J05_i.fits").unlink()
    with pytest.raises(BadInput, match=r"row 6, .*'J05_i.fits' is not a picture in .*--skip-missing"):
        open_dataset(str(survey / "survey.csv"), reading())
    opened = open_dataset(str(survey / "survey.csv"), reading(skip_missing=True))
    assert rows_of(opened).keys() == CUBES.keys() - {"J05"}


def test_the_pattern_of_a_column_map_has_the_band(survey, run_script):
    separate(survey, "{name}_{band}.fits")
    columns = {"id_str": "objid", "image": "{objid}_{band}.fits", "values": {"smooth": "smooth"}}
    published = publish(run_script, survey, "--bands", *BANDS, columns=columns)
    opened = open_dataset(str(survey / "survey.csv"), reading())
    assert rows_of(opened) == rows_of(open_dataset(str(published), reading()))
    columns["image"] = "\n".join(f"{{objid}}_{band}.fits" for band in BANDS)
    again = publish(run_script, survey, "--bands", *BANDS, columns=columns, out="again")
    assert rows_of(open_dataset(str(again))) == rows_of(opened)
    proposal = Proposal.of(survey / "survey.csv", [survey / "cutouts"], None, BANDS)
    assert proposal.columns["image"] == "{objid}_{band}.fits"


@pytest.mark.parametrize("suffix", [".npy", ".fits.gz", ".npz"])
def test_class_folders_of_fluxes(tmp_path, suffix):
    for i, (name, cube) in enumerate(CUBES.items()):
        file = tmp_path / "galaxies" / ("spiral" if i % 3 else "elliptical") / f"{name}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".npz":
            np.savez(file, **dict(zip(BANDS, cube, strict=True)))
        else:
            file.write_bytes(npy_bytes(cube) if suffix == ".npy" else gzip.compress(fits_bytes(cube)))
    opened = open_dataset(str(tmp_path / "galaxies"), reading())
    assert equal(fluxes_of(opened), CUBES)
    assert opened["train"].features["label"].names == ["elliptical", "spiral"]
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path, "galaxies")
    assert rows_of(open_dataset(archive, reading())) == rows_of(opened)
    with pytest.raises(BadInput, match=r"holds neither Parquet files nor pictures|has the shape \(4, 20, 24\)"):
        open_dataset(str(tmp_path / "galaxies"))


def test_a_folder_with_a_table_of_its_files(survey):
    shutil.copy(survey / "survey.csv", survey / "cutouts" / "metadata.csv")
    write_table(survey / "cutouts/metadata.csv", ("file_name", "smooth"), [(f"{n}.fits", 0.5) for n in NAMES])
    opened = open_dataset(str(survey / "cutouts"), reading())
    assert equal(fluxes_of(opened), CUBES)


def in_columns(kind):
    cubes = list(CUBES.values())
    universe = [
        {
            "band": [f"des-{b}" for b in BANDS],
            "flux": c.tolist(),
            "mask": np.ones_like(c, bool).tolist(),
            "scale": [SCALE] * 4,
        }
        for c in cubes
    ]
    values, feature = {
        "Array3D": (cubes, datasets.Array3D((4, 20, 24), "float32")),
        "lists": ([c.tolist() for c in cubes], datasets.List(datasets.List(datasets.List(datasets.Value("float32"))))),
        "FITS": ([{"bytes": fits_bytes(c), "path": None} for c in cubes], {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}),
        "bytes": ([npy_bytes(c) for c in cubes], datasets.Value("binary")),
        "MultimodalUniverse": (
            universe,
            {
                "band": datasets.List(datasets.Value("string")), "flux": datasets.List(datasets.Array2D((20, 24), "float32")),
                "mask": datasets.List(datasets.Array2D((20, 24), "bool")), "scale": datasets.List(datasets.Value("float32")),
            },
        ),
    }[kind]  # fmt: skip
    features = datasets.Features(
        {"object_id": datasets.Value("string"), "image": feature, "z": datasets.Value("float32")}
    )
    return datasets.Dataset.from_dict({"object_id": NAMES, "image": values, "z": [0.1] * 12}, features)


@pytest.mark.parametrize("kind", ["Array3D", "lists", "FITS", "bytes", "MultimodalUniverse"])
def test_columns_of_arrays_in_memory_and_in_files(kind, tmp_path, caplog):
    caplog.set_level("INFO")
    data = in_columns(kind)
    opened = open_dataset(name_of(data, reading(id_column="object_id")), reading())
    fluxes = fluxes_of(opened)
    assert equal(fluxes, CUBES)
    assert opened["train"].column_names == ["id_str", "image", "flux", "z"]
    data.save_to_disk(tmp_path / "saved")
    assert rows_of(open_dataset(str(tmp_path / "saved"), reading(id_column="object_id"))) == rows_of(opened)
    data.to_parquet(tmp_path / "files" / "rows.parquet")
    assert rows_of(open_dataset(str(tmp_path / "files"), reading(id_column="object_id"))) == rows_of(opened)
    masks_named = any("masks in the cells of image are not used" in record.getMessage() for record in caplog.records)
    assert masks_named is (kind == "MultimodalUniverse")
    if kind in ("Array3D", "lists"):
        with pytest.raises(
            BadInput, match="no column holds pictures, but image arrays: name their bands, such as --bands"
        ):
            name_of(data, Reading())


@pytest.mark.parametrize("kind", ["arrays", "lists", "dicts", "paths"])
def test_a_frame_with_arrays_in_its_cells(kind, survey):
    forms = {
        "arrays": lambda n: CUBES[n], "lists": lambda n: CUBES[n].tolist(),
        "dicts": lambda n: dict(zip(BANDS, CUBES[n], strict=True)), "paths": lambda n: str(survey / f"cutouts/{n}.fits"),
    }  # fmt: skip
    frame = pd.DataFrame({"objid": NAMES, "cube": list(map(forms[kind], NAMES)), "smooth": np.arange(12) / 100})
    opened = open_dataset(name_of(frame, reading()), reading())
    assert equal(fluxes_of(opened), CUBES)


def test_a_column_named_flux_stays_what_it_is_without_bands(survey):
    write_table(survey / "survey.csv", ("objid", "flux", "file"), [(n, 1.5, f"{n}.png") for n in NAMES])
    for i, name in enumerate(NAMES):
        (survey / f"cutouts/{name}.png").write_bytes(Rendering().render(fits_bytes(cube_of(i)[:3]))[0])
    opened = open_dataset(str(survey / "survey.csv"))
    assert {row["flux"] for row in rows_of(opened).values()} == {1.5}
    with pytest.raises(BadInput, match=r"^--bands g r: .* has no column flux with fluxes, but pictures"):
        open_dataset(str(next((survey / "cache/hf_galaxy").glob("survey.csv-*"))), Reading(bands=("g", "r")))
    for name in NAMES:
        (survey / f"cutouts/{name}.png").unlink()
    opened = open_dataset(str(survey / "survey.csv"), reading(image_column="objid"))
    assert opened["train"].column_names == ["id_str", "image", "flux", "flux of the table", "file"]


def test_bands_of_a_published_dataset_are_checked_by_its_first_row(survey, run_script):
    published = publish(run_script, survey, "--bands", *BANDS)
    some = open_dataset(str(published), Reading(bands=("z", "g")))
    assert equal(fluxes_of(some, ("z", "g")), {name: cube[[3, 0]] for name, cube in CUBES.items()})
    for streaming in (False, True):
        with pytest.raises(BadInput, match=r"^--bands g u: the first row of .* has no band u, only g, i, r, z"):
            open_dataset(str(published), Reading(bands=("g", "u")), streaming)
    with pytest.raises(BadInput, match="are 9; name 1 to 8"):
        open_dataset(str(published), Reading(bands=tuple("abcdefghi")))
    assert "image" in open_dataset(str(published))["train"].column_names  # for pictures as ever
    data = datasets.load_dataset(str(published), split="train")
    again = open_dataset(name_of(data, reading()), reading())
    assert all(np.array_equal(flux, CUBES[name], equal_nan=True) for name, flux in fluxes_of(again).items())


def test_another_order_or_other_bands_are_another_import(survey):
    table = str(survey / "survey.csv")
    first = rows_of(open_dataset(table, reading()))
    other = open_dataset(table, Reading(bands=("a", "b", "c", "d")))
    assert equal(fluxes_of(other, ("a", "b", "c", "d")), CUBES)
    assert first == rows_of(open_dataset(table, reading()))
    assert len(list((survey / "cache/hf_galaxy").glob("survey.csv-*"))) == 2


def test_a_galaxy_without_any_value_is_a_picture_that_cannot_be_read(survey):
    (survey / "cutouts/J06.fits").write_bytes(fits_bytes(np.full((4, 20, 24), np.nan, np.float32)))
    with pytest.raises(
        BadInput, match=r"row 7 \(id_str J06\): J06.fits: cannot be read .*no pixel has a value in any band"
    ):
        open_dataset(str(survey / "survey.csv"), reading())
    opened = open_dataset(str(survey / "survey.csv"), reading(skip_bad_pictures=True))
    assert rows_of(opened).keys() == CUBES.keys() - {"J06"}


def test_masks_that_are_not_used_are_said(survey, caplog):
    for name, cube in CUBES.items():
        mask = fits.ImageHDU(np.full((20, 24), 6, np.int32), name="MASKBITS")
        hdus = fits.HDUList([fits.PrimaryHDU(cube), mask])
        hdus.writeto(survey / f"cutouts/{name}.fits", overwrite=True)
    caplog.set_level("INFO")
    open_dataset(str(survey / "survey.csv"), reading())
    lines = [record.getMessage() for record in caplog.records]
    assert sum("Mask MASKBITS is not used, as the meaning of its bits is unknown" in line for line in lines) == 1


def test_four_bands_without_the_option_say_what_to_do(survey):
    with pytest.raises(
        BadInput, match=r"shape \(4, 20, 24\), .*--bands with the names of its 4 bands, such as --bands g r i z"
    ):
        open_dataset(str(survey / "survey.csv"))


def test_row_groups_count_the_fluxes_which_are_not_compressed(survey, monkeypatch):
    monkeypatch.setattr(writer, "GROUP_BYTES", 20_000)  # two cubes of 7680 bytes, and their previews, are less
    open_dataset(str(survey / "survey.csv"), reading())
    (file,) = (survey / "cache/hf_galaxy").glob("survey.csv-*/data/train-*.parquet")
    footer = pq.read_metadata(file)
    groups = [footer.row_group(g) for g in range(footer.num_row_groups)]
    assert {group.num_rows for group in groups[:-1]} == {3}
    chunks = {(chunk := groups[0].column(c)).path_in_schema: chunk for c in range(groups[0].num_columns)}
    assert chunks["flux.bytes"].compression == "UNCOMPRESSED"
    assert "RLE_DICTIONARY" not in chunks["flux.bytes"].encodings
    assert sum(len(rows) for rows in [StreamedRows([str(file)])]) == footer.num_rows


def test_files_within_a_zip(survey):
    with zipfile.ZipFile(survey / "cutouts.zip", "w") as archive:
        for name, cube in CUBES.items():
            for band, plane in zip(BANDS, cube, strict=True):
                archive.writestr(f"{name}_{band}.npy", npy_bytes(plane))
    shutil.rmtree(survey / "cutouts")
    assert equal(fluxes_of(open_dataset(str(survey / "survey.csv"), reading())), CUBES)


@pytest.mark.parametrize(
    ("files", "stem"),
    [
        ("J1_F115W.fits\nJ1_F150W.fits", "J1"), ("g/J1.fits\nr/J1.fits", "J1"), ("g_J1-2.npy\nr_J1-2.npy", "J1-2"),
        ("a.npy", "a"), ("a.b.hdf5", "a.b"), ("ag.fits\nar.fits", "ag"),
    ],
)  # fmt: skip
def test_files_of_bands_share_a_name(files, stem):
    assert stem_of(files) == stem


def test_files_of_several_bands_are_no_grey_pictures_in_silence(tmp_path, caplog):
    (tmp_path / "fits").mkdir()
    for i in range(6):
        planes = [fits.ImageHDU(np.random.default_rng(i).normal(size=(16, 16)), name=band) for band in "gri"]
        weight = fits.ImageHDU(np.ones((16, 16)), name="WEIGHT")
        fits.HDUList([fits.PrimaryHDU(), *planes[: 3 if i < 5 else 1], weight]).writeto(tmp_path / f"fits/J{i}.fits")
    table = tmp_path / "survey.csv"
    table.write_text("id,kind\n" + "".join(f"J{i},{i % 2}\n" for i in range(6)))
    said = "Files hold several pictures of a galaxy, of which only the first is shown; --bands with their names reads all as fluxes."
    with caplog.at_level("INFO"):
        open_dataset(str(table), Reading(images=(tmp_path / "fits",)))
    assert said in caplog.text
    caplog.clear()
    for i in range(5):
        (tmp_path / f"fits/J{i}.fits").unlink()
    table.write_text("id,kind\nJ5,1\n")
    with caplog.at_level("INFO"):
        open_dataset(str(table), Reading(images=(tmp_path / "fits",)))
    assert said not in caplog.text, "a weight is no picture"


def test_few_galaxies_are_made_at_once_and_few_wait_to_be_written(tmp_path, monkeypatch):
    sizes, made = [], []
    batch = DatasetRows.batch
    monkeypatch.setattr(DatasetRows, "batch", lambda rows, wanted: sizes.append(len(wanted)) or batch(rows, wanted))
    cells = [
        {band: plane.tolist() for band, plane in zip(BANDS, cube_of(i)[:, :4, :4], strict=True)} for i in range(40)
    ]
    name_of(
        datasets.Dataset.from_list([{"id": str(i), "flux": cell} for i, cell in enumerate(cells)]), Reading(bands=BANDS)
    )
    assert 1 < max(sizes) <= 10

    class Pool:
        def submit(self, make, part):
            made.append(part)
            done = Future()
            done.set_result(part)
            return done

    monkeypatch.setattr(writer, "ProcessPoolExecutor", lambda *options: nullcontext(Pool()))
    Pool.shutdown = lambda self, **options: None
    with ExitStack() as stack:
        for number, part in enumerate(writer._in_processes(stack, source=sizes, processes=2)([[i] for i in range(20)])):
            assert part == [number]
            assert len(made) <= number + 4
    assert len(made) == 20
