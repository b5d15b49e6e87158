"""Datasets of any columns: of the datasets library, of WebDataset, of the Hub."""

import io
import json
import tarfile

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_galaxy.data.schema import split_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.loaded import object_rows
from hf_galaxy.importing.objects import name_of
from hf_galaxy.importing.reading import Reading
from tests.galaxies import jpeg_bytes
from tests.importing.test_picture_folders import galaxies


def rows(**columns):
    """A dataset of as many rows as its columns, with pictures."""
    n = len(next(iter(columns.values())))
    made = datasets.Dataset.from_dict({"image": [{"bytes": jpeg_bytes(i), "path": None} for i in range(n)], **columns})
    return made.cast_column("image", datasets.Image())


def saved(made, folder, reading=None):
    made.save_to_disk(folder)
    return galaxies(open_dataset(str(folder), reading))


def test_a_saved_copy_and_shards_of_a_class_folder_are_equal_to_it(class_folder, tmp_path):
    expected = galaxies(open_dataset(str(class_folder)))
    copy = datasets.load_dataset("imagefolder", data_dir=str(class_folder))
    assert saved(copy, tmp_path / "saved") == saved(copy["train"], tmp_path / "one") == expected
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "galaxies-000.tar", "w") as shard:
        for file in sorted(class_folder.rglob("*.jpg")):
            about = json.dumps({"label": file.parent.name, "position": {"ra": 1.0}}).encode()
            for suffix, content in ((".jpg", file.read_bytes()), (".json", about)):
                member = tarfile.TarInfo(file.stem + suffix)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    shards = galaxies(open_dataset(str(tmp_path / "shards")))
    names = ["elliptical", "spiral"]
    assert {n: (split, row | {"label": names.index(row["label"])}) for n, (split, row) in shards.items()} == expected


def test_a_dataset_in_memory_has_a_name(tmp_path):
    made = rows(galaxy_id=[7, 8, 9], label=["a", "b", "a"], z=[0.1, None, 0.3])
    made = made.class_encode_column("label")
    name = name_of(made, Reading())
    found = galaxies(open_dataset(name))
    assert found["7"][1] | {"image": None} == {"id_str": "7", "image": None, "label": 0, "z": 0.1}
    assert name_of(made, Reading()) == name
    assert name_of(made.select([0, 1]), Reading()) != name
    assert galaxies(open_dataset(name_of(datasets.DatasetDict(train=made), Reading()))) == found
    with pytest.raises(BadInput, match="is a stream; load the dataset without streaming=True"):
        name_of(made.to_iterable_dataset(), Reading())


def test_without_names_the_pictures_are_the_names_and_equal_ones_one_galaxy():
    made = rows(label=["a", "b", "c"])
    twice = datasets.concatenate_datasets([made, made.select([1])])
    source = object_rows("x", twice, Reading())
    assert len(set(source.ids)) == 4
    assert source.ids[3] == f"{source.ids[1]}-2"
    found = galaxies(open_dataset(name_of(twice, Reading())))
    assert found[source.ids[1]][0] == found[source.ids[3]][0] == split_of(source.ids[1])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["train"], None),
        (["train", "test"], {"train": "train", "test": "test"}),
        (["training", "val", "test"], {"training": "train", "val": "validation", "test": "test"}),
        (["train", "valid"], {"train": "train", "valid": "test"}),
        (["train", "valid", "new"], {"train": "train", "valid": "test", "new": "new"}),
        (["train", "test", "un labelled"], {"train": "train", "test": "test", "un labelled": "un_labelled"}),
    ],
)
def test_splits_that_are_given_stay(given, expected):
    source = object_rows("x", {split: rows(id=[f"{split}{i}" for i in range(3)]) for split in given}, Reading())
    assert source.given == expected
    assert ("valid is test, as there is no test split" in str(source)) == ("valid" in given)


def test_columns_are_guessed_by_type_and_name_and_corrected_by_options():
    made = rows(name=["x", "y"], objid=[3, 4], pair=[[1, 2], [3, 4]]).rename_column("image", "Picture")
    made = made.add_column("image", ["one", "two"])
    source = object_rows("x", made, Reading())
    assert (source.image, source.ids, list(source.features)) == ("Picture", ["3", "4"], ["id_str", "image", "name"])
    assert source.notes == ["columns left out: pair (List), image (string)"]
    source = object_rows("x", made, Reading(id_column="name"))
    assert source.ids == ["x", "y"]
    several = rows(id=[1, 2]).add_column("png", [{"bytes": b"", "path": None}] * 2).cast_column("png", datasets.Image())
    assert object_rows("x", several, Reading()).image == "image"
    assert object_rows("x", several, Reading(image_column="png")).image == "png"


@pytest.mark.parametrize(
    ("reading", "columns", "message"),
    [
        ({"image_column": "picture"}, {}, "--image-column picture: x has no such column, only image, id, z"),
        ({"id_column": "Id"}, {}, r"--id-column Id: x has no such column; did you mean id\?"),
        ({"id_column": "id"}, {"id": [1, 1]}, "split all, row 2: id 1 is in split all, row 1 too"),
        ({"id_column": "id"}, {"id": ["a", None]}, "split all, row 2: column id is empty"),
        ({"id_column": "z"}, {}, "--id-column z: holds float64 in x; names are texts or whole numbers"),
        ({"image_column": "z"}, {}, "--image-column z: holds float64 in x, no pictures"),
    ],
)
def test_wrong_columns_are_refused(reading, columns, message):
    with pytest.raises(BadInput, match=message):
        object_rows("x", rows(**{"id": [1, 2], "z": [0.1, 0.2]} | columns), Reading(**reading))


def test_rows_without_pictures_list_their_columns():
    made = datasets.Dataset.from_dict({"id": ["a"], "kind": [1]})
    with pytest.raises(
        BadInput, match=r"no column holds pictures; .*--image-column: it has id \(string\), kind \(int64\)"
    ):
        object_rows("x", made, Reading())


def test_paths_in_a_column_are_files_of_the_folder_or_of_images(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(jpeg_bytes(4))
    made = datasets.Dataset.from_dict({"file_loc": ["pictures/a.jpg"], "label": [2], "label_text": ["arm"]})
    (tmp_path / "rows").mkdir()
    made.to_parquet(tmp_path / "rows" / "train.parquet")
    found = galaxies(open_dataset(str(tmp_path / "rows"), Reading(images=(tmp_path,))))
    ((name, (_, row)),) = found.items()
    assert (name, row["image"]["bytes"], row["label"], row["label_text"]) == ("a", jpeg_bytes(4), 2, "arm")
    with pytest.raises(BadInput, match=r"pictures/a\.jpg is not in"):
        open_dataset(str(tmp_path / "rows"))


# The layouts of the downstream sets of the paper, as far as they are public.
LAYOUTS = {
    "which-lsb": ({"label": [0, 1, 2, 3], "label_text": ["arm", "stream", "shell", "diffuse"]}, ["train", "test"]),
    "gz_rings": ({"id_str": ["a", "b", "c", "d"], "ring_fraction": [0.1, 0.2, 0.3, 0.4]}, ["train", "test"]),
    "galaxy10_decals": ({"label": [0, 9, 3, 4], "ra": [1.0, 2.0, 3.0, 4.0]}, ["train"]),
    "jwst": ({"file_loc": [f"/gone/{i}.png" for i in range(4)], "label": ["p", "q", "r", "s"]}, ["train", "test"]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_downstream_sets_load_by_whatever_columns_they_have(layout):
    columns, splits = LAYOUTS[layout]
    made = rows(**columns)
    if layout == "jwst":
        made = made.rename_column("image", "Image")
    parts = {split: made.select(range(i, 4, len(splits))) for i, split in enumerate(splits)}
    source = object_rows(layout, datasets.DatasetDict(parts), Reading())
    assert len(set(source.ids)) == 4
    assert {*columns} - {"id_str"} <= {*source.features}
    assert (source.splits is None) == (splits == ["train"])


def test_a_16_bit_picture_is_rendered():
    file = io.BytesIO()
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)).save(file, "PNG")
    made = datasets.Dataset.from_dict({"png": [file.getvalue()], "id": ["deep"]})
    source = object_rows("x", made, Reading())
    assert Image.open(io.BytesIO(source.batch([0]).table["image"][0].as_py()["bytes"])).mode == "L"


def test_integer_names_and_binary_pictures_of_parquet_files_are_imported(tmp_path):
    made = datasets.Dataset.from_dict({"id_str": [1, 2], "image": [jpeg_bytes(1), jpeg_bytes(2)], "ring": [0, 1]})
    (tmp_path / "data").mkdir()
    made.to_parquet(tmp_path / "data" / "train.parquet")
    for streaming in (False, True, None):
        assert galaxies(open_dataset(str(tmp_path), streaming=streaming))["2"][1]["image"]["bytes"] == jpeg_bytes(2)


def test_pictures_that_stand_by_path_are_found(class_folder, tmp_path):
    files = sorted(map(str, class_folder.rglob("*.jpg")))
    made = datasets.Dataset.from_dict(
        {"id_str": [f"n{i}" for i in range(24)], "image": [{"bytes": None, "path": file} for file in files]}
    )
    (tmp_path / "data").mkdir()
    made.cast_column("image", datasets.Image()).to_parquet(tmp_path / "data" / "train.parquet", write_statistics=True)
    found = galaxies(open_dataset(str(tmp_path / "data")))
    assert {row["image"]["bytes"] for _, row in found.values()} == {jpeg_bytes(i) for i in range(24)}


SKY = {"RA": [10.0, 10.001, -170.0, 30.0, 189.999 - 360, None], "Dec": [5.0, 5.0, -1.0, 5.0, -1.0, 5.0]}


def test_rows_next_to_each_other_in_the_sky_are_in_one_split(tmp_path):
    names = ["n12", "n13", "n14", "n15", "n16", "n19"]
    alone = {name: split_of(name) for name in names}
    assert alone["n12"] != alone["n13"]
    assert alone["n14"] != alone["n16"]
    opened = saved(rows(id=names, **SKY), tmp_path / "saved")
    split = {name: split for name, (split, _) in opened.items()}
    assert split["n12"] == split["n13"]
    assert split["n14"] == split["n16"]
    assert (split["n15"], split["n19"]) == (alone["n15"], alone["n19"])
    apart = saved(rows(id=names, **SKY), tmp_path / "apart", Reading(same_galaxy_arcsec=1))
    assert {name: split for name, (split, _) in apart.items()} == alone


def test_numbers_that_are_no_positions_are_counted_and_ignored():
    source = object_rows("rows", rows(ra=[-1.0, 350.0, 361.0, None], dec=[1.0, 2.0, 3.0, 4.0]), Reading())
    assert "3 of 4 rows have no position in the sky in ra and dec" in source.notes
    np.testing.assert_array_equal(source.positions, [[np.nan] * 2, [350, 2], [np.nan] * 2, [np.nan] * 2])
    assert object_rows("rows", rows(ra=["12:00:00"], dec=[1.0]), Reading()).positions is None


def test_given_splits_are_kept_even_if_all_rows_are_at_one_place(tmp_path, caplog):
    made = rows(id=[f"n{i}" for i in range(24)], ra=[1.0] * 24, dec=[1.0] * 24)
    opened = saved(
        datasets.DatasetDict(train=made.select(range(20)), test=made.select(range(20, 24))), tmp_path / "saved"
    )
    assert sum(split == "test" for split, _ in opened.values()) == 4
    assert "4 rows of other splits show a galaxy that is in split train too" in caplog.text
    with pytest.raises(BadInput, match="24 of 24 galaxies are connected by steps of up to 20 arcsec"):
        saved(made, tmp_path / "one")


def test_a_name_in_the_json_of_a_webdataset_is_a_column(tmp_path):
    with tarfile.open(tmp_path / "galaxies.tar", "w") as shard:
        for i in range(4):
            about = json.dumps({"iauname": f"J{i}.5+1.5", "id_str": i, "z": i / 2}).encode()
            for suffix, content in ((".jpg", jpeg_bytes(i)), (".json", about)):
                member = tarfile.TarInfo(f"{i:06d}{suffix}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    shard = str(tmp_path / "galaxies.tar")
    assert set(galaxies(open_dataset(shard))) == {"0", "1", "2", "3"}
    named = galaxies(open_dataset(shard, Reading(id_column="iauname")))
    assert named["J1.5+1.5"][1] | {"image": None} == {
        "id_str": "J1.5+1.5", "image": None, "z": 0.5, "json.id_str": 1, "__key__": "000001",
    }  # fmt: skip
    with pytest.raises(BadInput, match=r"--id-column IAUName: .* has no such column; did you mean iauname"):
        open_dataset(shard, Reading(id_column="IAUName"))


def test_dots_in_the_names_of_a_webdataset_are_explained(tmp_path):
    with tarfile.open(tmp_path / "galaxies.tar", "w") as shard:
        for i in range(2):
            member = tarfile.TarInfo(f"J{i}.{i}+0{i}.5.jpg")
            member.size = len(jpeg_bytes(i))
            shard.addfile(member, io.BytesIO(jpeg_bytes(i)))
    with pytest.raises(BadInput, match="the name of a galaxy ends at its first dot"):
        open_dataset(str(tmp_path / "galaxies.tar"))
