"""hf-galaxy calibrate: a run for its own survey and for another one, and what is no use."""

import json

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


def test_the_new_run_predicts_calibrated_votes_everywhere(run, mock_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_galaxy.commands.calibrate.LEAST", 10)
    out = tmp_path / "new"
    outcome(run, "--split", "test", "--out", out)
    models = [AutoModel.from_pretrained(each).eval() for each in (run, out)]
    before, after = (model(pixel_values=torch.full((1, 3, 32, 32), 0.4)).concentrations for model in models)
    assert not torch.equal(before, after)
    tables = []
    for each in (run, out):
        place = tmp_path / f"of_{each.name}"
        predict(
            [
                "--run",
                str(each),
                "--dataset",
                str(mock_dataset),
                "--split",
                "test",
                "--out",
                str(place),
                "--cpu",
                "--workers",
                "0",
            ]
        )
        tables.append(
            load_dataset(
                "parquet", data_files=f"{place}/part-*.parquet", split="train", cache_dir=str(tmp_path / "cache")
            )
        )
    column = "smooth-or-featured-gz2_smooth_concentration"
    assert tables[0][column][:] != tables[1][column][:]


def test_a_run_for_its_own_survey_is_measured_on_its_test_split(run, tmp_path, monkeypatch):
    out = tmp_path / "own"
    with pytest.raises(SystemExit, match="galaxies in validation; a calibration needs 50"):
        outcome(run, "--out", out)
    monkeypatch.setattr("hf_galaxy.commands.calibrate.LEAST", 10)
    outcome(run, "--out", out)
    results = record_of(out)["results"]
    assert "test" in results
    assert any("validation" in split for split in results)
    evaluate(["--run", str(out), "--cpu"])
    again = record_of(out)["results"]["test"]
    assert again["loss"]["model"] == pytest.approx(results["test"]["loss"]["model"], rel=1e-6)
    assert again["calibration"] == results["test"]["calibration"]


def test_classes_get_a_temperature(mock_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_galaxy.commands.calibrate.LEAST", 10)
    trained(
        tmp_path / "run", dataset=(str(mock_dataset),), task="classes", label="mock_class", epochs=1, calibrate=False
    )
    assert "calibration" not in record_of(tmp_path / "run")["training"]
    outcome(tmp_path / "run", "--split", "test", "--out", tmp_path / "out")
    record, config = record_of(tmp_path / "out"), json.loads((tmp_path / "out/config.json").read_text())
    [measured] = record["results"].values()
    gain = measured["calibration"]["uncalibrated"]["loss"] - measured["loss"]["model"]
    assert record["training"]["calibration"]["gain"] == pytest.approx(gain, rel=1e-4)
    assert (gain > 0) == (config["calibration"] is not None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "train"], "--split train: the run was trained on these galaxies"),
        (["--split", "all"], "--split all: the run was trained on these galaxies"),
        (["--split", "nothing"], "has no split 'nothing'"),
        (["--split", "validation"], "galaxies in validation; a calibration needs 50"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--dataset", "nowhere"], "nowhere"),
    ],
)
def test_what_no_calibration_can_be_made_of_is_refused(run, words, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        outcome(run, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_values_have_none(mock_dataset, tmp_path):
    trained(tmp_path / "run", dataset=(str(mock_dataset),), task="values", values=("magnitude",), epochs=1)
    assert "calibration" not in record_of(tmp_path / "run")["training"]
    with pytest.raises(SystemExit, match="learnt values, and only votes and classes have a calibration"):
        outcome(tmp_path / "run", "--out", tmp_path / "out")
