"""Calls and commands predict and embed the same numbers; whatever cannot be read is named; a model stays as it was."""

import hashlib
import io
import json
from collections import UserList
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from datasets import Dataset, Features, load_dataset
from PIL import Image
from safetensors.torch import save_file

import hf_galaxy
from hf_galaxy.commands import embed as embed_command
from hf_galaxy.commands import predict as predict_command
from hf_galaxy.models import predictions
from hf_galaxy.models.prediction_inputs import PictureList
from tests.galaxies import jpeg_bytes


@pytest.fixture(scope="module")
def galaxies(mock_dataset):
    return load_dataset(str(mock_dataset), split="test")


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures, and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(jpeg_bytes(i))
    (folder / "text.png").write_text("a text")
    return folder


def read(folder):
    return pd.concat(
        [pq.read_table(file).to_pandas() for file in sorted(folder.glob("part-*.parquet"))], ignore_index=True
    )


def files_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_table_a_folder_and_the_command_hold_the_same(run, mock_dataset, tmp_path):
    settings = predict_command.Predict(
        run=str(run.folder), dataset=(str(mock_dataset),), out=tmp_path / "typed", cpu=True, embeddings=True
    )
    predict_command.main(settings)
    table = run.predict(mock_dataset, cpu=True, embeddings=True)
    pd.testing.assert_frame_equal(table, read(tmp_path / "typed"), check_exact=True)
    assert list(table.columns[:3]) == ["dataset", "split", "id_str"]
    assert table.attrs["unreadable"] == []
    out = hf_galaxy.predict(str(run.folder), str(mock_dataset), out=tmp_path / "called", cpu=True, embeddings=True)
    assert files_of(out) == files_of(tmp_path / "typed")
    with pytest.raises(hf_galaxy.BadInput, match="exists already"):
        hf_galaxy.predict(run, mock_dataset, out=out)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_predicts_nearly_the_same(start, pictures, precision):
    model = hf_galaxy.GalaxyForVotes.from_pretrained(start)
    whole = hf_galaxy.predict(model, pictures, cpu=True).filter(like="_fraction").to_numpy()
    half = hf_galaxy.predict(model.to(precision), pictures, cpu=True).filter(like="_fraction").to_numpy()
    assert 0 < np.abs(half - whole).max() < 0.02


def test_pictures_in_any_form_have_the_predictions_of_their_galaxies(run, mock_dataset, galaxies, tmp_path):
    table = run.predict(mock_dataset, split="test", cpu=True)
    numbers = table.columns[3:]
    assert len(table) == len(galaxies) == 23
    for data in (galaxies["image"], list(galaxies["image"]), [np.asarray(each) for each in galaxies["image"]]):
        np.testing.assert_array_equal(run.predict(data, cpu=True)[numbers], table[numbers])
    file = tmp_path / "galaxy.png"
    galaxies[2]["image"].save(file)
    for single in (galaxies[2]["image"], file, str(file), file.read_bytes()):
        np.testing.assert_allclose(run.predict(single, cpu=True)[numbers], table[numbers][2:3], rtol=1e-5)
    paths = [str(file)] * 2
    for several in ([file, str(file)], pd.Series(paths), np.array(paths)):
        assert list(run.predict(several, cpu=True)["id_str"]) == paths


def test_a_dataset_in_memory_has_the_predictions_of_the_published_one(run, mock_dataset):
    expected = run.predict(mock_dataset, cpu=True).set_index("id_str").iloc[:, 2:]
    renamed = load_dataset(str(mock_dataset)).rename_columns({"image": "picture", "id_str": "galaxy"})
    table = run.predict(renamed, cpu=True)
    assert sorted(table["split"].unique()) == ["test", "train", "validation"]
    pd.testing.assert_frame_equal(table.set_index("id_str").iloc[:, 2:].loc[expected.index], expected, rtol=1e-4)


def test_a_table_of_galaxies_has_their_names_whether_its_pictures_are_files_or_in_its_cells(run, galaxies, tmp_path):
    galaxies = galaxies.select(range(4))
    table = run.predict(list(galaxies["image"]), cpu=True)
    numbers, names = table.columns[3:], [f"g{i}" for i in range(len(galaxies))]
    frame = pd.DataFrame({"name": names, "picture": list(galaxies["image"])})
    for name, picture in zip(names, frame["picture"], strict=True):
        picture.save(tmp_path / f"{name}.png")
    paths = frame.assign(picture=[f"{name}.png" for name in names])
    paths.to_csv(tmp_path / "survey.csv", index=False)
    for data, options in ((frame, {}), (paths, {"images": tmp_path}), (tmp_path / "survey.csv", {})):
        found = run.predict(data, cpu=True, **options).set_index("id_str")
        assert len(found) == len(galaxies)
        assert data is not frame or set(found["dataset"]) == {"DataFrame"}
        np.testing.assert_allclose(found.loc[names, numbers], table[numbers], rtol=1e-5)


def test_pictures_that_cannot_be_read_are_named(run, pictures, caplog, tmp_path):
    table = run.predict(pictures, cpu=True)
    assert list(table["id_str"]) == ["0.jpg", "1.jpg", "2.jpg"]
    [bad] = table.attrs["unreadable"]
    assert bad == {
        "dataset": str(pictures),
        "split": "",
        "id_str": "text.png",
        "reason": "cannot be read as a picture (is neither JPEG, PNG, WEBP, TIFF, GIF, BMP nor FITS)",
    }
    assert "1 pictures cannot be read, such as text.png: cannot be read as a picture (is neither JPEG" in caplog.text
    assert run.embed(pictures, cpu=True).attrs == table.attrs
    out = run.predict(pictures, cpu=True, out=tmp_path / "out", csv=True)
    assert (out / "unreadable.csv").read_text().count("text.png") == 1
    assert f"{out / 'unreadable.csv'} lists them" in caplog.text
    assert len(pd.read_csv(out / "predictions.csv")) == 3
    assert run.predict(pictures / "text.png", cpu=True).empty
    assert run.embed(pictures / "text.png", cpu=True).shape == (0, 64)


def test_embeddings_are_the_features_from_a_run_a_model_or_the_command(run, start, mock_dataset, galaxies, tmp_path):
    table = hf_galaxy.embed(run, mock_dataset, split="test", cpu=True)
    assert table.index.name == "id_str"
    assert list(table.index) == galaxies["id_str"]
    assert set(table.dtypes) == {np.dtype(np.float32)}
    predicted = run.predict(mock_dataset, split="test", cpu=True, embeddings=True)
    np.testing.assert_array_equal(table, np.stack(predicted["embedding"]))
    for model in (str(run.folder), run.model, start):  # a head was trained, so the backbone is that of the start
        np.testing.assert_array_equal(hf_galaxy.embed(model, mock_dataset, split="test", cpu=True), table)
    options = dict(dataset=(str(mock_dataset),), split="test", cpu=True)
    embed_command.main(embed_command.Embed(model=str(run.folder), out=tmp_path / "typed", **options))
    written = read(tmp_path / "typed")
    np.testing.assert_array_equal(np.stack(written["embedding"]), table)
    assert list(written.columns) == ["dataset", "split", "id_str", "embedding"]
    out = hf_galaxy.embed(run.folder, mock_dataset, split="test", cpu=True, out=tmp_path / "called")
    assert files_of(out) == files_of(tmp_path / "typed")
    about = json.loads(pq.read_schema(next(out.glob("*.parquet"))).metadata[predictions.KEY])
    assert about["model"] == str(run.folder)
    assert "tree" not in about


def test_a_bare_pretrained_backbone_embeds(galaxies, tmp_path):
    torch.manual_seed(0)
    backbone = timm.create_model("test_resnet", num_classes=0).eval()
    save_file(backbone.state_dict(), tmp_path / "weights.safetensors")
    random = torch.get_rng_state()
    table = hf_galaxy.embed(
        tmp_path / "weights.safetensors", galaxies["image"][:4], backbone="test_resnet", image_size=32, cpu=True
    )
    assert torch.equal(torch.get_rng_state(), random)
    pixels = [np.asarray(each.resize((32, 32), Image.Resampling.BICUBIC)) for each in galaxies["image"][:4]]
    cfg = backbone.pretrained_cfg
    views = (
        torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2) / 255 - torch.tensor(cfg["mean"]).view(3, 1, 1)
    ) / torch.tensor(cfg["std"]).view(3, 1, 1)
    with torch.no_grad():
        np.testing.assert_allclose(table, backbone(views), rtol=0.05, atol=0.02)


def test_damaged_pictures_of_a_column_or_in_memory_are_named(run, tmp_path):
    contents = [{"bytes": content, "path": None} for content in (jpeg_bytes(), b"no picture")]
    column = Dataset.from_dict({"image": contents}, Features({"image": datasets.Image()}))["image"]
    table = run.predict(column, cpu=True)
    [bad] = table.attrs["unreadable"]
    assert (list(table["id_str"]), bad["id_str"]) == (["0"], "1")
    assert "cannot identify image file" in bad["reason"]
    assert "0x" not in bad["reason"]  # an address in memory, which would differ in the next process
    truncated = Image.open(io.BytesIO(jpeg_bytes()[:-200]))
    out = run.predict([jpeg_bytes(), truncated], cpu=True, out=tmp_path / "out")
    assert "truncated" in (out / "unreadable.csv").read_text()


def test_the_fingerprint_of_pictures_is_that_of_what_they_show():
    palettes = [Image.new("P", (4, 4)) for _ in range(2)]
    for image, colour in zip(palettes, ([0, 0, 0], [250, 0, 0]), strict=True):
        image.putpalette(colour)
    assert len({PictureList([each]).fingerprint() for each in palettes}) == 2

    class Column(UserList):
        """Read when it is needed, with a row without a picture and one that cannot be decoded."""

        def __getitem__(self, i):
            return self.data[i] if self.data[i] is None else Image.open(io.BytesIO(self.data[i]))

    assert PictureList(Column([None])).fingerprint() == hashed("0", b"")
    assert PictureList(Column([b"x"])).fingerprint() == PictureList(Column([b"x"])).fingerprint()


def hashed(name, content):
    return hashlib.sha256(f"{name}\n{hashlib.sha256(content).hexdigest()}\n".encode()).hexdigest()


def test_a_split_without_galaxies_is_refused(run, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in (("train", 2), ("test", 0)):
        table = pa.table({"id_str": ["a", "b"], "image": [{"bytes": jpeg_bytes(), "path": ""}] * 2})
        pq.write_table(table[:count], folder / f"{name}-00000-of-00001.parquet")
    with pytest.raises(hf_galaxy.BadInput, match=rf"^data {folder}: split test: has no galaxies"):
        run.predict(folder, split="test", cpu=True)
    with pytest.raises(hf_galaxy.BadInput, match="split test: has no galaxies"):
        run.predict(folder, split="test", cpu=True, out=tmp_path / "out", csv=True)
    assert len(run.predict(folder, cpu=True)) == 2


def test_a_loaded_model_stays_as_it_was(run, pictures):
    model = hf_galaxy.Run(run.folder).model.train()
    model.backbone.eval()
    table = hf_galaxy.predict(model, pictures, cpu=True)
    assert (model.training, model.head.training) == (True, True)
    assert not any(module.training for module in model.backbone.modules())
    np.testing.assert_array_equal(table.iloc[:, 3:], run.predict(pictures, cpu=True).iloc[:, 3:])


def test_threads_predict_one_after_the_other(run, pictures):
    with ThreadPoolExecutor(3) as pool:
        tables = list(
            pool.map(lambda precision: run.predict(pictures, cpu=True, precision=precision), ["no", "bf16", "no"])
        )
    pd.testing.assert_frame_equal(tables[0], tables[2])
    assert not tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("model", "data", "options", "message"),
    [
        (3, "pictures", {}, "model: a int is none of ours"),
        ("nowhere", "pictures", {}, "nowhere: is neither the folder nor a reachable Hub id of a finished run"),
        ("not/here/either", "pictures", {}, "not/here/either: there is no such folder"),
        (None, "nowhere", {}, "nowhere: cannot be opened"),
        (None, "nowhere.jpg", {}, "^data nowhere.jpg: there is no such file"),
        (None, [], {}, "^data: there are no pictures"),
        (
            None,
            ["a", jpeg_bytes()],
            {},
            r"^data: b'.{3,30} is a picture and 'a' is none; give pictures alone, or folders and datasets",
        ),
        (None, {"image": 1}, {}, "a dict is neither a picture nor the name of a dataset"),
        (None, np.zeros((2, 9, 9, 3)), {}, r"^data: an array of shape \(2, 9, 9, 3\) .* pass a list of arrays"),
        (None, [jpeg_bytes()], {"split": "test"}, "single pictures have no splits and configurations"),
        (None, "x", {"batch_size": 0}, "^batch_size must be at least 1"),
        (
            None,
            "x",
            {"precision": "fp8"},
            "precision: 'fp8' has the wrong type; give one of 'no', 'bf16', 'fp16' or None",
        ),
        (None, "x", {"csv": True}, "csv: is for a folder `out`"),
    ],
)
def test_what_cannot_be_predicted_is_refused(model, data, options, message, run):
    with pytest.raises(hf_galaxy.BadInput, match=message):
        hf_galaxy.predict(run if model is None else model, data, cpu=True, **options)


def test_what_cannot_be_embedded_is_refused(run):
    with pytest.raises(hf_galaxy.BadInput, match="a loaded model has its own"):
        hf_galaxy.embed(run, "x", image_size=64)
    with pytest.raises(hf_galaxy.BadInput, match="timm has no such architecture"):
        hf_galaxy.embed("convnxt", "x")
    with pytest.raises(hf_galaxy.BadInput, match=r"^image_size 0: must be more than 0"):
        hf_galaxy.embed(str(run.folder), "x", image_size=0)
