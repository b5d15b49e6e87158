"""A DataFrame of galaxies becomes a dataset with a name, the same for equal frames; its pictures are files or stand in its cells."""

import io

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_galaxy.data.targets import column_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.frames import open_frame
from hf_galaxy.importing.objects import is_galaxies, name_of
from hf_galaxy.importing.reading import Reading
from tests.galaxies import jpeg_bytes

NUMBER = 8


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def frame(pictures):
    objid = [587739505552785605 + i for i in range(NUMBER)]
    return pd.DataFrame(
        {"objid": objid, "picture": pictures, "z": np.linspace(0, 1.5, NUMBER), "kind": ["a", None] * 4}
    )


def pictures(form):
    contents = [jpeg_bytes(i) for i in range(NUMBER)]
    images = [Image.open(io.BytesIO(each)) for each in contents]
    return {
        "bytes": contents,
        "cells of datasets": [{"bytes": each, "path": None} for each in contents],
        "PIL images": images,
        "arrays": [np.asarray(each) for each in images],
    }[form]


@pytest.mark.parametrize("form", ["bytes", "cells of datasets", "PIL images", "arrays"])
def test_pictures_in_cells_keep_their_pixels(form):
    catalogue = open_frame(frame(pictures(form)), Reading())
    assert catalogue.ids[0] == "587739505552785605"
    for i, row in enumerate(catalogue.batch(range(NUMBER)).table.to_pylist()):
        found = Image.open(io.BytesIO(row["image"]["bytes"]))
        assert np.array_equal(np.asarray(found), np.asarray(Image.open(io.BytesIO(jpeg_bytes(i)))))
        assert row["kind"] == ("a" if i % 2 == 0 else "")
    assert catalogue.dtypes == {"z": "float32", "kind": "string"}


def test_equal_frames_have_the_same_name_and_open_alike(tmp_path):
    for i in range(NUMBER):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg_bytes(i))
    table, reading = frame([f"{i}.jpg" for i in range(NUMBER)]), Reading(images=(tmp_path,))
    assert is_galaxies(table)
    name = name_of(table, reading)
    assert name == name_of(table.copy(), reading)
    assert name != name_of(table.assign(z=0.5), reading)
    ids = [each for rows in open_dataset(name).values() for each in column_of(rows, "id_str").to_pylist()]
    assert sorted(ids) == table["objid"].astype(str).tolist()


def test_without_names_the_content_of_a_picture_names_it_and_an_index_with_a_name_is_a_column():
    table = frame(pictures("bytes"))
    assert len(set(open_frame(table.drop(columns="objid"), Reading()).ids[0])) > 8
    assert open_frame(table.set_index("objid"), Reading()).ids[:] == table["objid"].astype(str).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table[:0], "DataFrame: has no rows"),
        (lambda table: table.rename(columns={"z": 3}), "DataFrame: its columns need names that are texts"),
        (lambda table: table.assign(picture="lost.jpg"), r"DataFrame: no picture of its rows is in .*'lost\.jpg'.*--images"),
        (
            lambda table: table.assign(picture=[b"x", *table["picture"][1:-1], None]),
            r"DataFrame, row 8, column picture: '7' is not a picture in its cells; --skip-missing",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(change, message):
    with pytest.raises(BadInput, match=message):
        open_frame(change(frame(pictures("bytes"))), Reading())
