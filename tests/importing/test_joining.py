"""A table brings its columns to the galaxies of a dataset, by name or by position, and what is wrong with it is refused."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.table import Table

from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.join_keys import arcsec_in
from hf_galaxy.importing.joining import JoinedTable
from hf_galaxy.importing.reading import Reading
from hf_galaxy.progress import log_once
from tests.galaxies import Rows, published

NUMBER = 40
ARCSEC = 1 / 3600


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Galaxies `galaxy-0` to `galaxy-39`, galaxy i at ra = i / 7 and dec = -i / 9."""
    folder = tmp_path_factory.mktemp("published") / "rings"
    published(Rows(NUMBER), folder)
    return str(folder)


@pytest.fixture
def specz():
    """Redshifts of every second galaxy, and of one that the dataset has not."""
    i = np.arange(0, NUMBER, 2)
    names = [f"galaxy-{each}" for each in i]
    table = pd.DataFrame({"id_str": names, "z": i / 100, "plate": i + 10**17, "kind": "spec", "comment": names})
    table.loc[3, "comment"] = ""
    return pd.concat([table, pd.DataFrame({"id_str": ["elsewhere"], "z": [9.0], "plate": [7]})], ignore_index=True)


@pytest.fixture
def log(caplog):
    """The log; what was said in other tests is said again."""
    log_once.cache_clear()
    caplog.set_level("INFO")
    return caplog


def opened(dataset, table, path, **how):
    """All rows of a dataset with a table, by their number."""
    if table is not None:
        table.to_csv(path, index=False)
    splits = open_dataset(dataset, Reading(join=path, **how), streaming=True)
    rows = pd.concat(
        [rows.select_columns([c for c in rows.column_names if c != "image"])[:].to_pandas() for rows in splits.values()]
    )
    rows.index = rows["id_str"].str.removeprefix("galaxy-").astype(int)
    return rows.sort_index()


def test_columns_come_by_name_in_their_types(dataset, specz, tmp_path, log):
    rows = opened(dataset, specz, tmp_path / "specz.csv", on="id_str")
    assert rows["z"].dtype == np.float32
    np.testing.assert_allclose(rows["z"][::2], np.arange(0, NUMBER, 2) / 100, rtol=1e-6)
    assert rows["z"][1::2].isna().all()
    assert rows["kind"].tolist() != rows["kind_joined"].tolist()
    assert pd.isna(rows["comment"][6])
    assert rows["comment"][8] == "galaxy-8"
    expected = "rings matched by id_str; columns z, plate, kind (here kind_joined), comment"
    assert re.search(rf"specz\.csv: 20 of 40 galaxies of .*{re.escape(expected)}$", log.messages[-1])


def test_many_digits_stay(dataset, specz, tmp_path):
    specz.to_csv(tmp_path / "specz.csv", index=False)
    opened = open_dataset(dataset, Reading(join=tmp_path / "specz.csv", on="id_str"))
    plates = [plate for rows in opened.values() for plate in rows.select_columns(["plate"])[:]["plate"].to_pylist()]
    assert sorted(filter(None, plates)) == [i + 10**17 for i in range(0, NUMBER, 2)]


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [
        ("587722952230175035", "587722952230175035", True),
        ("587722952230175035", "587722952230175036", False),
        ("123", "123.0", True),
        ("123", " 123 ", True),
        ("00123", "123", False),
        ("J0931", "j0931", False),
        ("nan", "nan", False),
    ],
)
def test_names_are_texts(ours, theirs, equal, tmp_path):
    (tmp_path / "t.csv").write_text(f"name,z\n{theirs},1\nx,2\n")
    table = JoinedTable.of(Reading(join=tmp_path / "t.csv", on="id_str=name"))
    brought = table.bring(pa.table({"id_str": [ours, "x"]}), "galaxies").columns
    assert brought["z"].to_pylist() == [1 if equal else None, 2]


def test_whole_numbers_are_names(tmp_path, specz):
    specz[["plate", "z"]].to_parquet(tmp_path / "specz.parquet")
    table = JoinedTable.of(Reading(join=tmp_path / "specz.parquet", on="objid=plate"))
    assert table.columns.column_names == ["z"]
    brought = table.bring(pa.table({"objid": [10**17 + 4, None, 7]}), "galaxies")
    assert brought.columns["z"].to_pylist() == pytest.approx([0.04, None, 9.0])


@pytest.mark.parametrize("kind", ["csv", "fits", "vot"])
def test_the_nearest_row_in_the_sky_comes(dataset, kind, tmp_path, log):
    i = np.arange(NUMBER // 2)
    offsets = np.where(i < 10, 0.1, 0.3) * ARCSEC
    table = Table({"RA": i / 7 + 0, "DEC": -i / 9 + offsets, "z": np.float32(i / 100)})
    table.add_row([0, 0.9 * ARCSEC, 5.0])  # near galaxy 0, but not as near
    path = tmp_path / f"specz.{kind}"
    table.write(path, format={"csv": "ascii.csv", "fits": "fits", "vot": "votable"}[kind])
    rows = opened(dataset, None, path, on_sky="1arcsec")
    np.testing.assert_allclose(rows["z"][: NUMBER // 2], i / 100, rtol=1e-6)
    assert rows["z"][NUMBER // 2 :].isna().all()
    np.testing.assert_allclose(rows["separation_arcsec"][: NUMBER // 2], offsets * 3600, rtol=1e-3)
    np.testing.assert_allclose(rows["RA"][: NUMBER // 2], i / 7, rtol=1e-12)
    assert re.search(
        r'specz\.\w+: 20 of 40 galaxies of .*rings matched on the sky within 1"; median separation 0\.\d+", 95 % within 0\.3"; '
        r"1 had several candidates, the nearest was taken; expected chance matches fewer than 0\.1; columns RA, DEC, z, separation_arcsec$",
        log.messages[-1],
    )


def test_what_a_table_has_too_gets_another_name(dataset, tmp_path):
    table = pd.DataFrame({"ra": [1 / 7], "dec": [-1 / 9], "ring_yes": [3]})
    rows = opened(dataset, table, tmp_path / "t.csv", on_sky="1arcsec")
    assert rows["ring_yes_joined"][1] == 3
    assert rows["ra_joined"][1] == pytest.approx(1 / 7)
    with pytest.raises(BadInput, match=r"there is a column ra_joined already; rename that of the table"):
        opened(dataset, table.assign(ra_joined=1), tmp_path / "t.csv", on_sky="1arcsec")


@pytest.mark.parametrize(
    ("text", "arcsec"), [("1arcsec", 1), ('0.5"', 0.5), ("2 arcmin", 120), ("1e-3deg", 3.6), ("3ARCSEC", 3)]
)
def test_a_radius_has_a_unit(text, arcsec):
    assert arcsec_in(text) == pytest.approx(arcsec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", r"--on-sky 1: has no unit; write 1arcsec, 1arcmin or 1deg"),
        ("1parsec", r"parsec is no unit; write 1arcsec"),
        ("arcsec", r"is no radius; write 1arcsec"),
        ("0arcsec", r"is no radius"),
        ("-1arcsec", r"is no radius"),
        ("1.2.3arcsec", r"is no radius"),
    ],
)
def test_a_radius_without_one_is_refused(text, message):
    with pytest.raises(BadInput, match=message):
        arcsec_in(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "id_str"}, r"^--on: is for a table; name it with --join$"),
        ({"on_sky": "1arcsec"}, r"^--on-sky: is for a table"),
        ({"join": Path("t.csv")}, r"--join t\.csv: give one of --on .* and --on-sky"),
        ({"join": Path("t.csv"), "on": "a", "on_sky": "1deg"}, r"give one of --on"),
        ({"join": Path("t.csv"), "on": "=b"}, r"--on =b: give a column, such as id_str, or OURS=THEIRS"),
        ({"join": Path("gone.csv"), "on": "a"}, r"--join gone\.csv: no such file"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_opened(options, message):
    with pytest.raises(BadInput, match=message):
        open_dataset("no-such-dataset", Reading(**options))


@pytest.mark.parametrize(
    ("cells", "how", "message"),
    [
        ("id_str,z\na,1\nb,2\na,3\nb,4\n", {"on": "id_str"}, r"t\.csv, row 3, column id_str: 'a' is in row 1, too \(and 1 more such rows\)"),
        ("name,z\na,1\n", {"on": "id_str"}, r"--on id_str: .*t\.csv has no such column, only name, z; .*OURS=THEIRS"),
        ("name,z\na,1\n", {"on": "objid=name"}, r"--on objid: .*rings has no such column, only id_str, image"),
        ("objid,z\na,1\n", {"on": "objid"}, r"--on objid: .* no such column.*; --on id_str=objid compares their names"),
        ("id_str,z\n5.87e+17,1\n", {"on": "id_str"}, r"row 1, column id_str: '5\.87e\+17' is a rounded number"),
        ("id_str,z\na,1\n", {"on": "id_str"}, r"none of the 40 galaxies of .* is in it; their id_str is like 'galaxy-\d+', its id_str like 'a'"),
        ("id_str\ngalaxy-1\n", {"on": "id_str"}, r"has no further column to bring"),
        ("name,z\na,1\n", {"on_sky": "1deg"}, r"--on-sky: .*t\.csv has no column ra in degrees, only name, z"),
        ("ra,dec\n1,91\n", {"on_sky": "1deg"}, r"row 1, column dec: '91' is no number of degrees from -90 to 90"),
        ("ra,dec\n12:00:00,1\n", {"on_sky": "1deg"}, r"row 1, column ra: '12:00:00' is no number of degrees"),
        ("ra,dec\n0,1\n", {"on_sky": "3arcsec"}, r'none of the 40 galaxies of .* has a row within 3"; the nearest is 1 deg away'),
        ("ra,dec\n,1\n", {"on_sky": "3arcsec"}, r"all positions are missing"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_joined_is_refused(cells, how, message, dataset, tmp_path):
    (tmp_path / "t.csv").write_text(cells)
    with pytest.raises(BadInput, match=message):
        open_dataset(dataset, Reading(join=tmp_path / "t.csv", **how), streaming=True)


def test_without_positions_nothing_is_joined_in_the_sky(tmp_path):
    (tmp_path / "t.csv").write_text("ra,dec,z\n1,2,3\n")
    table = JoinedTable.of(Reading(join=tmp_path / "t.csv", on_sky="1arcsec"))
    with pytest.raises(BadInput, match=r"the positions of pictures are unknown, .*; join by name .*--on id_str=COLUMN"):
        table.bring_to_files(["a.jpg"], "pictures")


@pytest.mark.parametrize(
    ("ids", "z"),
    [
        (["north/J1.jpg", "J2.fits.gz", "J3.png"], [1, 2, None]),
        (["north/J1.jpg", "south/J1.jpg", "J2.jpg"], None),
        (["J1", "south/J2.jpg"], [1, None]),
    ],
)
def test_pictures_are_known_by_their_files(ids, z, tmp_path):
    (tmp_path / "t.csv").write_text("name,z\nJ1,1\nJ2,2\n")
    table = JoinedTable.of(Reading(join=tmp_path / "t.csv", on="id_str=name"))
    if z is None:  # it would not be clear which of two J1 is meant
        with pytest.raises(BadInput, match="none of the 3 galaxies"):
            table.bring_to_files(ids, "pictures")
    else:
        assert table.bring_to_files(ids, "pictures").columns["z"].to_pylist() == z
