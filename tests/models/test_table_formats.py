"""Tables in FITS and VOTable, written part by part, are read by astropy as they were: numbers, texts, what is missing, units, meanings."""

import warnings

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits, votable
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning

from hf_galaxy.errors import BadInput
from hf_galaxy.models.fits_table import check_fits, write_fits
from hf_galaxy.models.prediction_columns import Column
from hf_galaxy.models.votable import write_votable

VALUES = {
    "id_str": (pa.string(), ["a<b>&'\"", None, "", "größe\u202e", "\x00\t]]>", "=1+1", " x "]),
    "number": (pa.float32(), [0.1, None, float("nan"), float("inf"), -float("inf"), 1e-38, 3.4e38]),
    "dec": (pa.float64(), [1 / 3, None, -0.0, 1e300, 5e-324, 2.0, 1.0]),
    "count": (pa.int64(), [1, None, -(2**63) + 1, 2**63 - 1, 0, -5, 10**18]),
    "small": (pa.uint8(), [0, 255, None, 1, 2, 3, 4]),
    "plain": (pa.int32(), [1, 2, 3, -4, 5, 2**31 - 1, -(2**31)]),
    "yes": (pa.bool_(), [True, False, None, True, True, False, True]),
    "day": (pa.timestamp("s"), [0, None, 86_400, 1, 2, 3, 4]),
    "nothing": (pa.float32(), [None] * 7),
}
COLUMNS = [
    Column(name, kind, f"what {name} is, <in> {'many ' * 20}words", "deg" if name == "dec" else "")
    for name, (kind, _) in VALUES.items()
]
TABLE = pa.table({name: pa.array(values, kind) for name, (kind, values) in VALUES.items()})
FACTS = {"Model": "runs/größe & <co>", "SHA-256": "0" * 64}


def parts(names):
    """Of four, none, two and one rows."""
    return (TABLE.select(names).slice(*part) for part in ((0, 4), (4, 0), (4, 2), (6, 1)))


@pytest.fixture
def fits_file(tmp_path):
    write_fits(tmp_path / "t.fits", COLUMNS, parts, len(TABLE), FACTS)
    return tmp_path / "t.fits"


@pytest.fixture
def votable_file(tmp_path):
    write_votable(tmp_path / "t.vot", COLUMNS, parts, len(TABLE), FACTS)
    return tmp_path / "t.vot"


def same_numbers(table, names=("number", "dec")):
    for name in names:
        expected = np.array(
            [np.nan if each is None else each for each in VALUES[name][1]], TABLE[name].type.to_pandas_dtype()
        )
        np.testing.assert_array_equal(np.ma.filled(table[name].astype(expected.dtype), np.nan), expected)


def unmasked(column):
    return [None if each is np.ma.masked else each for each in column]


def test_fits_is_read_as_it_was(fits_file):
    with fits.open(fits_file) as hdus, warnings.catch_warnings():
        warnings.simplefilter("error")
        hdus.verify("exception")
        header = hdus[1].header
        assert (header["EXTNAME"], header["NAXIS2"], header["TUNIT3"]) == ("PREDICTIONS", 7, "deg")
        assert header["TCOMM3"] == COLUMNS[2].meaning
        assert "Model: runs/gr\\xf6\\xdfe & <co>" in str(header["COMMENT"])
    assert fits_file.stat().st_size % 2880 == 0
    with pytest.warns(AstropyUserWarning, match="contains NULL"):
        table = Table.read(fits_file)
    assert table["id_str"].tolist() == ["a<b>&'\"", "", "", "gr\\xf6\\xdfe\\u202e", "\\x00\\t]]>", "=1+1", " x"]
    same_numbers(table)
    assert unmasked(table["count"]) == VALUES["count"][1]
    assert unmasked(table["small"]) == VALUES["small"][1]
    assert table["plain"].tolist() == VALUES["plain"][1]
    with fits.open(fits_file, logical_as_bytes=True) as hdus:
        assert bytes(hdus[1].data["yes"]) == b"TF\0TTFT"
    assert table["day"].tolist()[:3] == ["1970-01-01 00:00:00", "", "1970-01-02 00:00:00"]
    assert np.isnan(np.ma.filled(table["nothing"], np.nan)).all()


def test_votable_is_valid_and_read_as_it_was(votable_file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = votable.parse(votable_file, verify="exception").get_first_table()
    assert read.description == "Model: runs/größe & <co>; SHA-256: " + "0" * 64
    assert [field.name for field in read.fields] == list(VALUES)
    assert [field.description for field in read.fields] == [" ".join(c.meaning.split()) for c in COLUMNS]
    table = read.to_table(use_names_over_ids=True)
    assert table["dec"].unit == "deg"
    assert unmasked(table["id_str"])[0] == "a<b>&'\""
    assert unmasked(table["id_str"])[3:6] == ["größe\\u202e", "\\x00\\t]]>", "=1+1"]
    same_numbers(table)
    for name in ("count", "small", "plain", "yes"):
        assert unmasked(table[name]) == VALUES[name][1], name
    assert unmasked(table["day"])[2] == "1970-01-02 00:00:00"


def test_a_table_without_rows_is_one(tmp_path):
    def none(names):
        return (TABLE.select(names).slice(0, 0),)

    write_fits(tmp_path / "t.fits", COLUMNS, none, 0, FACTS)
    write_votable(tmp_path / "t.vot", COLUMNS, none, 0, FACTS)
    for file in ("t.fits", "t.vot"):
        table = Table.read(tmp_path / file)
        assert (len(table), table.colnames) == (0, list(VALUES)), file


def test_what_fits_cannot_hold_is_refused():
    column = Column("x", pa.float32(), "")
    with pytest.raises(BadInput, match=r"has 999 columns at most, and this one would have 1,000; leave out --credible"):
        check_fits([column._replace(name=f"x{i}") for i in range(1000)])
    with pytest.raises(BadInput, match=r"does not tell the columns RA and ra apart; leave one out, or take votable"):
        check_fits([column._replace(name=name) for name in ("RA", "dec", "ra")])
    check_fits([column._replace(name=f"x{i}") for i in range(999)])


def test_no_number_is_taken_for_a_missing_one(tmp_path):
    ends = np.iinfo(np.int16)

    def table(values):
        return lambda names: (pa.table({"n": pa.array(values, pa.int16())}),)

    column = Column("n", pa.int16(), "")
    write_fits(tmp_path / "t.fits", [column], table([ends.min, None]), 2, {})
    assert unmasked(Table.read(tmp_path / "t.fits")["n"]) == [ends.min, None]
    with pytest.raises(BadInput, match="column n holds the smallest and the largest number of its type"):
        write_fits(tmp_path / "t.fits", [column], table([ends.min, None, ends.max]), 3, {})
