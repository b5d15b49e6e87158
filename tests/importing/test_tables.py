"""A table and its pictures open as a dataset: what its columns hold is guessed and said, and what cannot work is refused with its place."""

import re
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hf_galaxy import load_tree
from hf_galaxy.data.picture_files import Pictures
from hf_galaxy.data.targets import column_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing import tables
from hf_galaxy.importing.catalogue_table import CatalogueTable
from hf_galaxy.importing.catalogues import Catalogue
from hf_galaxy.importing.column_map import ColumnMap, Metadata
from hf_galaxy.importing.column_types import dtype_of, without_missing
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.imported import open_imported
from hf_galaxy.importing.reading import Reading
from hf_galaxy.importing.sky_columns import SkyColumns
from hf_galaxy.importing.vote_columns import votes_among
from hf_galaxy.progress import log_once
from tests.galaxies import Rows, jpeg_bytes, published

NUMBER = 12


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    log_once.cache_clear()


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey") / "cutouts"
    folder.mkdir()
    for i in range(NUMBER):
        (folder / f"J{i:02}.jpg").write_bytes(jpeg_bytes(i))
    return folder


def survey(**columns):
    names = {"iauname": [f"J{i:02}" for i in range(NUMBER)], "file": [f"J{i:02}.jpg" for i in range(NUMBER)]}
    return pd.DataFrame(names | columns)


def written(table, path):
    table.to_csv(path, index=False)
    return str(path)


def read(table, path, images, **reading):
    return tables.open_table(written(table, path), Reading(images=(images,), **reading))


def test_its_rows_are_those_that_publishing_with_a_column_map_gives(tmp_path, cutouts):
    numbers = np.linspace(0.1, 2, NUMBER)
    table = survey(z=numbers, ring=[0, 1] * 6, kind=["a", ""] * 6, RA=numbers * 50, DEC=-numbers)
    path = tmp_path / "survey.csv"
    opened = open_dataset(written(table, path), Reading(images=(cutouts,)))
    columns = ColumnMap(
        "iauname", "file", values={"z": "z"},
        metadata={
            "ra": Metadata("RA", "float64"), "dec": Metadata("DEC", "float64"), "ring": Metadata("ring", "int64"),
            "kind": Metadata("kind", "string"),
        },
    )  # fmt: skip
    expected = open_imported(Catalogue.read(path, Pictures([cutouts]), columns), "expected")
    assert opened.keys() == expected.keys()
    for split, rows in opened.items():
        found = rows.with_format("arrow")[list(range(len(rows)))]
        published = expected[split].with_format("arrow")[list(range(len(rows)))].select(found.column_names)
        assert found.equals(published)


def test_the_guess_is_said_once(tmp_path, cutouts, caplog):
    caplog.set_level("INFO")
    votes = {"ring_yes": range(NUMBER), "ring_no": range(NUMBER)}
    for _ in range(2):
        read(survey(ring=[0, 1] * 6, z=0.5, mass=1.5, **votes), tmp_path / "survey.csv", cutouts)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'survey.csv'}: 12 galaxies; picture: file (in {cutouts}), name: iauname, ring and 2 other columns, votes of gz_rings; "
        "splits: by a hash of the name; change it with --image-column, --id-column"
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".ecsv", ".fits", ".vot", ".csv.gz"])
def test_every_format_of_a_table_opens(tmp_path, cutouts, suffix, c_loader_off):
    path, table = tmp_path / f"survey{suffix}", survey(objid=[587739505552785605 + i for i in range(NUMBER)], z=0.5)
    if suffix == ".parquet":
        table.to_parquet(path)
    elif suffix == ".csv.gz":
        table.to_csv(path, index=False)
    else:
        from astropy.table import Table

        formats = {".ecsv": "ascii.ecsv", ".fits": "fits", ".vot": "votable"}
        Table(table.to_dict("list")).write(path, format=formats[suffix])
    assert tables.is_table(str(path))
    catalogue = tables.open_table(str(path), Reading(images=(cutouts,)))
    assert list(catalogue.ids) == table["iauname"].tolist()
    assert catalogue.cells.columns(["objid"])["objid"].to_pylist() == table["objid"].tolist()
    assert catalogue.dtypes == {"objid": "int64", "z": "float32"}


def test_a_fits_picture_is_no_table(tmp_path):
    from astropy.io import fits

    fits.PrimaryHDU(np.ones((4, 4))).writeto(tmp_path / "picture.fits")
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(np.ones((40, 40)))]).writeto(tmp_path / "compressed.fits")
    assert not tables.is_table(str(tmp_path / "picture.fits"))
    assert not tables.is_table(str(tmp_path / "compressed.fits"))


@pytest.mark.parametrize(
    "bitpix", [b"BITPIX  =                     ", b"BITPIX  = 'eight'             ", b"NO CARD".ljust(30)]
)
def test_a_damaged_fits_table_is_none_and_reading_it_says_why(tmp_path, bitpix):
    from astropy.table import Table

    path = tmp_path / "survey.fits"
    Table({"objid": [1, 2]}).write(path)
    content = path.read_bytes()
    where = content.index(b"BITPIX  =", tables.FITS_BLOCK)
    path.write_bytes(content[:where] + bitpix + content[where + len(bitpix) :])
    assert not tables.is_table(str(path))
    with pytest.raises(BadInput, match=r"survey\.fits: cannot be read as a table"):
        tables.read_table(path)


@pytest.mark.parametrize(
    ("change", "files"),
    [
        (lambda table: table.assign(file="/elsewhere/pictures/" + table["file"]), "by base name"),
        (lambda table: table.assign(file=table["file"].str.removesuffix(".jpg")), "with a suffix"),
        (lambda table: table.drop(columns="file"), "of the name"),
        (lambda table: table.rename(columns={"file": "whatever"}), "under any name"),
        (lambda table: table.rename(columns={"file": "image"}), "under the name that datasets have"),
    ],
)
def test_the_pictures_are_found(tmp_path, cutouts, change, files):
    catalogue = read(change(survey(ring=1)), tmp_path / "survey.csv", cutouts)
    assert [row["image"]["bytes"] for row in catalogue.batch([0, 7]).table.to_pylist()] == [
        jpeg_bytes(0),
        jpeg_bytes(7),
    ]
    assert set(catalogue.dtypes) == {"ring"}


def test_base_names_that_are_not_unique_are_no_pictures(tmp_path, cutouts):
    table = survey().assign(file=["a/J00.jpg", "b/J00.jpg"] + [f"J{i:02}.jpg" for i in range(2, NUMBER)])
    with pytest.raises(BadInput, match=r"row 1, column file: 'a/J00\.jpg' is not a picture in .* --skip-missing"):
        read(table, tmp_path / "survey.csv", cutouts)


def test_without_images_the_pictures_are_beside_the_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "cutouts.zip", "w") as archive:
        for i in range(NUMBER):
            archive.writestr(f"J{i:02}.jpg", jpeg_bytes(i))
    assert len(tables.open_table(written(survey(), tmp_path / "survey.csv"), Reading())) == NUMBER


def test_names_are_those_of_the_files_or_the_content_of_the_pictures(tmp_path, cutouts):
    assert read(survey()[["file"]], tmp_path / "a.csv", cutouts).ids[:] == survey()["iauname"].tolist()
    (tmp_path / "c" / "d").mkdir(parents=True)
    for name, seed in (("x.jpg", 0), ("d/x.jpg", 1), ("y.jpg", 0)):
        (tmp_path / "c" / name).write_bytes(jpeg_bytes(seed))
    catalogue = read(pd.DataFrame({"file": ["x.jpg", "d/x.jpg", "y.jpg"]}), tmp_path / "b.csv", tmp_path / "c")
    first, other, again = catalogue.ids
    assert again == f"{first}-2" != f"{other}-2"
    assert catalogue.split_names == [first, other, first]


def test_names_that_are_not_unique_are_not_chosen_but_may_be_given(tmp_path, cutouts):
    table = survey(objid=7).rename(columns={"iauname": "label of mine"})
    assert read(table, tmp_path / "survey.csv", cutouts).ids[3] == "J03"
    with pytest.raises(BadInput, match=r"row 2, column objid: '7' is in an earlier row too"):
        read(table, tmp_path / "survey.csv", cutouts, id_column="objid")


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        (["587739505552785605", ""], "int64"),
        (["1.0", "nan"], "int64"),
        (["007", "010"], "string"),
        (["99999999999999999999", "1"], "string"),
        (["1.5", "--"], "float32"),
        (["1e40", "1"], "float64"),
        (["True", "false", ""], "bool"),
        (["yes", "no"], "string"),
        (["", "nan"], "string"),
    ],
)
def test_types_are_those_of_all_filled_cells(cells, dtype):
    assert dtype_of(without_missing(pd.Series(cells, dtype=str))) == dtype


def test_cells_have_their_types_and_gaps(tmp_path, cutouts):
    table = survey(objid=["587739505552785605", ""] * 6, good=["True", "N/A"] * 6, z=["0.5", "NULL"] * 6)
    row = read(table, tmp_path / "survey.csv", cutouts)
    assert [row.cells.columns([c])[c].to_pylist()[:2] for c in ("objid", "good", "z")] == [
        [587739505552785605, None],
        [True, None],
        [0.5, None],
    ]


def test_columns_with_the_names_of_ours_get_another(tmp_path, cutouts):
    catalogue = read(survey(image=1.5, id_str=[1, 1] * 6), tmp_path / "survey.csv", cutouts)
    assert set(catalogue.dtypes) == {"image of the table", "id_str of the table"}


TREE = load_tree("gz2")


@pytest.mark.parametrize(
    ("columns", "chosen", "tree", "campaigns"),
    [
        (TREE.columns, None, "gz2", ()),
        ([c.upper().replace("-", "_") + "_count" for c in TREE.columns], None, "gz2", ()),
        ([c.replace("-gz2", "") for c in TREE.columns], ("gz2",), "gz2", ()),
        ([c.replace("-gz2", "") for c in TREE.columns], None, None, ("gz2", "gz_decals_dr5")),
        (["smooth"], None, None, ()),
    ],
)
def test_votes_are_known_by_the_names_of_their_columns(columns, chosen, tree, campaigns):
    found = votes_among(columns, chosen)
    assert (found.tree and found.tree.name) == tree
    assert set(campaigns) <= set(found.campaigns)
    assert set(found.columns.values()) == (set(columns) if tree else set())


def test_votes_with_gaps_are_read_too(tmp_path, cutouts):
    catalogue = read(survey(Ring_Yes=["3", ""] * 6, Ring_No=["4", "0"] * 6), tmp_path / "survey.csv", cutouts)
    assert catalogue.tree is None
    assert catalogue.cells.columns(catalogue.cells.schema.names).to_pydict() == {
        "ring_yes": [3, None] * 6,
        "ring_no": [4, 0] * 6,
    }
    assert catalogue.dtypes == {"ring_yes": "int32", "ring_no": "int32"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table[:0], r"survey\.csv: has no rows"),
        (
            lambda table: table.assign(file="x.jpg", iauname="y"),
            r"survey\.csv: no picture of its rows is in .*cutouts: neither 'x\.jpg', of the column file, .*--image-column.*--images",
        ),
        (
            lambda table: table[["iauname"]].replace("J03", "J02"),
            r"survey\.csv, row 4, column iauname: 'J02' is in an earlier row too; .* keep one row of each galaxy",
        ),
        (
            lambda table: table[["file"]].rename(columns={"file": "J00.jpg"}),
            r"survey\.csv: its first line should hold the names of the columns, but 'J00\.jpg' is a picture",
        ),
        (
            lambda table: table.replace({"file": {"J03.jpg": "lost.jpg"}}),
            r"survey\.csv, row 4, column file: 'lost\.jpg' is not a picture in .*cutouts; --skip-missing leaves them out",
        ),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, cutouts, change, message):
    with pytest.raises(BadInput, match=message):
        read(change(survey()), tmp_path / "survey.csv", cutouts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "files of one band each, such as J00_g.fits; --bands with the names of the bands, such as --bands g r"),
        (
            {"bands": ("g", "x", "r")},
            "such as J00_g.fits, for g, r, but none for x, such as J00_x.fits; name in --bands",
        ),
    ],
)
def test_files_of_other_bands_are_named(tmp_path, options, message):
    (tmp_path / "bands").mkdir()
    for i in range(NUMBER):
        for band in "gr":
            (tmp_path / f"bands/J{i:02}_{band}.fits").touch()
    with pytest.raises(BadInput, match=re.escape(message)):
        read(survey().drop(columns="file"), tmp_path / "survey.csv", tmp_path / "bands", **options)


def test_options_that_name_no_column_are_refused(tmp_path, cutouts):
    for option in ("image_column", "id_column"):
        with pytest.raises(BadInput, match=r"--.*-column nose: .*survey\.csv has no such column, only iauname, file"):
            read(survey(), tmp_path / "survey.csv", cutouts, **{option: "nose"})


def test_positions_that_are_no_numbers_of_degrees_are_texts(tmp_path, cutouts, caplog):
    caplog.set_level("INFO")
    catalogue = read(survey(ra="12:30:01.2", dec="+05:10:00"), tmp_path / "survey.csv", cutouts)
    assert catalogue.positions is None
    assert catalogue.dtypes == {"ra of the table": "string", "dec of the table": "string"}
    assert "no numbers of degrees are in ra and dec, so the galaxies have no positions" in caplog.text


def test_right_ascensions_from_minus_180_are_those_from_0_to_360(tmp_path, cutouts, caplog):
    caplog.set_level("INFO")
    ra = np.linspace(-180, 165, NUMBER)
    catalogue = read(survey(ra=ra, dec=np.linspace(-90, 90, NUMBER)), tmp_path / "survey.csv", cutouts)
    np.testing.assert_allclose(catalogue.positions[:, 0], np.where(ra < 0, ra + 360, ra), atol=1e-9)
    line = "column ra: right ascensions from -180 to 180 degrees are read as 0 to 360"
    assert sum(line in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("ra", "message"),
    [
        ([-99.0, *[200.0] * 11], "row 1, column ra: '-99.0' is not a value of ra in degrees, 0 to 360; leave the cell empty"),
        ([*[200.0] * 11, -1.0], "row 12, column ra: '-1.0' is not a value of ra"),
        ([-181.0, *[2.0] * 11], "row 1, column ra: '-181.0' is not a value of ra"),
    ],
)  # fmt: skip
def test_negative_right_ascensions_beside_those_above_180_are_refused(tmp_path, cutouts, ra, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        read(survey(ra=ra, dec=0.5), tmp_path / "survey.csv", cutouts)


def test_a_right_ascension_above_180_is_refused_behind_negative_rows_read_before(tmp_path, cutouts):
    columns = ColumnMap("iauname", "file", metadata={name: Metadata(name, "float64") for name in ("ra", "dec")})
    file = written(survey(ra=[-1.0] * 6 + [181.0] * 6, dec=0.5), tmp_path / "survey.csv")
    pieces = list(CatalogueTable.pieces(Path(file), {"iauname", "file", "ra", "dec"}))
    halves = [pieces[0].select(np.arange(NUMBER) < 6), pieces[0].select(np.arange(NUMBER) >= 6)]
    sky = SkyColumns(columns)
    tables = [pa.table({name: half.metadata(Metadata(name, "float64")) for name in ("ra", "dec")}) for half in halves]
    assert sky.checked(halves[0], tables[0])["ra"].to_pylist() == [359.0] * 6
    with pytest.raises(
        BadInput, match=r"row 7, column ra: '181\.0' is above 180, while earlier rows are below 0 \(and 5 more"
    ):
        sky.checked(halves[1], tables[1])


def test_galaxies_without_a_picture_can_be_left_out(tmp_path, cutouts, caplog):
    caplog.set_level("INFO")
    table = survey().drop(columns="iauname").replace({"file": {"J03.jpg": ""}})
    opened = open_dataset(written(table, tmp_path / "survey.csv"), Reading(images=(cutouts,), skip_missing=True))
    names = [name for rows in opened.values() for name in column_of(rows, "id_str").to_pylist()]
    assert sorted(names) == [f"J{i:02}" for i in range(NUMBER) if i != 3]
    assert "1 of the catalogue's 12 rows have no picture and are left out: row 4." in caplog.text


def test_a_published_dataset_has_its_pictures(tmp_path, cutouts):
    published(Rows(3), tmp_path)
    with pytest.raises(BadInput, match=r"--images .*cutouts: is for a table of galaxies; .*leave --images out"):
        open_dataset(str(tmp_path), Reading(images=(cutouts,)))


def test_a_picture_is_no_dataset(cutouts):
    with pytest.raises(
        BadInput, match=r"J00\.jpg: holds no galaxies: it is neither a folder of pictures, .* nor a table"
    ):
        open_dataset(str(cutouts / "J00.jpg"))


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"--dataset .*survey\.csv: no such file"):
        open_dataset(str(tmp_path / "survey.csv"))
