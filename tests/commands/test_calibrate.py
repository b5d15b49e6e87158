"""hf-galaxy calibrate: a run for its own survey and for another one, and what is no use."""

import contextlib
import json
import shutil

import pytest
import torch
from datasets import Image, load_dataset
from safetensors.torch import load_file
from transformers import AutoModel

from hf_galaxy.commands.calibrate import command
from hf_galaxy.commands.evaluate import command as evaluate
from hf_galaxy.commands.predict import command as predict
from tests.training.runs import run as trained


@pytest.fixture(scope="module")
def run(mock_dataset, tmp_path_factory):
    """A run without calibration."""
    out = tmp_path_factory.mktemp("calibrated") / "run"
    trained(out, dataset=(str(mock_dataset),), epochs=2, calibrate=False, draws=True)
    return out


@pytest.fixture(scope="module")
def other(mock_dataset, tmp_path_factory):
    """Another survey, whose volunteers agree, with votes for one question of the model only: as a table and its pictures."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "pictures").mkdir()
    galaxies = load_dataset(str(mock_dataset), split="train").cast_column("image", Image(decode=False))
    columns = [
        "smooth-or-featured-gz2_smooth",
        "smooth-or-featured-gz2_featured-or-disk",
        "smooth-or-featured-gz2_artifact",
    ]
    rows = [",".join(["id_str", "file", *columns])]
    for galaxy in galaxies:
        name = f"other{len(rows)}"
        (folder / f"pictures/{name}.jpg").write_bytes(galaxy["image"]["bytes"])
        votes = [galaxy[column] for column in columns]
        counts = [20 * (place == votes.index(max(votes))) for place in range(3)]
        rows.append(",".join([name, f"{name}.jpg", *map(str, counts)]))
    (folder / "votes.csv").write_text("\n".join(rows) + "\n")
    return folder


def outcome(run, *words):
    command(["--run", str(run), "--cpu", "--workers", "0", *map(str, words)])


def record_of(run):
    return json.loads((run / "run.json").read_text())


def test_a_run_for_a_survey_with_one_question(run, other, tmp_path, capsys):
    files = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    out = tmp_path / "new"
    outcome(run, "--dataset", other / "votes.csv", "--images", other / "pictures", "--out", out)
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()} == files, "the run stays"
    printed = capsys.readouterr().out
    assert "| smooth-or-featured-gz2 |" in printed
    record = record_of(out)
    about = record["training"]["calibration"]
    assert about["used"]
    assert about["galaxies"] == 61
    assert about["gain"] > 0
    assert list(record["results"]) == [about["measured_on"]]
    assert "cross-validated" in about["measured_on"]
    measured = record["results"][about["measured_on"]]
    assert measured["loss"]["model"] == pytest.approx(
        measured["calibration"]["uncalibrated"]["loss"] - about["gain"], rel=1e-4
    )
    numbers = json.loads((out / "config.json").read_text())["calibration"]
    assert numbers["scales"][0] != 1
    assert numbers["scales"][1:] == [1] * (len(numbers["scales"]) - 1), "nobody was asked them"
    assert not any(numbers["shifts"][3:])
    card = (out / "README.md").read_text()
    assert f"Measured on {about['measured_on']}." in card.replace("\\", "")
    assert all(
        torch.equal(values, load_file(out / "model.safetensors")[name])
        for name, values in load_file(run / "model.safetensors").items()
    )


@pytest.fixture
def own(run, tmp_path, monkeypatch):
    """The run for its own survey, though that has few validation galaxies."""
    monkeypatch.setattr("hf_galaxy.training.targets.target.TrainingTarget.least", 5)
    monkeypatch.setattr("hf_galaxy.models.calibration_fit.FittedCalibration.helps", True)
    shutil.copyfile(run / "config.json", run / "model.onnx")  # a file that is not a calibrated model's
    outcome(run, "--out", tmp_path / "own")
    return tmp_path / "own"


def test_the_new_run_predicts_calibrated_votes_everywhere(run, own, mock_dataset, tmp_path):
    models = [AutoModel.from_pretrained(each).eval() for each in (run, own)]
    before, after = (model(pixel_values=torch.full((1, 3, 32, 32), 0.4)).concentrations for model in models)
    assert not torch.equal(before, after)
    tables = []
    for each in (run, own):
        place = tmp_path / f"of_{each.name}"
        words = ["--run", str(each), "--dataset", str(mock_dataset), "--split", "test", "--out", str(place)]
        predict([*words, "--cpu", "--workers", "0"])
        files = f"{place}/part-*.parquet"
        tables.append(load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")))
    column = "smooth-or-featured-gz2_smooth_concentration"
    assert tables[0][column][:] != tables[1][column][:]
    assert not (own / "model.onnx").exists()


def test_a_run_for_its_own_survey_is_measured_on_its_test_split(own):
    results = record_of(own)["results"]
    assert set(results) == {"validation of mock, cross-validated", "test"}
    evaluate(["--run", str(own), "--cpu"])
    again = record_of(own)["results"]["test"]
    assert again["loss"]["model"] == pytest.approx(results["test"]["loss"]["model"], rel=1e-6)
    assert again["calibration"] == results["test"]["calibration"]


def test_classes_get_a_temperature(mock_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_galaxy.training.targets.target.TrainingTarget.least", 5)
    monkeypatch.setattr("hf_galaxy.models.calibration_fit.FittedCalibration.helps", True)
    run, out = tmp_path / "run", tmp_path / "out"
    trained(run, dataset=(str(mock_dataset),), task="classes", label="mock_class", epochs=1, calibrate=False)
    assert "calibration" not in record_of(run)["training"]
    outcome(run, "--out", out)
    record, config = record_of(out), json.loads((out / "config.json").read_text())
    measured = record["results"][record["training"]["calibration"]["measured_on"]]
    gain = measured["calibration"]["uncalibrated"]["loss"] - measured["loss"]["model"]
    assert record["training"]["calibration"]["gain"] == pytest.approx(gain, rel=1e-4)
    assert config["calibration"]["classes"] == len(record["dataset"]["classes"])


def test_a_calibration_that_does_not_help_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_galaxy.training.targets.target.TrainingTarget.least", 5)
    monkeypatch.setattr("hf_galaxy.models.calibration_fit.FittedCalibration.helps", False)
    with pytest.raises(SystemExit, match="by cross-validation it would change the likelihood of"):
        outcome(run, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_galaxies_without_votes_are_none(run, other, tmp_path):
    header, *rows = (other / "votes.csv").read_text().splitlines()
    empty = [f"{row.split(',')[0]},{row.split(',')[1]},0,0,0" for row in rows]
    (other / "empty.csv").write_text("\n".join([header, *empty]) + "\n")
    with pytest.raises(
        SystemExit, match="not calibrated: 0 galaxies with votes, labels or all values, and it takes 50"
    ):
        outcome(run, "--dataset", other / "empty.csv", "--images", other / "pictures", "--out", tmp_path / "out")


def test_names_of_training_galaxies_are_told(run, mock_dataset, tmp_path, caplog):
    shutil.copytree(mock_dataset, tmp_path / "copy")
    with contextlib.suppress(SystemExit):  # it may not help
        outcome(run, "--dataset", tmp_path / "copy", "--out", tmp_path / "out")
    assert "61 of 96 galaxies have the names of training galaxies, such as mock" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "train"], "--split train: the run was trained on these galaxies"),
        (["--split", "all"], "--split all: the run was trained on these galaxies"),
        (["--split", "test"], "--split test: the run is measured on these galaxies"),
        (["--split", "nothing"], "has no split 'nothing'"),
        (["--split", "validation"], "galaxies with votes, labels or all values, and it takes 50"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--dataset", "nowhere"], "nowhere"),
    ],
)
def test_what_no_calibration_can_be_made_of_is_refused(run, words, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        outcome(run, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_have_none(other, tmp_path):
    rows = (other / "votes.csv").read_text().splitlines()[1:]
    lines = [f"{','.join(row.split(',')[:2])},{i % 2}" for i, row in enumerate(rows)]
    (other / "labels.csv").write_text("\n".join(["id_str,file,ring", *lines]) + "\n")
    dataset = dict(dataset=(str(other / "labels.csv"),), images=(str(other / "pictures"),))
    trained(tmp_path / "run", **dataset, task="labels", labels=("ring",), epochs=1)
    assert "calibration" not in record_of(tmp_path / "run")["training"]
    with pytest.raises(SystemExit, match="learnt labels, and only votes, classes and values have a calibration"):
        outcome(tmp_path / "run", "--out", tmp_path / "out")
