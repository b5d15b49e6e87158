"""How the files of a training set became pictures travels with the model: raw files are seen as those were, at every door, to the bit."""

import io
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io import fits
from datasets import load_dataset
from PIL import Image
from transformers import AutoConfig, pipeline

import hf_galaxy
from hf_galaxy.commands.embed import command as embed_command
from hf_galaxy.commands.evaluate import command as evaluate_command
from hf_galaxy.commands.predict import command as predict_command
from hf_galaxy.commands.publish import command as publish_command
from hf_galaxy.data.card_facts import DatasetFacts
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.pixels import pixels_of
from hf_galaxy.data.views import eval_view, to_canvases
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.reading import Reading, VotesReading
from hf_galaxy.models.onnx_model import FastModel
from picture import read_picture
from tests.calls.conftest import OPTIONS

GALAXIES = 40
LUPTON = ("--stretch", "lupton", "--high", "99", "--lupton-q", "5")
RENDERING = Rendering(crop=0.8, size=32, stretch="lupton", high=99.0, lupton_q=5.0, quality=90)
pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder of FITS files of three bands, and a table of them with votes."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "fits").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(GALAXIES):
        glow = np.exp(-np.hypot(*np.mgrid[-24:24, -30:30]) / rng.uniform(3, 8))
        bands = rng.normal(0, 1, (3, 48, 60)) + glow * rng.uniform(20, 300, (3, 1, 1))
        fits.PrimaryHDU(bands.astype(np.float32)).writeto(folder / "fits" / f"g{i}.fits")
        rows.append({"id_str": f"g{i}", "image": f"g{i}.fits", "ring_yes": i % 7, "ring_no": 8 - i % 7})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder


def publish(raw, out, *options):
    words = [
        "--catalogue",
        raw / "table.csv",
        "--images",
        raw / "fits",
        "--tree",
        "gz_rings",
        "--num-proc",
        1,
        "--out",
        out,
    ]
    publish_command(["catalogue", *map(str, [*words, *options])])
    return out


@pytest.fixture(scope="module")
def dataset(raw, tmp_path_factory):
    """They are published with another stretch, cropped and reduced."""
    out = tmp_path_factory.mktemp("published") / "rings"
    return publish(raw, out, *LUPTON, "--crop", "0.8", "--size", "32", "--quality", "90", "--native")


@pytest.fixture(scope="module")
def trained(dataset, start, tmp_path_factory):
    """A run on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_galaxy.reports.run_figures.figures", lambda *_: {})
        return hf_galaxy.finetune(dataset, start=start, out=tmp_path_factory.mktemp("runs") / "lupton", **OPTIONS)


def by_name(table):
    """The numbers of a table of predictions, by the name of the galaxy."""
    table = table.assign(id_str=table["id_str"].str.removesuffix(".fits")).set_index("id_str").sort_index()
    return table.select_dtypes("float32")


def written(folder):
    return by_name(pq.read_table(folder).to_pandas())


def changed_run(trained, folder, **fields):
    """A copy of the run with other fields in its configuration; None: without the field."""
    shutil.copytree(trained.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        config.pop(name)
        config |= {} if value is None else {name: value}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_dataset_states_how_files_became_its_pictures(dataset):
    assert DatasetFacts.by(str(dataset)).rendering == RENDERING.to_dict()
    assert DatasetFacts.by(str(dataset), "native").rendering == RENDERING.whole.to_dict()
    assert json.loads((dataset / "statistics.json").read_text())["rendering"] == RENDERING.to_dict()
    assert load_dataset(str(dataset), split="test")[0]["image"].size == (32, 32)  # whoever else reads the card


@pytest.mark.parametrize("stated", ["lupton", {"stretch": "cubic"}, {"zoom": 1}, [1]])
def test_a_card_with_another_rendering_is_read_with_a_warning(stated, tmp_path, caplog):
    (tmp_path / "README.md").write_text(f"---\nrendering: {json.dumps(stated)}\n---\n")
    assert DatasetFacts.by(str(tmp_path)).rendering is None
    assert "states a rendering that is unknown here" in caplog.text


def test_the_rendering_is_saved_with_the_model(trained):
    assert json.loads((trained.folder / "config.json").read_text())["rendering"] == RENDERING.to_dict()
    config = AutoConfig.from_pretrained(trained.folder)
    assert config.file_rendering == trained.model.config.file_rendering == RENDERING
    assert trained.record.dataset["cards"][0]["rendering"] == RENDERING.to_dict()


def test_raw_files_are_predicted_as_the_published_galaxies_by_command_and_call(raw, dataset, trained, tmp_path):
    words = ["--run", str(trained.folder), "--cpu", "--workers", "0"]
    predict_command([*words, "--dataset", str(dataset), "--out", str(tmp_path / "published")])
    expected = written(tmp_path / "published")
    assert len(expected) == GALAXIES
    by_default = hf_galaxy.predict(trained, raw / "fits", cpu=True, workers=0, rendering=Rendering())
    assert (by_name(by_default) != expected).all(axis=None)
    predict_command([*words, "--dataset", str(raw / "fits"), "--out", str(tmp_path / "raw")])
    pd.testing.assert_frame_equal(written(tmp_path / "raw"), expected, check_exact=True)
    table = ["--dataset", str(raw / "table.csv"), "--images", str(raw / "fits")]
    predict_command([*words, *table, "--out", str(tmp_path / "table")])
    pd.testing.assert_frame_equal(written(tmp_path / "table"), expected, check_exact=True)
    files = sorted((raw / "fits").iterdir(), key=lambda file: file.name)
    names = {str(file): file.name for file in files}
    called = hf_galaxy.predict(trained, files, cpu=True, workers=0)
    pd.testing.assert_frame_equal(by_name(called.replace({"id_str": names})), expected, check_exact=True)
    frame = pd.DataFrame({"id_str": [file.stem for file in files], "picture": [file.read_bytes() for file in files]})
    in_cells = hf_galaxy.predict(trained, frame, cpu=True, workers=0)
    pd.testing.assert_frame_equal(by_name(in_cells), expected, check_exact=True)
    in_memory = load_dataset(str(dataset))  # of which nothing is cropped again
    again = hf_galaxy.predict(trained, in_memory, cpu=True, workers=0)
    pd.testing.assert_frame_equal(by_name(again), expected, check_exact=True)


def test_raw_files_are_embedded_as_the_published_galaxies(raw, dataset, trained, tmp_path):
    for name, data in (("published", dataset), ("raw", raw / "fits")):
        embed_command(["--model", str(trained.folder), "--dataset", str(data), "--out", str(tmp_path / name), "--cpu", "--workers", "0"])  # fmt: skip
    tables = [pq.read_table(tmp_path / name).to_pandas() for name in ("published", "raw")]
    published, raws = (dict(zip(t["id_str"].str.removesuffix(".fits"), t["embedding"], strict=True)) for t in tables)
    assert published.keys() == raws.keys()
    assert all(np.array_equal(published[name], raws[name]) for name in raws)


def test_a_raw_table_is_evaluated_as_the_published_dataset(raw, trained, tmp_path, capsys):
    run = changed_run(trained, tmp_path / "run")
    evaluate_command(["--run", str(run), "--cpu"])
    published = capsys.readouterr().out
    evaluate_command(["--run", str(run), "--cpu", "--dataset", str(raw / "table.csv"), "--images", str(raw / "fits")])
    assert capsys.readouterr().out == published
    options = ["--stretch", "linear", "--low", "0"]
    evaluate_command(["--run", str(run), "--cpu", "--dataset", str(raw / "table.csv"), "--images", str(raw / "fits"), *options])  # fmt: skip
    assert capsys.readouterr().out != published


def test_the_pipeline_sees_what_the_training_saw(raw, dataset, trained):
    ask = pipeline("galaxy-morphology", model=str(trained.folder))
    rows = {row["id_str"]: row["image"]["bytes"] for row in pq.read_table(dataset / "data").to_pylist()}
    for name in ("g0", "g7"):
        file, published = raw / "fits" / f"{name}.fits", rows[name]
        framing = trained.model.config.framing
        view = eval_view(to_canvases([np.asarray(Image.open(io.BytesIO(published)).convert("RGB"))], framing), framing)
        assert torch.equal(ask.preprocess(file)["pixel_values"], view)
        assert ask(file) == ask(file.read_bytes()) == ask(published, rendering=Rendering())
        assert ask(published, rendering={"crop": 1}) == ask(file)
        assert ask(file, rendering={"stretch": "sqrt"}) != ask(file)
    with pytest.raises(BadInput, match="zoom is none of crop, size"):
        ask(raw / "fits" / "g0.fits", rendering={"zoom": 2})


def test_the_space_sees_what_the_training_saw(raw, dataset, trained, tmp_path):
    pytest.importorskip("onnxscript")
    model = FastModel(trained.folder, tmp_path)
    assert model.rendering == RENDERING
    rows = {row["id_str"]: row["image"]["bytes"] for row in pq.read_table(dataset / "data").to_pylist()}
    for name in ("g0", "g7"):
        seen = read_picture(raw / "fits" / f"{name}.fits").rendered(model.rendering)
        expected = np.asarray(Image.open(io.BytesIO(rows[name])).convert("RGB"))
        np.testing.assert_array_equal(seen, expected)
        answers = (model.answer(model.view(pixels)[None]).fractions for pixels in (seen, expected))
        np.testing.assert_array_equal(*answers)
    one_band = io.BytesIO()
    fits.PrimaryHDU(np.random.default_rng(0).normal(0, 1, (48, 48))).writeto(one_band)
    with pytest.raises(BadInput, match="cannot be prepared like the training pictures"):
        read_picture(one_band.getvalue()).rendered(model.rendering)


def test_options_that_are_given_win_one_by_one(raw, trained, tmp_path):
    words = ["--run", str(trained.folder), "--dataset", str(raw / "fits"), "--cpu", "--workers", "0"]
    predict_command([*words, "--out", str(tmp_path / "sqrt"), "--stretch", "sqrt", "--size", "0"])
    expected = Rendering(crop=0.8, size=None, stretch="sqrt", high=99, quality=90)
    by_hand = {
        file.stem: pixels_of(file, expected) for file in (raw / "fits").iterdir()
    }  # pictures in memory, which nothing is done to
    plain = hf_galaxy.predict(trained, list(by_hand.values()), cpu=True, workers=0, rendering=Rendering())
    plain["id_str"] = list(by_hand)
    ours = written(tmp_path / "sqrt")
    pd.testing.assert_frame_equal(by_name(plain), ours, check_exact=True)
    for rendering in (expected, {"stretch": "sqrt", "size": None}):
        called = hf_galaxy.predict(trained, raw / "fits", cpu=True, workers=0, rendering=rendering)
        pd.testing.assert_frame_equal(by_name(called), ours, check_exact=True)
    with pytest.raises(BadInput, match=r"^rendering: zoom is none of stretch, low"):
        hf_galaxy.predict(trained, raw / "fits", rendering={"zoom": 2})
    with pytest.raises(BadInput, match=r"^stretch: 'cubic' has the wrong type; give one of 'asinh'"):
        hf_galaxy.predict(trained, raw / "fits", rendering={"stretch": "cubic"})


def test_published_pictures_stay_as_they_are(dataset, trained):
    for rendering in ({"stretch": "sqrt"}, {"crop": 0.5}, {"size": None}):
        (name,) = rendering
        with pytest.raises(
            BadInput, match=rf"{name}: is for files that become pictures; .*rings is a published dataset"
        ):
            hf_galaxy.predict(trained, dataset, rendering=rendering, cpu=True)
    with pytest.raises(BadInput, match="stretch: is for files that become pictures"):
        hf_galaxy.finetune(dataset, start=trained, stretch="sqrt", **OPTIONS)


def test_a_jpeg_is_cropped_and_reduced_as_it_was_published(raw, trained, tmp_path):
    (tmp_path / "jpg").mkdir()
    table = pd.read_csv(raw / "table.csv", dtype=str)
    for file in (raw / "fits").iterdir():
        Rendering().open(file.read_bytes()).save(tmp_path / "jpg" / f"{file.stem}.jpg", quality=97)
    table["image"] = table["id_str"] + ".jpg"
    table.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "jpg").rename(tmp_path / "fits")
    published = publish(tmp_path, tmp_path / "out", "--crop", "0.8", "--size", "32", "--quality", "90")
    expected = hf_galaxy.predict(trained, published, cpu=True, workers=0)
    ours = hf_galaxy.predict(trained, tmp_path / "fits", cpu=True, workers=0)
    ours["id_str"] = ours["id_str"].str.removesuffix(".jpg")
    pd.testing.assert_frame_equal(by_name(ours), by_name(expected), check_exact=True)


def test_a_run_from_before_renders_by_default(raw, trained, tmp_path):
    before = changed_run(trained, tmp_path / "before", rendering=None)
    assert hf_galaxy.Run(before).model.config.file_rendering == Rendering()
    ours = hf_galaxy.predict(before, raw / "fits", cpu=True, workers=0)
    expected = hf_galaxy.predict(trained, raw / "fits", cpu=True, workers=0, rendering=Rendering())
    pd.testing.assert_frame_equal(by_name(ours), by_name(expected), check_exact=True)


def test_imported_rows_are_the_published_ones_byte_for_byte(raw, tmp_path):
    published = publish(raw, tmp_path / "out", *LUPTON, "--rgb", "0", "1", "2")
    reading = VotesReading(
        images=(raw / "fits",), stretch="lupton", high=99.0, lupton_q=5.0, rgb=(0, 1, 2), tree=("gz_rings",)
    )
    for split, rows in open_dataset(str(raw / "table.csv"), reading, streaming=True).items():
        theirs = open_dataset(str(published), streaming=True)[split]
        assert (
            rows[list(range(len(rows)))]["image"].to_pylist() == theirs[list(range(len(theirs)))]["image"].to_pylist()
        )
        assert DatasetFacts.by(rows.place).rendering == DatasetFacts.by(str(published)).rendering
    folder = tmp_path / "classes"
    for i, kind in enumerate(("a", "b", "a")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(raw / "fits" / f"g{i}.fits", folder / kind)
    for rows in open_dataset(str(folder), Reading(stretch="sqrt", low=1.0)).values():
        for row in rows[list(range(len(rows)))].to_pylist():
            content = (raw / "fits" / f"{row['id_str']}.fits").read_bytes()
            assert row["image"]["bytes"] == Rendering(stretch="sqrt", low=1.0).render(content)[0]
    with pytest.raises(BadInput, match=r"low 99\.9 and high 99\.75 are not increasing"):
        open_dataset(str(folder), Reading(low=99.9))


def test_a_model_of_imported_files_knows_their_options(raw, trained, tmp_path):
    options = OPTIONS | {"images": raw / "fits", "stretch": "sqrt", "high": 99, "tree": "gz_rings"}
    run = hf_galaxy.finetune(raw / "table.csv", start=trained, out=tmp_path / "table", **options)
    assert run.model.config.file_rendering == Rendering(stretch="sqrt", high=99.0)  # in place of that of `trained`
    frame = pd.read_csv(raw / "table.csv")
    of_frame = hf_galaxy.finetune(frame, start=trained, out=tmp_path / "frame", **options)
    assert of_frame.model.config.file_rendering == Rendering(stretch="sqrt", high=99.0)


def test_datasets_that_differ_leave_the_rendering_unknown(raw, dataset, trained, tmp_path, caplog):
    caplog.set_level("INFO", "hf_galaxy")
    other = publish(raw, tmp_path / "other", "--stretch", "sqrt")
    run = hf_galaxy.finetune([dataset, other], start=trained, out=tmp_path / "two", **OPTIONS)
    assert run.model.config.rendering is None
    (line,) = (line for line in caplog.messages if "differ in how files became their pictures" in line)
    assert "'lupton'" in line
    assert "'sqrt'" in line
    publish_command(["combine", "--parts", str(dataset), str(other), "--out", str(tmp_path / "joined"), "--num-proc", "1", "--same-galaxy-arcsec", "1"])  # fmt: skip
    assert DatasetFacts.by(str(tmp_path / "joined")).rendering is None
    twin = shutil.copytree(dataset, tmp_path / "twin")
    publish_command(["combine", "--parts", str(dataset), str(twin), "--out", str(tmp_path / "same"), "--num-proc", "1"])
    assert DatasetFacts.by(str(tmp_path / "same")).rendering == RENDERING.to_dict()
    notes = json.loads((tmp_path / "same" / "statistics.json").read_text())["notes"]
    assert sum("lupton stretch" in note for note in notes) == 2  # those of the parts


def test_raw_fluxes_are_cropped_and_reduced_as_the_published_ones(raw, start, tmp_path):
    published = publish(raw, tmp_path / "fluxes", "--bands", "g", "r", "z", "--crop", "0.8", "--size", "32")
    run = hf_galaxy.finetune(published, start=start, out=tmp_path / "run", bands=["g", "r", "z"], **OPTIONS)
    assert run.model.config.file_rendering == Rendering(crop=0.8, size=32)
    expected = hf_galaxy.predict(run, published, cpu=True, workers=0)
    ours = hf_galaxy.predict(run, raw / "fits", cpu=True, workers=0)
    pd.testing.assert_frame_equal(by_name(ours), by_name(expected), check_exact=True)
    whole = hf_galaxy.predict(run, raw / "fits", cpu=True, workers=0, rendering={"crop": 1})
    assert (by_name(whole) != by_name(expected)).all(axis=None)


def test_a_dataset_that_states_none_leaves_that_of_the_start(mock_dataset, trained, tmp_path):
    run = hf_galaxy.finetune(mock_dataset, start=trained, out=tmp_path / "mock", **OPTIONS)
    assert run.model.config.file_rendering == RENDERING
