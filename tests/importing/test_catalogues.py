"""A catalogue becomes rows; whatever is wrong with it is refused in one line that names file, row and column."""

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_galaxy import load_tree
from hf_galaxy.data.picture_files import Pictures
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.errors import BadInput
from hf_galaxy.importing import table_file
from hf_galaxy.importing.catalogues import Catalogue, CatalogueOptions
from hf_galaxy.importing.column_map import ColumnMap
from tests.galaxies import jpeg_bytes, rows_of

TREE = load_tree("gz_rings")


def read(catalogue_folder, tree=TREE, images="pictures"):
    catalogue = Catalogue.read(
        catalogue_folder / "votes.csv",
        Pictures([catalogue_folder / images]),
        ColumnMap.load(catalogue_folder / "map.json"),
        tree,
    )
    return rows_of(catalogue)


def test_rows_hold_the_original_bytes_and_mapped_columns(catalogue_folder):
    rows = {row["id_str"]: row for row in read(catalogue_folder)}
    assert len(rows) == 5
    assert rows["g3"] == {
        "id_str": "g3", "image": {"bytes": jpeg_bytes(3), "path": "3.jpg"}, "ring_yes": 3, "ring_no": 7,
        "type": "odd", "z": float(np.float32(0.3)),
    }  # fmt: skip


def test_a_zip_is_as_good_as_a_folder(catalogue_folder):
    with zipfile.ZipFile(catalogue_folder / "pictures.zip", "w") as archive:
        for picture in (catalogue_folder / "pictures").iterdir():
            archive.write(picture, picture.name)
    assert read(catalogue_folder, images="pictures.zip") == read(catalogue_folder)


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "g3,3.jpg",
            "g3,missing.jpg",
            r"votes\.csv, row 4, column file: 'missing\.jpg' is not a picture in .*pictures",
        ),
        ("g2,2.jpg,2", "g2,2.jpg,-2", r"votes\.csv, row 3, column n_ring: '-2' is not a number of votes"),
        ("g2,2.jpg,2", "g2,2.jpg,2.5", r"votes\.csv, row 3, column n_ring: '2\.5' is not a number of votes"),
        ("g2,2.jpg,2", "g2,2.jpg,many", r"votes\.csv, row 3, column n_ring: 'many' is not a number of votes"),
        ("g2,2.jpg,2", "g2,2.jpg,", r"votes\.csv, row 3, column n_ring: '' is not a number of votes"),
        ("g4,", "g1,", r"votes\.csv, row 5, column name: 'g1' is in an earlier row too"),
        ("g4,", ",", r"votes\.csv, row 5, column name: '' is empty"),
        ("n_ring", "rings", r"votes\.csv: has no column 'n_ring' \(it begins name, file, rings"),
        ("k1,0.3", "k7,0.3", r"votes\.csv, row 4, column kind: 'k7' is not one of k1, k0"),
        ("0.4", "far", r"votes\.csv, row 5, column redshift: 'far' is not a number of type float32"),
    ],
)
def test_what_is_wrong_is_named(catalogue_folder, old, new, message):
    edit(catalogue_folder / "votes.csv", old, new)
    with pytest.raises(BadInput, match=message):
        read(catalogue_folder)


def test_wrong_rows_are_counted(catalogue_folder):
    edit(catalogue_folder / "votes.csv", ".jpg", ".png")
    with pytest.raises(BadInput, match=r"row 1.*and 4 more such rows"):
        read(catalogue_folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"this is text", "is neither JPEG, PNG, WEBP, TIFF, GIF, BMP nor FITS"),
        (jpeg_bytes()[:900], "truncated"),
        (b"", "is neither JPEG, PNG, WEBP, TIFF, GIF, BMP nor FITS"),
    ],
)
def test_a_bad_picture_is_named_with_its_row(catalogue_folder, content, message):
    (catalogue_folder / "pictures/2.jpg").write_bytes(content)
    with pytest.raises(BadInput, match=rf"votes\.csv, row 3 \(id_str g2\): .*2\.jpg: cannot be read.*{message}"):
        read(catalogue_folder)


def test_a_16_bit_picture_is_stretched_and_becomes_png(catalogue_folder):
    values = np.arange(900, dtype=np.uint16).reshape(30, 30) * 70
    Image.fromarray(values).save(catalogue_folder / "pictures/2.jpg", "PNG")
    row = {row["id_str"]: row for row in read(catalogue_folder)}["g2"]
    assert row["image"]["path"] == "2.png"
    picture = Image.open(io.BytesIO(row["image"]["bytes"]))
    assert (picture.mode, picture.getextrema()) == ("L", (0, 255))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "16-bit PNG"])
def test_a_picture_is_opened_and_decoded_once(catalogue_folder, form, monkeypatch):
    file = catalogue_folder / "pictures/3.jpg"
    if form == "PNG":
        Image.open(file).save(file, "PNG")
    elif form == "16-bit PNG":
        Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(file, "PNG")
    catalogue = Catalogue.read(
        catalogue_folder / "votes.csv", Pictures([catalogue_folder / "pictures"]), ColumnMap.load(catalogue_folder / "map.json"),
        TREE, CatalogueOptions(Rendering(crop=0.5), native=True),
    )  # fmt: skip
    opened, open_image = [], Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **options: opened.append(args) or open_image(*args, **options))
    batch = catalogue.batch([3])
    assert len(opened) == 1
    pictures = (batch.native[0].as_py(), batch.table["image"][0].as_py())
    native, cropped = (open_image(io.BytesIO(each["bytes"])) for each in pictures)
    assert (native.size, cropped.size) == ((64, 64), (32, 32))


def test_a_crop_leaves_the_native_picture_whole(catalogue_folder):
    catalogue = Catalogue.read(
        catalogue_folder / "votes.csv",
        Pictures([catalogue_folder / "pictures"]),
        ColumnMap.load(catalogue_folder / "map.json"),
        TREE,
        CatalogueOptions(Rendering(crop=0.5), native=True),
    )
    batch = catalogue.batch([catalogue.ids.index("g3")])
    assert batch.native.to_pylist() == [{"bytes": jpeg_bytes(3), "path": "3.jpg"}]
    assert Image.open(io.BytesIO(batch.table["image"][0].as_py()["bytes"])).size == (32, 32)


def test_whole_numbers_keep_every_digit_and_empty_cells_are_missing(catalogue_folder):
    edit(
        catalogue_folder / "map.json", '"column": "redshift", "dtype": "float32"', '"column": "objid", "dtype": "int64"'
    )
    lines = (catalogue_folder / "votes.csv").read_text().splitlines()
    objids = ["objid", "587722981741363291", "", "587722981741363293", "4", "5"]
    (catalogue_folder / "votes.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, objids, strict=True)))
    rows = {row["id_str"]: row["z"] for row in read(catalogue_folder)}
    assert (rows["g0"], rows["g1"], rows["g2"]) == (587722981741363291, None, 587722981741363293)
    edit(catalogue_folder / "votes.csv", "0.3,4", "0.3,4.7")
    with pytest.raises(BadInput, match=r"row 4, column objid: '4\.7' is not a number of type int64"):
        read(catalogue_folder)


def test_parquet_keeps_every_digit_beside_an_empty_cell(catalogue_folder):
    table = pd.read_csv(catalogue_folder / "votes.csv").assign(
        objid=pd.array([587722981741363291, None, 3, 4, 5], "Int64")
    )
    table.to_parquet(catalogue_folder / "votes.parquet")
    edit(
        catalogue_folder / "map.json",
        '"column": "redshift", "dtype": "float32"',
        '"column": "objid", "dtype": "string"',
    )
    edit(catalogue_folder / "map.json", '"n_none"', '"n_ring"')
    columns = ColumnMap.load(catalogue_folder / "map.json")
    catalogue = Catalogue.read(
        catalogue_folder / "votes.parquet", Pictures([catalogue_folder / "pictures"]), columns, TREE
    )
    assert catalogue.cells.columns(["z"])["z"].to_pylist() == ["587722981741363291", "", "3", "4", "5"]


def test_a_comma_too_many_shifts_nothing(catalogue_folder):
    expected = read(catalogue_folder)
    header, *lines = (catalogue_folder / "votes.csv").read_text().splitlines()
    (catalogue_folder / "votes.csv").write_text("\n".join([header, *(line + "," for line in lines)]))
    assert read(catalogue_folder) == expected


def test_other_pictures_of_the_same_names_are_another_publication(catalogue_folder):
    def fingerprint():
        columns = ColumnMap.load(catalogue_folder / "map.json")
        pictures = Pictures([catalogue_folder / "pictures"])
        return Catalogue.read(catalogue_folder / "votes.csv", pictures, columns, TREE).fingerprint()

    first = fingerprint()
    assert fingerprint() == first
    (catalogue_folder / "pictures/2.jpg").write_bytes(jpeg_bytes(7))
    assert fingerprint() != first


def test_a_bad_picture_may_be_left_out(catalogue_folder):
    (catalogue_folder / "pictures/2.jpg").write_bytes(jpeg_bytes()[:900])
    columns = ColumnMap.load(catalogue_folder / "map.json")
    pictures = Pictures([catalogue_folder / "pictures"])
    catalogue = Catalogue.read(catalogue_folder / "votes.csv", pictures, columns, TREE, CatalogueOptions(skip_bad=True))
    assert [len(catalogue.batch([i]).table) for i in range(5)] == [1, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("id_str", 3, r"id_str: Input should be a valid string"),
        ("values", ["z"], "values: Input should be an object"),
        ("image", "{file", "'{file' is not a pattern: expected"),
        ("image", "{file:d}", "'{file:d}' is not a pattern: in braces are"),
        ("classes", {"type": {"column": "kind", "names": ["k0", "k1"]}}, "type.names: Input should be an object"),
        ("join", {"file": "x.csv", "on": ["a"]}, "join.on: Input should be an object"),
        (
            "fractions",
            {"questions": {"ring": ["a"]}, "volunteers": None},
            "fractions.questions.ring: Input should be an object",
        ),
        ("metadata", {"ra": {"column": "redshift", "dtype": "string"}}, "ra must be a float"),
    ],
)
def test_values_of_the_wrong_kind_in_a_map_are_refused(catalogue_folder, key, value, message):
    columns = json.loads((catalogue_folder / "map.json").read_text()) | {key: value}
    (catalogue_folder / "map.json").write_text(json.dumps(columns))
    with pytest.raises(BadInput, match=message):
        read(catalogue_folder)


def test_values_with_one_class_name_are_one_class(catalogue_folder):
    edit(catalogue_folder / "map.json", '"k1": "odd", "k0": "even"', '"k1": "any", "k0": "any", "k2": "none"')
    assert {row["type"] for row in read(catalogue_folder)} == {"any"}
    assert ColumnMap.load(catalogue_folder / "map.json").class_names == {"type": ["any", "none"]}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"type": {"column": "kind", "names"',
            '"type": {"column": "kind", "called"',
            r"classes\.type\.names: Field required",
        ),
        ('"dtype": "float32"', '"dtype": "number"', r"metadata\.z\.dtype: Input should be .*float32"),
        ('"type"', '"image"', "image would be in the dataset twice"),
        ('"z"', '"ring_yes"', "ring_yes would be in the dataset twice"),
    ],
)
def test_a_wrong_column_map_is_refused(catalogue_folder, old, new, message):
    edit(catalogue_folder / "map.json", old, new)
    with pytest.raises(BadInput, match=message):
        read(catalogue_folder)


def test_a_damaged_zip_member_is_named(catalogue_folder):
    with zipfile.ZipFile(catalogue_folder / "pictures.zip", "w") as archive:
        for picture in sorted((catalogue_folder / "pictures").iterdir()):
            archive.write(picture, picture.name)
    content = bytearray((catalogue_folder / "pictures.zip").read_bytes())
    content[200] ^= 255
    (catalogue_folder / "pictures.zip").write_bytes(content)
    with pytest.raises(BadInput, match=r"row 1 \(id_str g0\).*0\.jpg: cannot be read as a picture"):
        read(catalogue_folder, images="pictures.zip")


def test_missing_and_empty_files(catalogue_folder):
    with pytest.raises(BadInput, match="neither a folder nor a zip"):
        Pictures([catalogue_folder / "votes.csv"])
    (catalogue_folder / "map.json").write_text('{"picture": "file"}')
    with pytest.raises(BadInput, match=r"map\.json: is not a column map.*picture"):
        read(catalogue_folder)
    (catalogue_folder / "map.json").write_text('{"id_str": "name", "image": "file"}')
    (catalogue_folder / "votes.csv").write_text("name,file,ring_yes,ring_no\n")
    with pytest.raises(BadInput, match="has no rows"):
        read(catalogue_folder)
    (catalogue_folder / "votes.csv").write_text("")
    with pytest.raises(BadInput, match=r"votes\.csv: cannot be read as a table"):
        read(catalogue_folder)
    (catalogue_folder / "votes.csv").unlink()
    with pytest.raises(BadInput, match=r"votes\.csv: no such file"):
        read(catalogue_folder)


def test_votes_that_do_not_walk_the_tree_are_named(tmp_path):
    tree = load_tree("gz_jwst_ceers")
    (tmp_path / "1.jpg").write_bytes(jpeg_bytes())
    votes = dict.fromkeys(tree.columns, 0) | {"smooth-or-featured-jwst_smooth": 5, "how-rounded-jwst_round": 4}
    table = {"id_str": "g", "image": "1.jpg", **votes}
    (tmp_path / "votes.csv").write_text(",".join(table) + "\n" + ",".join(map(str, table.values())))
    catalogue = Catalogue.read(tmp_path / "votes.csv", Pictures([tmp_path]), ColumnMap(), tree)
    rounded, merging = catalogue.inconsistencies()
    assert rounded.endswith("row 1 (id_str g): how-rounded-jwst has 4 votes, but the answers that lead to it have 5")
    assert "merging-jwst has 0 votes" in merging


def test_names_that_lost_digits_in_a_spreadsheet_are_refused(catalogue_folder):
    edit(catalogue_folder / "votes.csv", "g3,", "1.23764872069376E+18,")
    with pytest.raises(
        BadInput, match=r"row 4, column name: '1\.23764872069376E\+18' was once a number of many digits"
    ):
        read(catalogue_folder)


def test_paths_of_windows_are_found(catalogue_folder):
    expected = read(catalogue_folder)
    (catalogue_folder / "pictures/far/away").mkdir(parents=True)
    (catalogue_folder / "pictures/3.jpg").rename(catalogue_folder / "pictures/far/away/3.jpg")
    edit(catalogue_folder / "votes.csv", "g3,3.jpg", r"g3,far\away\3.jpg")
    found = read(catalogue_folder)
    assert [row["image"]["bytes"] for row in found] == [row["image"]["bytes"] for row in expected]


def test_absolute_paths_are_read_inside_the_folders_and_nowhere_else(catalogue_folder):
    expected = read(catalogue_folder)
    edit(catalogue_folder / "votes.csv", "g3,3.jpg", f"g3,{catalogue_folder}/pictures/3.jpg")
    assert [row["image"]["bytes"] for row in read(catalogue_folder)] == [row["image"]["bytes"] for row in expected]
    (catalogue_folder / "link").symlink_to(catalogue_folder / "pictures")
    for same in ("pictures/../pictures", "link"):
        assert f"{catalogue_folder}/pictures/3.jpg" in Pictures([catalogue_folder / same])
    (catalogue_folder / "3.jpg").write_bytes(jpeg_bytes())
    for outside in (catalogue_folder / "3.jpg", catalogue_folder / "pictures/../3.jpg"):
        assert str(outside) not in Pictures([catalogue_folder / "pictures"])


def test_a_catalogue_with_none_of_the_columns_says_which_is_missing(catalogue_folder):
    header, *lines = (catalogue_folder / "votes.csv").read_text().splitlines()
    names = ",".join(f"other_{name}" for name in header.split(","))
    (catalogue_folder / "votes.csv").write_text("\n".join([names, *lines]))
    with pytest.raises(BadInput, match=r"votes\.csv: has no column 'file' \(it begins other_name, "):
        read(catalogue_folder)


def test_a_catalogue_in_pieces_is_the_same_catalogue(catalogue_folder, monkeypatch):
    """Whatever the number of rows that are read at a time; and a bad row is told by its number in the whole table."""
    expected, path = read(catalogue_folder), catalogue_folder / "votes.csv"
    pd.read_csv(path).to_parquet(catalogue_folder / "votes.parquet", row_group_size=2)
    monkeypatch.setattr(table_file.read_pieces, "__defaults__", (2,))
    assert read(catalogue_folder) == expected
    columns, pictures = ColumnMap.load(catalogue_folder / "map.json"), Pictures([catalogue_folder / "pictures"])
    assert rows_of(Catalogue.read(catalogue_folder / "votes.parquet", pictures, columns, TREE)) == expected
    (catalogue_folder / "pictures/1.jpg").unlink()
    found = Catalogue.read(path, pictures, columns, TREE, CatalogueOptions(skip_missing=True))
    assert (rows_of(found), found.rows.tolist()) == ([row for row in expected if row["id_str"] != "g1"], [1, 3, 4, 5])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], lines[5].replace("k0", "k7")]))
    with pytest.raises(BadInput, match=r"row 5, column kind: 'k7' is not one of"):
        Catalogue.read(path, pictures, columns, TREE, CatalogueOptions(skip_missing=True))
