"""A catalogue becomes rows; whatever is wrong with it is refused in one line that names file, row and column."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from hf_galaxy import load_tree
from hf_galaxy.catalogues import Catalogue, ColumnMap, Pictures
from hf_galaxy.errors import BadInput

TREE = load_tree("gz_rings")


def jpeg_bytes(seed=0, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Five galaxies, all well: pictures, votes.csv with columns of other names, and a column map."""
    (tmp_path / "pictures").mkdir()
    for i in range(5):
        (tmp_path / f"pictures/{i}.jpg").write_bytes(jpeg_bytes(i, "L" if i == 4 else "RGB"))
    (tmp_path / "votes.csv").write_text(
        "name,file,n_ring,n_none,kind,redshift\n" + "".join(f"g{i},{i}.jpg,{i},{10 - i}.0,k{i % 2},0.{i}\n" for i in range(5))
    )
    (tmp_path / "map.json").write_text(
        json.dumps(
            {
                "id_str": "name",
                "image": "file",
                "votes": {"ring_yes": "n_ring", "ring_no": "n_none"},
                "classes": {"type": {"column": "kind", "names": {"k1": "odd", "k0": "even"}}},
                "metadata": {"z": {"column": "redshift", "dtype": "float32"}},
            }
        )
    )
    return tmp_path


def read(folder, tree=TREE, images="pictures"):
    return list(Catalogue(folder / "votes.csv", Pictures(folder / images), ColumnMap.load(folder / "map.json"), tree))


def test_rows_hold_the_original_bytes_and_mapped_columns(folder):
    rows = {row["id_str"]: row for row in read(folder)}
    assert len(rows) == 5
    assert rows["g3"] == {
        "id_str": "g3", "image": {"bytes": jpeg_bytes(3), "path": "3.jpg"}, "ring_yes": 3, "ring_no": 7,
        "type": "odd", "z": 0.3,
    }  # fmt: skip


def test_a_zip_is_as_good_as_a_folder(folder):
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for picture in (folder / "pictures").iterdir():
            archive.write(picture, picture.name)
    assert read(folder, images="pictures.zip") == read(folder)


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("g3,3.jpg", "g3,missing.jpg", r"votes\.csv, row 4, column file: 'missing\.jpg' is no picture in .*pictures"),
        ("g2,2.jpg,2", "g2,2.jpg,-2", r"votes\.csv, row 3, column n_ring: '-2' is no number of votes"),
        ("g2,2.jpg,2", "g2,2.jpg,2.5", r"votes\.csv, row 3, column n_ring: '2\.5' is no number of votes"),
        ("g2,2.jpg,2", "g2,2.jpg,many", r"votes\.csv, row 3, column n_ring: 'many' is no number of votes"),
        ("g2,2.jpg,2", "g2,2.jpg,", r"votes\.csv, row 3, column n_ring: '' is no number of votes"),
        ("g4,", "g1,", r"votes\.csv, row 5, column name: 'g1' stands in an earlier row too"),
        ("g4,", ",", r"votes\.csv, row 5, column name: '' is empty"),
        ("n_ring", "rings", r"votes\.csv: has no column 'n_ring' \(it begins name, file, rings"),
        ("k1,0.3", "k7,0.3", r"votes\.csv, row 4, column kind: 'k7' is none of the classes k1, k0"),
        ("0.4", "far", r"votes\.csv, row 5, column redshift: 'far' is no float32"),
    ],
)
def test_what_is_wrong_is_named(folder, old, new, message):
    edit(folder / "votes.csv", old, new)
    with pytest.raises(BadInput, match=message):
        read(folder)


def test_wrong_rows_are_counted(folder):
    edit(folder / "votes.csv", ".jpg", ".png")
    with pytest.raises(BadInput, match=r"row 1.*and 4 more such rows"):
        read(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"this is text", "is neither JPEG nor PNG"),
        (jpeg_bytes()[:900], "truncated"),
        (b"", "is neither JPEG nor PNG"),
    ],
)
def test_a_bad_picture_is_named_with_its_row(folder, content, message):
    (folder / "pictures/2.jpg").write_bytes(content)
    with pytest.raises(BadInput, match=rf"votes\.csv, row 3 \(id_str g2\): .*2\.jpg: cannot be read.*{message}"):
        read(folder)


def test_a_16_bit_picture_is_refused_rather_than_clipped(folder):
    Image.fromarray(np.full((9, 9), 40000, dtype=np.uint16)).save(folder / "pictures/2.jpg", "PNG")
    with pytest.raises(BadInput, match=r"2\.jpg: has mode I;16; convert"):
        read(folder)


def test_missing_and_empty_files(folder):
    with pytest.raises(BadInput, match="neither a folder nor a zip"):
        Pictures(folder / "votes.csv")
    (folder / "map.json").write_text('{"picture": "file"}')
    with pytest.raises(BadInput, match=r"map\.json: is no column map.*picture"):
        read(folder)
    (folder / "map.json").write_text('{"id_str": "name", "image": "file"}')
    (folder / "votes.csv").write_text("name,file\n")
    with pytest.raises(BadInput, match="has no rows"):
        read(folder)
    (folder / "votes.csv").write_text("")
    with pytest.raises(BadInput, match=r"votes\.csv: cannot be read as CSV"):
        read(folder)
    (folder / "votes.csv").unlink()
    with pytest.raises(BadInput, match=r"votes\.csv: no such file"):
        read(folder)


def test_votes_that_do_not_walk_the_tree_are_named(tmp_path):
    tree = load_tree("gz_jwst_ceers")
    (tmp_path / "1.jpg").write_bytes(jpeg_bytes())
    votes = dict.fromkeys(tree.columns, 0) | {"smooth-or-featured-jwst_smooth": 5, "how-rounded-jwst_round": 4}
    table = {"id_str": "g", "image": "1.jpg", **votes}
    (tmp_path / "votes.csv").write_text(",".join(table) + "\n" + ",".join(map(str, table.values())))
    catalogue = Catalogue(tmp_path / "votes.csv", Pictures(tmp_path), ColumnMap(), tree)
    rounded, merging = catalogue.inconsistencies()
    assert rounded.endswith("row 1 (id_str g): how-rounded-jwst has 4 votes, but the answers it is asked after have 5")
    assert "merging-jwst has 0 votes" in merging
