"""Galaxies that are in no file for their pictures are listed in left_out.csv, with the reasons."""

import csv
from pathlib import Path

import datasets
import pytest

from hf_galaxy.data.picture_files import Pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.catalogues import Catalogue, CatalogueOptions
from hf_galaxy.importing.column_map import ColumnMap
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.imported import import_source
from hf_galaxy.importing.left_out import FILE, READABLE, reason, write_left_out
from hf_galaxy.importing.loaded import object_rows
from hf_galaxy.importing.plan import plan
from hf_galaxy.importing.reading import Reading
from hf_galaxy.importing.writer import write_shards
from tests.galaxies import Rows, jpeg_bytes

TRUNCATED = jpeg_bytes(1)[:700]
LENIENT = Reading(skip_missing=True, skip_bad_pictures=True)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def pictures(tmp_path):
    """24 pictures, of which 4 is truncated and 7 is not there."""
    folder = tmp_path / "galaxies"
    folder.mkdir()
    for i in {*range(24)} - {7}:
        (folder / f"{i}.jpg").write_bytes(TRUNCATED if i == 4 else jpeg_bytes(i))
    return folder


def listed(folder):
    with open(folder / FILE, newline="", encoding="utf-8") as file:
        return [(line["id_str"], line["row"], line["file"], line["reason"]) for line in csv.DictReader(file)]


def test_missing_and_unreadable_pictures_of_a_catalogue_are_listed_also_after_an_interruption(tmp_path, pictures):
    table = tmp_path / "survey.csv"
    table.write_text("id_str,image\n" + "".join(f"g{i},{i}.jpg\n" for i in range(24)))
    options = CatalogueOptions(skip_missing=True, skip_bad=True)
    source = Catalogue.read(table, Pictures([pictures]), ColumnMap(), None, options)
    planned = plan(source)
    write_shards(source, planned.shards[:1], tmp_path)
    write_shards(source, planned.shards, tmp_path)
    lost = write_left_out(source, planned, tmp_path)
    found = listed(tmp_path)
    assert found == [tuple(map(str, each)) for each in lost]
    assert found[0] == ("g7", "8", "7.jpg", f"is not a picture in {pictures}")
    assert found[1][:3] == ("g4", "5", "4.jpg")
    assert "truncated" in found[1][3]
    assert len(found) == 2


def test_a_folder_with_a_table_lists_them_beside_its_import(tmp_path, pictures, caplog):
    (pictures / "metadata.csv").write_text("file_name,z\n" + "".join(f"{i}.jpg,0.{i}\n" for i in range(24)))
    caplog.set_level("INFO")
    assert sum(map(len, open_dataset(str(pictures), LENIENT).values())) == 22
    (folder,) = (path.parent for path in (tmp_path / "cache/hf_galaxy").glob(f"*/{FILE}"))
    assert f"{folder / FILE} lists the 2 galaxies that are left out, with the reasons." in caplog.text
    found = listed(folder)
    assert found[0] == ("", "8", "7.jpg", "metadata.csv: there is no such picture")
    assert found[1][:3] == ("4", "5", "4.jpg")
    assert "truncated" in found[1][3]


def test_rows_of_given_splits_are_counted_in_their_split():
    made = datasets.Dataset.from_dict(
        {"image": [{"bytes": jpeg_bytes(i) if i != 5 else TRUNCATED, "path": None} for i in range(8)]}
    ).cast_column("image", datasets.Image())
    splits = datasets.DatasetDict(train=made.select(range(4)), test=made.select(range(4, 8)))
    source = object_rows("rows", splits, LENIENT)
    (lost,) = listed(import_source(source, "rows", source.splits))
    assert lost[:3] == (source.ids[5], "2", "")


def test_without_lost_galaxies_there_is_no_list(tmp_path):
    source = Rows(20)
    planned = plan(source)
    write_shards(source, planned.shards, tmp_path)
    assert write_left_out(source, planned, tmp_path) == []
    assert not Path(tmp_path / FILE).exists()
    assert reason(source, 3) == READABLE


def test_a_dataset_of_which_no_picture_can_be_read_is_refused(tmp_path):
    for name in "ab":
        (tmp_path / "galaxies" / name).mkdir(parents=True)
        (tmp_path / "galaxies" / name / "1.jpg").write_bytes(TRUNCATED)
    for _ in range(2):
        with pytest.raises(BadInput, match=r"galaxies: none of its 2 pictures can be read, such as .*1.*truncated"):
            open_dataset(str(tmp_path / "galaxies"), LENIENT)
