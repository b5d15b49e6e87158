"""Folders of pictures, with classes or with a table, are datasets as they are."""

import io
import json
import shutil

import datasets
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from hf_galaxy.data.schema import split_of
from hf_galaxy.data.targets import column_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.folders import Contents
from hf_galaxy.importing.reading import Reading
from hf_galaxy.progress import log_once
from tests.galaxies import jpeg_bytes


def galaxies(opened):
    """id_str -> its split, and its row."""
    return {
        row["id_str"]: (split, row)
        for split, rows in opened.items()
        for row in rows.with_format("arrow")[list(range(len(rows)))].to_pylist()
    }


def test_each_subfolder_is_a_class_and_the_names_decide_the_splits(class_folder, caplog):
    (class_folder / "spiral" / ".ipynb_checkpoints").mkdir()
    (class_folder / "spiral" / ".ipynb_checkpoints" / "g01-checkpoint.jpg").write_bytes(jpeg_bytes())
    (class_folder / "Thumbs.db").write_bytes(b"")
    log_once.cache_clear()
    caplog.set_level("INFO")
    opened = open_dataset(str(class_folder))
    assert opened["train"].features["label"].names == ["elliptical", "spiral"]
    found = galaxies(opened)
    assert len(found) == 24
    for name, (split, row) in found.items():
        i = int(name[1:])
        assert split == split_of(name)
        assert row["label"] == (1 if i % 3 else 0)
        assert row["image"]["bytes"] == jpeg_bytes(i)
    open_dataset(str(class_folder))
    lines = [record.getMessage() for record in caplog.records]
    line = "24 galaxies in 2 classes (label); picture: file_name, name: file name; splits: by a hash of the name; change it with"
    assert sum(line in each for each in lines) == 1
    assert f"{class_folder}: 1 pictures that are hidden, or in hidden folders, are left out" in lines
    assert f"{class_folder}: files that are no pictures by their names are left out: 1 .db" in lines


def test_a_zip_of_the_folder_is_the_same(class_folder, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "galaxies"), "zip", tmp_path, "galaxies")
    assert galaxies(open_dataset(archive)) == galaxies(open_dataset(str(class_folder)))


def test_splits_are_folders_above_the_classes(tmp_path):
    for split, galaxy in (("train", 0), ("train", 1), ("Valid", 2), ("testing", 3), ("testing", 4)):
        file = tmp_path / split / ("a" if galaxy % 2 else "b") / "g.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg_bytes(galaxy))
    found = galaxies(open_dataset(str(tmp_path)))
    assert {name: (split, row["label"]) for name, (split, row) in found.items()} == {
        "train/b/g.jpg": ("train", 1), "train/a/g.jpg": ("train", 0), "Valid/b/g.jpg": ("validation", 1),
        "testing/a/g.jpg": ("test", 0), "testing/b/g.jpg": ("test", 1),
    }  # fmt: skip


def test_a_picture_in_two_classes_is_in_one_split(class_folder):
    shutil.rmtree(class_folder / "elliptical")
    shutil.copytree(class_folder / "spiral", class_folder / "barred")
    found = galaxies(open_dataset(str(class_folder)))
    spirals = {name: split for name, (split, _) in found.items() if name.startswith("spiral/")}
    assert len(found) == 2 * len(spirals) == 32
    assert set(spirals.values()) == {"train", "validation", "test"}
    assert all(found[name.replace("spiral", "barred")][0] == split for name, split in spirals.items())


def test_fits_pictures_are_rendered(class_folder):
    file = io.BytesIO()
    fits.PrimaryHDU(np.random.default_rng(0).normal(size=(20, 20)).astype("f4")).writeto(file)
    (class_folder / "spiral" / "deep.fits").write_bytes(file.getvalue())
    _, row = galaxies(open_dataset(str(class_folder)))["deep"]
    assert row["image"]["bytes"].startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_beside_the_pictures_gives_the_columns(tmp_path, kind, caplog):
    for i in range(7):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg_bytes(i))
    table = pd.DataFrame(
        {"file_name": [f"{i}.jpg" for i in range(6)], "objid": [f"00{i}" for i in range(6)], "z": 0.25}
    )
    write = {"csv": table.to_csv, "parquet": table.to_parquet}
    if kind == "jsonl":
        (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_dict("records")))
    else:
        write[kind](tmp_path / f"metadata.{kind}", index=False)
    caplog.set_level("INFO")
    found = galaxies(open_dataset(str(tmp_path)))
    assert found.keys() == {f"00{i}" for i in range(6)}
    assert found["003"][1]["image"]["bytes"] == jpeg_bytes(3)
    assert found["003"][1]["z"] == 0.25
    assert f"{tmp_path}: 1 pictures are in no row of metadata.{kind} and are left out" in caplog.messages


def test_a_row_without_its_picture_is_named_or_left_out(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes())
    (tmp_path / "metadata.csv").write_text("file_name,label\na.jpg,x\nb.jpg,y\n")
    with pytest.raises(BadInput, match=r"metadata.csv, row 2: there is no picture b.jpg; --skip-missing"):
        open_dataset(str(tmp_path))
    assert galaxies(open_dataset(str(tmp_path), Reading(skip_missing=True))).keys() == {"a"}


def change_class(folder):
    shutil.move(folder / "elliptical", folder / "spiral" / "nested")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "elliptical"), "all pictures are of one class, spiral"),
        (lambda folder: (folder / "merger").mkdir(), "class folder merger is empty; fill it or remove it"),
        (change_class, "spiral/nested/g00.jpg is in a folder within a class folder; if nested is its class"),
        (lambda folder: (folder / "x.png").write_bytes(b""), "x.png is in no class folder; move each picture"),
        (
            lambda folder: [(folder / name).write_bytes(b"") for name in ("x.png", "labels.csv")],
            "; or, if labels.csv is a table of the pictures, give that: --dataset .*labels.csv",
        ),
        (lambda folder: (folder / "metadata.csv").write_text("file,z\n"), "has no column file_name"),
        (
            lambda folder: [shutil.rmtree(each) for each in folder.iterdir()],
            "holds neither Parquet files nor pictures;",
        ),
        (
            lambda folder: [file.rename(file.with_suffix(".npy")) for file in folder.rglob("*.jpg")],
            r"or --bands with the names of the bands to read fluxes from \.npy files",
        ),
    ],
)
def test_what_is_no_folder_of_classes_is_refused_in_words(class_folder, change, message):
    change(class_folder)
    with pytest.raises(BadInput, match=message):
        open_dataset(str(class_folder))


def test_a_picture_that_cannot_be_read_is_named_or_left_out(class_folder, caplog):
    (class_folder / "spiral" / "g01.jpg").write_bytes(jpeg_bytes(1)[:700])
    with pytest.raises(BadInput, match=r"spiral/g01.jpg: cannot be read as a picture.*truncated.*--skip-bad-pictures"):
        open_dataset(str(class_folder))
    caplog.set_level("INFO")
    opened = open_dataset(str(class_folder), Reading(skip_bad_pictures=True))
    assert f"{class_folder}: imported, into " in caplog.text
    assert "the pictures of 1 of 24 galaxies cannot be read, and are left out: g01." in caplog.text
    assert "g01" not in galaxies(opened)
    assert sum(map(len, opened.values())) == 23


def test_a_picture_that_is_in_two_splits_is_a_warning(tmp_path, caplog):
    for split, i in (("train", 0), ("train", 1), ("test", 1), ("test", 2)):
        file = tmp_path / split / "ab"[i % 2] / f"{split}{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg_bytes(i))
    open_dataset(str(tmp_path))
    assert [
        r.levelname
        for r in caplog.records
        if "1 rows of other splits show a galaxy that is in split train" in r.getMessage()
    ] == ["WARNING"]


def test_predictions_beside_pictures_do_not_make_a_dataset_of_them(class_folder):
    (class_folder / "predictions").mkdir()
    datasets.Dataset.from_dict({"id_str": ["a"], "ring_probability": [0.5]}).to_parquet(
        class_folder / "predictions" / "part-0.parquet"
    )
    assert not Contents.of(class_folder).holds_rows
    assert set(column_of(open_dataset(str(class_folder))["test"], "id_str").to_pylist()) <= {
        f"g{i:02}" for i in range(24)
    }


def test_a_class_folder_may_be_a_link_but_not_to_what_holds_it(class_folder, tmp_path):
    shutil.move(class_folder / "spiral", tmp_path / "elsewhere")
    (class_folder / "spiral").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "above").symlink_to(class_folder)
    assert len(galaxies(open_dataset(str(class_folder)))) == 24


def test_a_folder_that_holds_its_pictures_needs_no_others(class_folder):
    with pytest.raises(
        BadInput, match=r"--images .*: is for a table of galaxies; .* holds its pictures: leave --images out"
    ):
        open_dataset(str(class_folder), Reading(images=(class_folder,)))
