"""Standard deviations at the end of a run of values: nothing else of the run depends on them, and every door has them."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import t as student

import hf_galaxy
from hf_galaxy import GalaxyForRegression
from hf_galaxy.commands.calibrate import command as calibrate
from hf_galaxy.commands.evaluate import command as evaluate
from hf_galaxy.commands.predict import command as predict
from hf_galaxy.training.run import run_training
from hf_galaxy.training.settings import Settings, as_recorded, to_record
from hf_galaxy.training.spread import FeaturesAndErrors, evenly_spaced
from hf_galaxy.training.targets.values import Values

VALUES = ("magnitude", "half_light_radius_arcsec")
HEAD = ["--cpu", "--workers", "0"]


@pytest.fixture(scope="module")
def runs(mock_dataset, tmp_path_factory):
    """Two runs, with and without; of as few galaxies as they have."""
    folder = tmp_path_factory.mktemp("spread")
    options = dict(
        dataset=(str(mock_dataset),), task="values", values=VALUES, backbone="test_convnext", image_size=32, batch_size=16, workers=0, cpu=True,
        epochs=1, learning_rate=1e-3, precision="no",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Values, "least", 5)
        return {
            name: (folder / name, run_training(Settings(out=folder / name, calibrate=name == "with", **options)))
            for name in ("with", "without")
        }


def test_weights_and_values_do_not_depend_on_them(runs):
    ours, theirs = (load_file(runs[name][0] / "model.safetensors") for name in ("with", "without"))
    assert ours.keys() - theirs.keys() == {"spread_weight", "spread_bias"}
    assert all(torch.equal(ours[name], values) for name, values in theirs.items())
    results = [runs[name][1].results["test"] for name in ("with", "without")]
    assert results[0]["values"] == results[1]["values"]
    assert "calibration" not in results[1]
    assert "calibration" not in runs["without"][1].training
    assert "### Calibration" not in (runs["without"][0] / "README.md").read_text()


def test_the_record_and_the_card_say_how_good_they_are(runs):
    folder, record = runs["with"]
    about, measured = record.training["calibration"], record.results["test"]["calibration"]
    assert about["galaxies"] == record.dataset["splits"]["validation"]
    assert list(measured["values"]) == list(VALUES)
    assert set(measured["values"]["magnitude"]["coverage"]) == {"50", "68", "90", "95"}
    config = json.loads((folder / "config.json").read_text())
    assert config["spread"]
    assert set(config["calibration"]) == {"scales", "shifts", "tails"}
    assert about["used"]
    assert "uncalibrated" in measured
    card = (folder / "README.md").read_text()
    assert "### Calibration" in card
    assert "| magnitude |" in card.split("### Calibration")[1]
    assert (folder / "figures/calibration.png").is_file()
    evaluate(["--run", str(folder), "--cpu"])
    again = json.loads((folder / "run.json").read_text())["results"]["test"]["calibration"]
    assert again["loss"]["model"] == pytest.approx(measured["loss"]["model"], rel=1e-4)
    assert again["values"]["magnitude"]["places"] == measured["values"]["magnitude"]["places"]


def test_few_validation_galaxies_are_none(mock_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Values, "least", 10**6)
    record = run_training(
        Settings(
            out=tmp_path / "run", dataset=(str(mock_dataset),), task="values", values=VALUES[:1], backbone="test_convnext", image_size=32,
            batch_size=16, workers=0, cpu=True, epochs=1, precision="no",
        )
    )  # fmt: skip
    assert not record.training["calibration"]["used"]
    assert GalaxyForRegression.from_pretrained(tmp_path / "run").prediction_columns == ["magnitude"]


def test_tables_have_standard_deviations_and_intervals(runs, mock_dataset, tmp_path):
    folder, _ = runs["with"]
    words = ["--run", str(folder), "--dataset", str(mock_dataset), "--split", "test", "--credible", "0.9", *HEAD]
    predict([*words, "--out", str(tmp_path / "one")])
    table = pd.read_parquet(tmp_path / "one")
    model = GalaxyForRegression.from_pretrained(folder)
    for k, name in enumerate(VALUES):
        freedom = 1 / max(model.tails[k], 1e-6)
        half = student.ppf(0.95, freedom) * student.std(freedom) ** -1 * table[f"{name}_std"]
        np.testing.assert_allclose(table[f"{name}_high"] - table[name], half, rtol=1e-3)
        np.testing.assert_allclose(table[name] - table[f"{name}_low"], half, rtol=1e-3)
    called = hf_galaxy.predict(folder, str(mock_dataset), split="test", credible=0.9, workers=0, cpu=True)
    pd.testing.assert_frame_equal(called[list(table)], table, check_dtype=False)
    predict([*words, "--views", "4", "--out", str(tmp_path / "turned")])
    turned = pd.read_parquet(tmp_path / "turned")
    assert list(turned) == list(table)
    assert "with the disagreement of 4 predictions" in (tmp_path / "turned/_columns.md").read_text()
    assert (turned["magnitude_low"] < turned["magnitude"]).all()


def test_an_earlier_run_gets_a_constant_one_from_another_survey(runs, mock_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Values, "least", 5)
    folder, out = runs["without"][0], tmp_path / "new"
    calibrate(["--run", str(folder), "--out", str(out), *HEAD])
    config, record = (json.loads((out / name).read_text()) for name in ("config.json", "run.json"))
    assert not config["spread"]
    assert set(config["calibration"]) == {"scales", "shifts", "tails"}
    about = record["training"]["calibration"]
    measured = record["results"][about["measured_on"]]["calibration"]
    gain = measured["uncalibrated"]["loss"]["model"] - measured["loss"]["model"]
    assert gain == pytest.approx(about["gain"], rel=1e-3)
    table = hf_galaxy.predict(out, str(mock_dataset), split="test", workers=0, cpu=True)
    assert table["magnitude_std"].nunique() == 1
    values = hf_galaxy.predict(folder, str(mock_dataset), split="test", workers=0, cpu=True)
    assert values["magnitude"].equals(table["magnitude"])
    assert "magnitude_std" not in values


def test_a_run_is_calibrated_again(runs, mock_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Values, "least", 5)
    monkeypatch.setattr("hf_galaxy.models.calibration_fit.FittedCalibration.helps", True)
    folder, out = runs["with"][0], tmp_path / "again"
    calibrate(["--run", str(folder), "--out", str(out), *HEAD])
    models = [GalaxyForRegression.from_pretrained(each).eval() for each in (folder, out)]
    pictures = torch.rand(2, 3, 32, 32)
    ours, theirs = (model(pixel_values=pictures) for model in models)
    assert torch.equal(ours.values, theirs.values)
    assert not torch.equal(ours.std, theirs.std)
    assert set(json.loads((out / "run.json").read_text())["results"]) == {"validation of mock, cross-validated", "test"}


def test_processes_collect_what_one_process_collects():
    rng = np.random.default_rng(0)
    features, labels, keys = rng.normal(size=(60, 4)), rng.normal(size=(60, 1)), rng.integers(0, 2**62, 60)
    fits = []
    for processes in (1, 2):
        parts = [FeaturesAndErrors([], torch.ones(1)) for _ in range(processes)]
        for i, rows in enumerate(np.array_split(np.arange(60), 6)):
            part = parts[i % processes]
            part.seen.append(torch.from_numpy(features[rows]))
            batch = {"labels": torch.from_numpy(labels[rows]), "keys": torch.from_numpy(keys[rows])}
            part.update(batch, SimpleNamespace(values=torch.zeros(len(rows), 1)))
        fits.append(sum((part.cpu() for part in parts[1:]), start=parts[0].cpu()).fit())
    for one, other in zip(*fits, strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_very_many_galaxies_some_are_taken_from_everywhere():
    assert evenly_spaced(10, 0.3).tolist() == [0, 4, 9]
    assert evenly_spaced(5, 0.001).tolist() == [0]


def test_runs_from_before_go_on_without():
    recorded = to_record(Settings(dataset=("x",), out="y", task="values", values=("z",)))
    assert as_recorded(recorded)["calibrate"]
    del recorded["calibrate"]
    assert not as_recorded(recorded)["calibrate"]
