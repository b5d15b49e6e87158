"""Predictions are the pipeline's, the same from any number of processes and however often interrupted; nothing is lost."""

import csv
import io
import json
import os
import re
import runpy
import struct
import sys
import time
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io import fits
from datasets import load_dataset
from PIL import Image
from transformers import pipeline

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes
from hf_galaxy.data import galaxies as data
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.views import Framing, eval_view, to_canvases
from hf_galaxy.files import new_folder
from hf_galaxy.importing import plan, writer
from hf_galaxy.models import prediction_inputs, predictions
from hf_galaxy.models.prediction_inputs import PictureFolder, Reader
from tests.conftest import ROOT
from tests.forks import SERVER, TIMEOUT, enter, environments_of
from tests.galaxies import Rows, jpeg_bytes, published

PART = 16  # galaxies


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A model of votes, not trained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "votes"
    model = GalaxyForVotes(GalaxyConfig(backbone="test_convnext", tree="gz2", image_size=32))
    torch.nn.init.normal_(model.head.weight, std=0.3)  # so that galaxies differ
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """100 galaxies in several files of several row groups."""
    folder = tmp_path_factory.mktemp("published") / "rings"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "ROWS_PER_GROUP", 10)
        patch.setattr(plan, "ROWS_PER_FILE", 40)
        published(Rows(100), folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures of several kinds and sizes, four of which are no good, and other files."""
    folder = tmp_path / "pictures"
    (folder / "deep/er").mkdir(parents=True)
    for i in range(20):
        (folder / f"deep/{i}.jpg").write_bytes(jpeg_bytes(i, "L" if i % 2 else "RGB"))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 70, 4), dtype=np.uint8)).save(folder / "deep/er/a.PNG")
    fits.PrimaryHDU(rng.normal(0, 1, (3, 40, 60))).writeto(folder / "b.fits")
    (folder / "deep/half.jpg").write_bytes(jpeg_bytes()[:2000])
    (folder / "text.jpeg").write_text("a text file")
    (folder / "empty.png").write_bytes(b"")
    fits.PrimaryHDU(np.zeros((3, 40, 60))).writeto(folder / "black.fits")
    (folder / ".DS_Store.jpg").write_text("a note")
    (folder / "readme.txt").write_text("a text")
    return folder


def predict(run, *arguments):
    """The script in this process, to save the start of another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["predict", "--run", *map(str, (run, *arguments))])
        patch.setattr(prediction_inputs, "ROWS_PER_PART", PART)
        runpy.run_path(str(ROOT / "scripts/predict.py"), run_name="__main__")


def refused(run, *arguments):
    """The line with which it ends."""
    with pytest.raises(SystemExit) as stopped:
        predict(run, *arguments)
    return stopped.value.code


def _rank(environment, log, arguments):
    enter(environment, log, log)
    predict(*arguments)


def start(log, *arguments, processes=1):
    """Processes of their own that run the script together."""
    started = [
        SERVER.Process(target=_rank, args=({**os.environ, **own}, log, arguments)) for own in environments_of(processes)
    ]
    for process in started:
        process.start()
    return started


def files_of(out):
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


def table_of(out):
    return pa.concat_tables(
        pq.read_table(file).replace_schema_metadata() for file in sorted(out.glob("part-*.parquet"))
    )


def about(out):
    return json.loads(pq.read_schema(out / "part-00000-of-00001.parquet").metadata[predictions.KEY])


@pytest.fixture(scope="module")
def whole(run_folder, dataset, tmp_path_factory):
    """Predictions of a dataset in one go, with all that can be had."""
    out = tmp_path_factory.mktemp("predictions") / "whole"
    predict(run_folder, "--dataset", dataset, "--out", out, "--csv", "--embeddings", "--batch-size", 16, "--workers", 0)
    return out


def test_every_galaxy_of_a_dataset_is_predicted_as_the_pipeline_does(run_folder, dataset, whole):
    rows = {split: load_dataset(str(dataset), split=split) for split in ("train", "validation", "test")}
    table = table_of(whole)
    found = list(zip(*(table[name].to_pylist() for name in ("dataset", "split", "id_str")), strict=True))
    assert sorted(found) == sorted((str(dataset), split, name) for split in rows for name in rows[split]["id_str"])
    pipe = pipeline("galaxy-morphology", model=run_folder)
    pictures = {
        name: picture for each in rows.values() for name, picture in zip(each["id_str"], each["image"], strict=True)
    }
    said = pipe([pictures[name] for _, _, name in found], asked=0, batch_size=50)
    for i, each in enumerate(said):
        for question in each[0]["questions"]:
            for answer in question["answers"]:
                column = f"{question['question']}_{answer['answer']}"
                assert table[f"{column}_fraction"][i].as_py() == pytest.approx(answer["fraction"], rel=1e-4)
    for question in pipe.model.tree.questions:
        one, two, fractions = (
            np.array([table[f"{column}_{kind}"].to_numpy() for column in question.columns])
            for kind in ("concentration", "concentration_2", "fraction")
        )
        first = table[f"{question.name}_weight"].to_numpy()
        means = first * one / one.sum(axis=0) + (1 - first) * two / two.sum(axis=0)
        np.testing.assert_allclose(means, fractions, rtol=1e-5)
    tree = pipe.model.tree
    assert len(table.column_names) == 3 + 3 * len(tree.columns) + len(tree.questions) + 1


def test_the_embeddings_are_the_features_and_load_as_a_dataset(run_folder, dataset, whole):
    loaded = load_dataset("parquet", data_files=str(whole / "*.parquet"), split="train")
    assert len(loaded) == 100
    model = GalaxyForVotes.from_pretrained(run_folder).eval()
    assert loaded.features["embedding"].length == model.head.in_features
    framing = model.config.framing
    test = load_dataset(str(dataset), split="test")
    views = eval_view(to_canvases([np.asarray(picture) for picture in test["image"]], framing), framing)
    with torch.no_grad():
        features = dict(zip(test["id_str"], model.features(views).numpy(), strict=True))
    ours = {
        name: embedding
        for name, embedding in zip(loaded["id_str"], loaded["embedding"], strict=True)
        if name in features
    }
    for name, expected in features.items():
        np.testing.assert_allclose(ours[name], expected, rtol=1e-3, atol=1e-5)


def test_the_csv_holds_the_same_numbers(whole):
    table = table_of(whole).drop_columns("embedding")
    with open(whole / "predictions.csv", newline="") as file:
        names, *rows = csv.reader(file)
    assert names == table.column_names
    assert [row[:3] for row in rows] == [list(row.values())[:3] for row in table.select(names[:3]).to_pylist()]
    numbers = np.array([row[3:] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(numbers, np.stack([table[name].to_numpy() for name in names[3:]], axis=1))
    assert not (whole / "unreadable.csv").exists()


def test_the_schema_says_which_model_it_was(run_folder, whole):
    said = json.loads(pq.read_schema(next(whole.glob("*.parquet"))).metadata[predictions.KEY])
    assert said["model"] == str(run_folder)
    assert said["tree"] == json.loads((run_folder / "config.json").read_text())["tree"]
    assert said["backbone"] == "test_convnext"
    assert re.fullmatch("[0-9a-f]{64}", said["weights_sha256"])


def test_two_processes_write_the_same_bytes_as_one(run_folder, dataset, whole, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    arguments = (
        "--dataset",
        dataset,
        "--out",
        out,
        "--csv",
        "--embeddings",
        "--batch-size",
        16,
        "--workers",
        1,
        "--cpu",
    )
    started = start(log, run_folder, *arguments, processes=2)
    for process in started:
        process.join(TIMEOUT)
    assert [process.exitcode for process in started] == [0] * 2, log.read_text()
    assert files_of(out) == files_of(whole)
    assert log.read_text().count("100 galaxies") == 1


def test_a_killed_run_goes_on_with_the_same_command(run_folder, dataset, whole, tmp_path, capsys):
    out, partial = tmp_path / "out", tmp_path / ".out.partial"
    arguments = ("--dataset", dataset, "--out", out, "--csv", "--embeddings", "--batch-size", 16, "--workers", 0)
    [process] = start(tmp_path / "log", run_folder, *arguments)
    while process.is_alive() and len(list(partial.glob("part-*"))) < 2:
        time.sleep(0.001)
    process.kill()
    process.join()
    assert not out.exists()
    finished = {file.name: file.stat().st_mtime_ns for file in partial.glob("part-*")}
    assert 2 <= len(finished) < len(files_of(whole)) - 1
    line = refused(run_folder, *arguments[:-4], "--batch-size", 32)
    assert "with other settings" in line
    assert finished.keys() == {file.name for file in partial.glob("part-*")}
    predict(run_folder, *arguments)
    assert files_of(out) == files_of(whole)
    assert finished.items() <= {file.name: file.stat().st_mtime_ns for file in out.iterdir()}.items()
    assert "100 galaxies" in capsys.readouterr().out
    assert "exists already; remove it or choose another --out" in refused(run_folder, *arguments)


def test_parts_that_several_machines_write_are_finished_by_one(run_folder, dataset, whole, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("--dataset", dataset, "--out", out, "--csv", "--embeddings", "--batch-size", 16, "--workers", 0)
    for part in ("3/3", "1/3"):
        predict(run_folder, *arguments, "--part", part)
    said = re.findall(r"the (\d+) galaxies of part (./3) are written", capsys.readouterr().out)
    assert [part for _, part in said] == ["3/3", "1/3"]
    assert not out.exists()
    assert "with other settings" in refused(run_folder, *arguments, "--part", "2/3", "--answers")
    predict(run_folder, *arguments, "--part", "2/3")
    said += re.findall(r"the (\d+) galaxies of part (./3)", capsys.readouterr().out)
    assert sum(int(galaxies) for galaxies, _ in said) == 100
    written = {file.name: file.stat().st_mtime_ns for file in (tmp_path / ".out.partial").iterdir()}
    assert written.keys() == {file.name for file in whole.glob("part-*")}
    predict(run_folder, *arguments)
    assert files_of(out) == files_of(whole)
    assert written.items() <= {file.name: file.stat().st_mtime_ns for file in out.iterdir()}.items()
    assert [file.name for file in tmp_path.iterdir()] == ["out"], "no lock is left"


def test_a_part_that_is_none_is_refused(run_folder, dataset, tmp_path):
    assert "is no part such as 3/16" in refused(
        run_folder, "--dataset", dataset, "--out", tmp_path / "out", "--part", "4/3"
    )


def test_pictures_in_a_folder_are_predicted_and_bad_ones_listed(run_folder, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    predict(run_folder, "--dataset", pictures, "--out", out, "--batch-size", 8)
    said = capsys.readouterr().out
    assert "22 galaxies\n4 pictures cannot be read, such as " in said
    assert f"{out / 'unreadable.csv'} lists them" in said
    table = table_of(out)
    names = table["id_str"].to_pylist()
    assert names == sorted([f"deep/{i}.jpg" for i in range(20)] + ["deep/er/a.PNG", "b.fits"])
    assert set(table["split"].to_pylist()) == {None}
    pipe = pipeline("galaxy-morphology", model=run_folder)
    said = pipe([pictures / name for name in names])
    expected = [each[0]["questions"][0]["answers"][0]["fraction"] for each in said]
    np.testing.assert_allclose(table["smooth-or-featured-gz2_smooth_fraction"].to_numpy(), expected, rtol=1e-4)
    with open(out / "unreadable.csv", newline="") as file:
        bad = {row["id_str"]: row["reason"] for row in csv.DictReader(file)}
    assert bad.keys() == {"deep/half.jpg", "text.jpeg", "empty.png", "black.fits"}
    assert "is neither JPEG, PNG, WEBP, TIFF, GIF, BMP nor FITS" in bad["empty.png"]
    assert "its pixels are all 0" in bad["black.fits"]
    sqrt = tmp_path / "sqrt"
    predict(run_folder, "--dataset", pictures, "--out", sqrt, "--batch-size", 8, "--stretch", "sqrt")
    different = [a != b for a, b in zip(table.to_pylist(), table_of(sqrt).to_pylist(), strict=True)]
    assert [name for name, each in zip(names, different, strict=True) if each] == ["b.fits"]


def test_no_file_of_a_folder_is_passed_over_in_silence(tmp_path, caplog):
    (tmp_path / "a/.ipynb_checkpoints").mkdir(parents=True)
    hidden = (".hidden.tif", "a/.ipynb_checkpoints/c-checkpoint.png")
    for name in ("b.fits.fz", "a/c.FIT", "d.svg", "e.svg", "f.npy", "notes", *hidden):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / os.fsdecode(b"gal\xe1.jpg")).write_bytes(b"not UTF-8 by its name")
    folder = PictureFolder(str(tmp_path))
    assert folder.ids == ["a/c.FIT", "b.fits.fz", r"gal\xe1.jpg"]
    assert [content for _, content in folder.read(0, 3, 0)] == [b"x", b"x", b"not UTF-8 by its name"]
    assert len(folder.fingerprint()) == 64
    (line,) = caplog.messages
    assert line.endswith("files that are no pictures by their names are left out: 2 .svg, 1 .npy, 1 notes")


@pytest.mark.parametrize("options", [{"crop": 0.5}, {"crop": 0.5, "size": 30}, {"size": 30}, {}])
def test_a_file_of_any_format_is_cut_and_reduced(options, tmp_path):
    """What is kept of JPEG, PNG and FITS is what Pillow keeps of their pixels, and then of those of a JPEG."""
    rng = np.random.default_rng(0)
    rendering, values = Rendering(**options), rng.normal(0, 1, (80, 100))
    contents = [saved(rng.integers(0, 256, (80, 100, 3), dtype=np.uint8), form) for form in ("JPEG", "PNG")]
    contents += [saved(rng.integers(0, 256, (80, 100), dtype=np.uint8), "JPEG"), fits_bytes(values)]
    (tmp_path / "a.jpg").write_bytes(b"")
    reader = Reader([PictureFolder(str(tmp_path))], [], Framing(32), rendering)
    for content in contents:
        expected = Rendering().open(content)
        if "crop" in options:
            expected = expected.crop((30, 20, 70, 60))
        if "size" in options:
            expected = expected.resize((30, 30) if "crop" in options else (38, 30), Image.Resampling.BICUBIC)
        if options:
            file = io.BytesIO()
            expected.save(file, "JPEG", quality=95, subsampling=0)
            expected = Image.open(file)
        np.testing.assert_array_equal(reader.decoded(content), np.asarray(expected.convert("RGB")))


def test_hostile_files_do_not_end_a_prediction(run_folder, tmp_path):
    """Headers of billions of pixels, a strip that would be scaled to gigabytes, and good pictures beside them."""
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    (folder / "good.jpg").write_bytes(saved(noise, "JPEG"))
    for mode in ("L", "RGB", "CMYK"):
        (folder / f"bomb{mode}.jpg").write_bytes(enlarged_jpeg(saved(noise, "JPEG", mode)))
    (folder / "bomb.png").write_bytes(enlarged_png(saved(noise, "PNG")))
    (folder / "strip.png").write_bytes(saved(np.zeros((1, 60_000), np.uint8) + np.uint8(99), "PNG"))
    (folder / "strip.jpg").write_bytes(saved(np.zeros((60_000, 1), np.uint8) + np.uint8(99), "JPEG"))
    for fast in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not fast:
                patch.setattr(data, "simplejpeg", None)
            predict(run_folder, "--dataset", folder, "--out", out / str(fast), "--batch-size", 4, "--workers", 0)
        assert table_of(out / str(fast))["id_str"].to_pylist() == ["good.jpg", "strip.jpg", "strip.png"]
        with open(out / str(fast) / "unreadable.csv", newline="") as file:
            bad = {row["id_str"]: row["reason"] for row in csv.DictReader(file)}
        assert bad.keys() == {"bomb.png", "bombCMYK.jpg", "bombL.jpg", "bombRGB.jpg"}
        assert all("pixels" in reason for reason in bad.values())


def saved(pixels, form, mode=None):
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, form)
    return file.getvalue()


def fits_bytes(values):
    file = io.BytesIO()
    fits.PrimaryHDU(values).writeto(file)
    return file.getvalue()


def enlarged_jpeg(content):
    """Its header says 65,000 x 65,000 pixels."""
    start = content.index(b"\xff\xc0") + 5
    return content[:start] + struct.pack(">HH", 65_000, 65_000) + content[start + 4 :]


def enlarged_png(content):
    header = content[12:16] + struct.pack(">II", 65_000, 65_000) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def test_only_bad_pictures_give_no_rows(run_folder, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.jpg").write_text("a text file")
    predict(run_folder, "--dataset", tmp_path / "pictures", "--out", tmp_path / "out", "--csv", "--embeddings")
    assert "0 galaxies\n1 pictures cannot be read" in capsys.readouterr().out
    assert table_of(tmp_path / "out").num_rows == 0
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) == 1


def test_a_picture_of_a_dataset_that_is_no_good_is_listed(run_folder, tmp_path):
    (tmp_path / "data").mkdir()
    pictures = [{"bytes": jpeg_bytes(i), "path": None} for i in range(4)]
    pictures[1], pictures[2] = {"bytes": b"no picture", "path": None}, {"bytes": None, "path": "gone.jpg"}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"id_str": list("abcd"), "image": pa.array(pictures, kind)})
    pq.write_table(table, tmp_path / "data/test-0.parquet")
    predict(run_folder, "--dataset", tmp_path / "data", "--out", tmp_path / "out", "--workers", 0)
    assert table_of(tmp_path / "out")["id_str"].to_pylist() == ["a", "d"]
    with open(tmp_path / "out/unreadable.csv", newline="") as file:
        assert [(row["id_str"], row["split"]) for row in csv.DictReader(file)] == [("b", "test"), ("c", "test")]


def test_one_split_or_several_datasets(run_folder, dataset, pictures, tmp_path):
    predict(run_folder, "--dataset", dataset, "--split", "test", "--out", tmp_path / "one", "--workers", 0)
    table = table_of(tmp_path / "one")
    assert set(table["split"].to_pylist()) == {"test"}
    assert sorted(table["id_str"].to_pylist()) == sorted(load_dataset(str(dataset), split="test")["id_str"])
    predict(run_folder, "--dataset", pictures, dataset, "--out", tmp_path / "both", "--workers", 0)
    assert table_of(tmp_path / "both")["dataset"].to_pylist() == [str(pictures)] * 22 + [str(dataset)] * 100


def test_a_model_of_classes_gives_probabilities(dataset, tmp_path):
    torch.manual_seed(0)
    labels = {0: "spiral", 1: "elliptical"}
    config = GalaxyConfig(
        backbone="test_convnext", image_size=32, id2label=labels, label2id={name: i for i, name in labels.items()}
    )
    GalaxyForImageClassification(config).save_pretrained(tmp_path / "run")
    predict(tmp_path / "run", "--dataset", dataset, "--split", "validation", "--out", tmp_path / "out", "--workers", 0)
    table = table_of(tmp_path / "out")
    assert table.column_names[3:] == ["spiral_probability", "elliptical_probability"]
    rows = load_dataset(str(dataset), split="validation")
    classify = pipeline("image-classification", model=str(tmp_path / "run"))
    for name, said in zip(rows["id_str"], classify(list(rows["image"])), strict=True):
        i = table["id_str"].to_pylist().index(name)
        for each in said:
            assert table[f"{each['label']}_probability"][i].as_py() == pytest.approx(each["score"], abs=1e-4)
    assert about(tmp_path / "out")["tree"] is None


def test_a_multinomial_model_has_no_concentrations(dataset, tmp_path):
    config = GalaxyConfig(backbone="test_convnext", tree="gz_rings", image_size=32, likelihood="multinomial")
    GalaxyForVotes(config).save_pretrained(tmp_path / "run")
    predict(tmp_path / "run", "--dataset", dataset, "--split", "validation", "--out", tmp_path / "out", "--workers", 0)
    assert table_of(tmp_path / "out").column_names[3:] == ["ring_yes_fraction", "ring_no_fraction"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "nowhere"), "nowhere: cannot be opened"),
        (("--dataset", "{empty}"), "holds neither Parquet files nor pictures (.jpg, .jpeg, .png"),
        (("--dataset", "{pictures}", "--split", "test"), "is a folder of pictures"),
        (("--dataset", "{dataset}", "--split", "holiday"), "has no split 'holiday', only"),
        (("--dataset", "{dataset}", "--batch-size", 0), "--batch-size must be at least 1"),
        (("--dataset", "{pictures}", "--stretch", "lupton", "--low", 99.9), "not increasing percentiles"),
        (("--dataset", "{dataset}", "--run", "{empty}"), "reachable Hub id of a finished run"),
        (("--dataset", "{dataset}", "--out", "{pictures}"), "exists already; remove it or choose another --out"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_made(
    arguments, message, run_folder, dataset, pictures, tmp_path
):
    (tmp_path / "empty").mkdir()
    filled = [str(each).format(dataset=dataset, pictures=pictures, empty=tmp_path / "empty") for each in arguments]
    before = sorted(tmp_path.rglob("*"))
    line = refused(run_folder, "--out", tmp_path / "out", *filled)
    assert line.startswith("error: ")
    assert message in line
    assert "\n" not in line
    assert sorted(tmp_path.rglob("*")) == before


def test_many_galaxies_make_larger_parts_not_more():
    parts = prediction_inputs.parts_of([range(5_000_000), range(10)])
    assert [(part.source, part.first) for part in parts] == [(0, i) for i in range(0, 5_000_000, 2501)] + [(1, 0)]
    assert sum(part.end - part.first for part in parts) == 5_000_010
    assert parts[0].file == f"part-00000-of-{len(parts):05}.parquet"
    assert len(parts) <= prediction_inputs.MAX_PARTS + 2


def test_help_explains_every_option(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["predict", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "scripts/predict.py"), run_name="__main__")
    _, *options = re.split(r"(?m)(?=^.? {1,2}--\w)", capsys.readouterr().out)
    assert len(options) >= 15
    for option in options:
        words = re.findall(r"\b[a-z]+\b", option.split("(default")[0])
        assert len(words) >= 3, f"what is this? {option}"


@pytest.mark.nightly  # a script is launched in test_scripts.py, and several processes predict above
def test_it_is_launched_by_accelerate(run_folder, dataset, run_script, tmp_path):
    launch = ("-m", "accelerate.commands.launch")
    done = run_script("predict", "--run", run_folder, "--dataset", dataset, "--out", tmp_path / "out", launch=launch)
    assert done.stdout.endswith("out: 100 galaxies\n")
    assert table_of(tmp_path / "out").num_rows == 100


def test_a_second_command_into_one_folder_is_refused_while_the_first_writes(run_folder, dataset, whole, tmp_path):
    with new_folder(tmp_path / "out", "the first") as folder:
        (folder / "part-00000-of-00001.parquet").touch()
        line = refused(run_folder, "--dataset", dataset, "--out", tmp_path / "out", "--workers", 0)
        assert f"{tmp_path / 'out'}: another command writes it at this moment" in line
        assert (folder / "part-00000-of-00001.parquet").exists()
