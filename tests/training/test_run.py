"""Runs from their settings to their run folders: what they learn from, and what their records say of it."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import load_dataset
from transformers import AutoModel

from hf_galaxy import GalaxyForRegression
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.models.model import GalaxyConfig, GalaxyForVotes
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.run import run_training
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.sources import open_sources
from tests.conftest import ROOT
from tests.galaxies import Rows, published, votes_of
from tests.training.runs import run


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    """A dataset of another campaign."""
    folder = tmp_path_factory.mktemp("rings") / "rings"
    folder.mkdir()
    published(Rows(40), folder)
    return folder


def test_several_datasets_are_trained_on_by_weight_each_with_its_own_questions(mock_dataset, rings, tmp_path):
    record = run(tmp_path / "run", dataset=(str(mock_dataset), str(rings)), weights=(1.0, 3.0), epochs=1)
    opened = [open_dataset(str(folder)) for folder in (mock_dataset, rings)]
    for split, galaxies in record.dataset["splits"].items():
        assert galaxies == sum(len(each[split]) for each in opened)
    assert record.dataset["title"] == "Mock survey of drawn galaxies and Rings"
    assert record.dataset["questions"][-1] == "ring"
    results = record.results["test"]
    asked = votes_of(opened[1]["test"], Rows.tree).any(axis=1).sum()
    assert results["questions"]["ring"]["galaxies_asked"] == asked
    smooth = results["questions"]["smooth-or-featured-gz2"]["galaxies_asked"]
    assert 0 < smooth <= len(opened[0]["test"])
    model = AutoModel.from_pretrained(tmp_path / "run")
    assert model.tree.campaigns.keys() == {"gz2", "gz_decals_dr5", "gz_rings"}
    assert record.model["flops"] == operations_of(model, record.model["image_size"])
    again = results["bootstrap"]["loss"]["model"]
    assert min(again) < results["loss"]["model"] < max(again)


def operations_of(model, size):
    """Two for each weight of a convolution or a linear layer, as often as it is used on one picture."""
    seen = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(lambda layer, _, out: seen.append(2 * layer.weight[0].numel() * out.numel()))
    model.eval()(pixel_values=torch.zeros(1, 3, size, size))
    return sum(seen)


def test_a_subset_of_balanced_classes(mock_dataset, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), task="classes", label="mock_class", subset=0.5, epochs=1)
    record = run(tmp_path / "run", **settings, balance=1.0)
    train = load_dataset(str(mock_dataset), split="train")
    assert record.dataset["splits"]["train"] == round(0.5 * len(train))
    sources = open_sources(Settings(**settings, out=tmp_path / "none"))
    counts = torch.bincount(torch.tensor(sources.splits["train"][0][:]["mock_class"].to_pylist())).clamp_min(0.5)
    priors = (counts / counts.sum()).log()  # of the subset, not of what balancing shows
    torch.testing.assert_close(torch.tensor(record.baseline["log_priors"]), priors)
    whole = open_sources(Settings(**(settings | {"subset": 1.0}), out=tmp_path / "none"))
    some, all_names = (s.splits["train"][0][:]["id_str"].to_pylist() for s in (sources, whole))
    assert set(some) < set(all_names)


def test_one_class_against_the_rest_is_balanced_evaluated_again_and_kept_as_a_head(mock_dataset, tmp_path, monkeypatch):
    """On a ClassLabel in which the class does not stand first or second."""
    names = load_dataset(str(mock_dataset))["test"].features["mock_class"].names
    splits = {split: rows["mock_class"][:] for split, rows in load_dataset(str(mock_dataset)).items()}
    one = max(range(2, len(names)), key=splits["test"].count)
    label = f"mock_class={names[one]}"
    settings = dict(dataset=(str(mock_dataset),), task="classes", epochs=1)
    record = run(tmp_path / "run", **settings, label=label, balance=0.5, subset=0.9)
    assert record.dataset["classes"] == [f"not {names[one]}", names[one]]
    assert record.dataset["splits"]["train"] == round(0.9 * sum(kind is not None for kind in splits["train"]))
    of_one = [kind == one for kind in splits["test"] if kind is not None]
    assert np.sum(record.results["test"]["confusion"], axis=1).tolist() == [of_one.count(False), of_one.count(True)]
    share = np.exp(record.baseline["log_priors"][1])
    assert share == pytest.approx(splits["train"].count(one) / len(splits["train"]), abs=0.05)
    monkeypatch.setattr(sys, "argv", ["evaluate", "--run", str(tmp_path / "run"), "--workers", "0", "--cpu"])
    runpy.run_path(str(ROOT / "scripts/evaluate.py"), run_name="__main__")
    assert RunRecord.load(tmp_path / "run").results["test"]["confusion"] == record.results["test"]["confusion"]
    assert f"not {names[one]}, {names[one]}." in (tmp_path / "run/README.md").read_text()
    run(tmp_path / "all", **settings, label="mock_class", start=str(tmp_path / "run"), keep_head=True, backbone=None)
    others = ", ".join(name for name in names if name != names[one])
    assert f"biases kept, but for {others}, newly initialised" in (tmp_path / "all.log").read_text()


VALUES = ("half_light_radius_arcsec", "magnitude")


def test_values_have_their_units_and_stand_beside_the_constants_of_the_training_split(
    mock_dataset, tmp_path, run_script
):
    settings = dict(dataset=(str(mock_dataset),), task="values", values=VALUES, epochs=1)
    record = run(tmp_path / "run", **settings, subset=0.8)
    train = open_sources(Settings(**settings, subset=0.8, out=tmp_path / "none")).splits["train"][0]
    numbers = np.stack([train[:][column].to_numpy() for column in VALUES], axis=1)
    assert record.dataset["splits"]["train"] == len(train) == round(0.8 * len(load_dataset(str(mock_dataset))["train"]))
    for name, function in (("mean", np.mean), ("std", np.std), ("median", np.median)):
        np.testing.assert_allclose(record.baseline[name], function(numbers.astype(float), axis=0))
    model = AutoModel.from_pretrained(tmp_path / "run")
    assert isinstance(model, GalaxyForRegression)
    assert tuple(model.config.values) == VALUES
    assert (model.config.value_mean, model.config.value_std) == (record.baseline["mean"], record.baseline["std"])
    results = record.results["test"]
    assert list(results["values"]) == list(VALUES)
    radius = results["values"][VALUES[0]]
    assert radius["galaxies"] == results["galaxies"] == len(load_dataset(str(mock_dataset))["test"])
    again = results["bootstrap"]["values"][VALUES[0]]["rmse"]["model"]
    assert min(again) < radius["rmse"]["model"] < max(again)
    assert f"| {VALUES[0]} | {radius['galaxies']} | " in (tmp_path / "run/README.md").read_text()
    run_script("evaluate", "--run", tmp_path / "run", "--workers", 0)
    after = RunRecord.load(tmp_path / "run").results["test"]["values"]
    for name in VALUES:
        assert after[name]["mae"] == pytest.approx(results["values"][name]["mae"], rel=1e-4)


def test_two_processes_learn_values_as_one_does(mock_dataset, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), task="values", values=VALUES, epochs=1, head_dropout=0.0)
    one, two = run(tmp_path / "one", **settings), run(tmp_path / "two", processes=2, **settings)
    np.testing.assert_allclose(one.training["losses"], two.training["losses"], rtol=1e-4)
    for name in VALUES:
        assert one.results["test"]["values"][name]["rmse"] == pytest.approx(
            two.results["test"]["values"][name]["rmse"], rel=1e-4
        )


@pytest.fixture
def gappy(mock_dataset, tmp_path):
    """The mock survey with fractions, of which many galaxies lack one and some both, and with columns that cannot be a target."""
    rng = np.random.default_rng(0)
    (tmp_path / "gappy/data").mkdir(parents=True)
    for split, rows in load_dataset(str(mock_dataset)).items():
        fractions = rng.random((len(rows), 2))
        fractions[rng.random(fractions.shape) < 0.4] = np.nan
        rows = rows.select_columns(["id_str", "image"])
        columns = {
            "bar": fractions[:, 0],
            "ring": fractions[:, 1],
            "same": np.ones(len(rows)),
            "none": [None] * len(rows),
        }
        for name, column in columns.items():
            rows = rows.add_column(name, list(column), feature=datasets.Value("float32"))
        rows.to_parquet(tmp_path / f"gappy/data/{split}.parquet")
    return tmp_path / "gappy"


def test_galaxies_without_any_value_are_left_out_with_a_message_and_gaps_are_masked(gappy, tmp_path, caplog):
    caplog.set_level("INFO", "hf_galaxy")
    settings = dict(dataset=(str(gappy),), task="values", values=("bar", "ring"), unit_interval=True)
    sources = open_sources(Settings(**settings, out=tmp_path / "none"))
    train = load_dataset(str(gappy))["train"].with_format("numpy")[:]
    having = {name: ~np.isnan(train[name]) for name in ("bar", "ring")}
    without = (~having["bar"] & ~having["ring"]).sum()
    assert caplog.messages[0] == (
        f"{without} of the {len(train['bar'])} galaxies of split train of {gappy} have no 'bar' or 'ring'; they are left out"
    )
    assert sources.count("train") == len(train["bar"]) - without
    kinds = having["bar"] + 2 * having["ring"]
    assert sources.strata[0].tolist() == [kind for kind in kinds if kind]
    record = run(tmp_path / "run", **settings, epochs=1)
    test = load_dataset(str(gappy))["test"].with_format("numpy")[:]
    figures = record.results["test"]["values"]
    assert figures["bar"]["galaxies"] == (~np.isnan(test["bar"])).sum()
    assert all(np.isfinite(loss) for _, loss in record.training["losses"])
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["unit_interval"]
    assert config["value_mean"] == pytest.approx([np.nanmean(train[name]) for name in ("bar", "ring")])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(task="values", values=("same",)), "--values same: no two training galaxies have different ones"),
        (dict(task="values", values=("bar", "none")), "--values none: no two training galaxies have different ones"),
        (
            dict(task="values", values=("id_str",)),
            "no column of numbers 'id_str'; those that it has: bar, ring, same, none",
        ),
        (dict(task="values"), "to learn without --values"),
        (dict(task="values", values=("bar", "bar")), "--values bar bar: names a column twice"),
        (dict(task="values", values=("bar",), balance=1.0), "--balance: is for classes, .*; values"),
        (dict(task="values", label="bar"), "--label: is for --task classes; --task values has --values"),
        (dict(task="votes", values=("bar",)), "--values: is for --task values; --task votes has --tree"),
        (dict(task="classes", unit_interval=True), "--unit-interval: is for --task values"),
        (dict(task="votes", label_smoothing=0.1), "--label-smoothing: is for --task classes"),
        (dict(task="classes", label_smoothing=1.0), "--label-smoothing 1.0: is a share"),
        (dict(task="classes", balance=1.0, class_weights="balanced"), "--class-weights balanced and --balance"),
    ],
)
def test_values_and_options_that_cannot_be_trained_on_are_refused_before_anything_is_made(
    gappy, settings, message, tmp_path
):
    with pytest.raises(BadInput, match=message):
        run_training(Settings(dataset=(str(gappy),), out=tmp_path / "run", backbone="test_convnext", **settings))
    assert not (tmp_path / "run").exists()


def test_class_weights_and_label_smoothing_train_and_are_saved_but_do_not_measure(mock_dataset, tmp_path):
    settings = dict(dataset=(str(mock_dataset),), task="classes", label="mock_class", epochs=1)
    plain = run(tmp_path / "plain", **settings)
    balanced = run(tmp_path / "balanced", **settings, label_smoothing=0.1, class_weights="balanced")
    labels = np.array(load_dataset(str(mock_dataset))["train"]["mock_class"])
    config = json.loads((tmp_path / "balanced/config.json").read_text())
    counts = np.bincount(labels, minlength=8)
    weights = [len(labels) / ((counts > 0).sum() * count) if count else 1 for count in counts]
    assert config["class_weights"] == pytest.approx(weights)
    assert np.take(config["class_weights"], labels).mean() == pytest.approx(1)
    assert config["label_smoothing"] == 0.1
    assert plain.training["losses"] != balanced.training["losses"]
    assert plain.results["test"]["loss"]["baseline"] == balanced.results["test"]["loss"]["baseline"]
    with pytest.raises(
        BadInput, match=r"class_weights 1.0 2.0: must be one number above 0 for each of the 8 classes smooth-round, "
    ):
        run_training(
            Settings(
                **settings, out=tmp_path / "none", backbone="test_convnext", class_weights=(1.0, 2.0), image_size=32
            )
        )
    assert not (tmp_path / "none").exists()


def test_balancing_leaves_out_galaxies_without_votes_and_makes_them_no_campaign(rings, tmp_path, caplog):
    caplog.set_level("INFO", "hf_galaxy")
    settings = dict(dataset=(str(rings),), out=tmp_path / "none")
    plain = open_sources(Settings(**settings)).splits["train"][0]
    empty = sum(not votes.any() for votes in votes_of(plain, Rows.tree))
    balanced = open_sources(Settings(**settings, balance=1.0))
    assert empty == 1, "galaxy-0 has no votes"
    assert caplog.messages[-2].startswith("1 of the ")
    assert "have no votes" in caplog.messages[-2]
    assert len(balanced.splits["train"][0]) == len(plain) - 1
    assert set(balanced.strata[0]) == {1}


def test_views_optimiser_and_decay_as_set_are_what_trains(mock_dataset, tmp_path):
    """Each option changes the curve, so none is lost on the way."""
    settings = dict(dataset=(str(mock_dataset),), epochs=1)
    curves = [run(tmp_path / "plain", **settings).training["losses"]]
    options = [dict(optimizer="lion"), dict(layer_decay=0.5), dict(rotate=False), dict(flip=False), dict(zoom=(1.0, 1.5)),
               dict(shift=0.3), dict(schedule="constant"), dict(weight_decay=0.9), dict(clip_norm=0.01), dict(subset=0.9), dict(shear=20.0), dict(erase=0.5)]  # fmt: skip
    for number, option in enumerate(options):
        curves.append(run(tmp_path / str(number), **settings, **option).training["losses"])
        assert curves[-1] not in curves[:-1], option


def test_a_run_that_fails_releases_its_folder_and_its_tracker(mock_dataset, tmp_path):
    """In a process that lives on, such as a notebook: another one can take the run up."""
    settings = dict(
        dataset=(str(mock_dataset),), out=tmp_path / "run", backbone="test_convnext", image_size=32, batch_size=16, min_votes=3,
        workers=0, cpu=True, precision="no", learning_rate=1e30, tracker="tensorboard",
    )  # fmt: skip
    with pytest.raises(FloatingPointError) as failed:
        run_training(Settings(**settings))
    claim = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    subprocess.run([sys.executable, "-c", claim, str(tmp_path / "run/.lock")], check=True)
    logs = {str(file.resolve()) for file in (tmp_path / "logs").rglob("*tfevents*")}
    assert logs
    assert not logs & {os.path.realpath(file) for file in Path("/proc/self/fd").glob("*")}, "still open for writing"
    assert failed.tb is not None, "which notebooks keep, with all that the run had opened"


def test_a_compiled_backbone_keeps_the_names_of_its_weights_and_its_answers():
    torch.manual_seed(0)
    model = GalaxyForVotes(GalaxyConfig(backbone="test_resnet", tree="gz2", image_size=32)).eval()
    names, pictures = list(model.state_dict()), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(pixel_values=pictures).concentrations
        model.backbone.compile(backend="aot_eager")  # inductor would take a minute; the names are the same
        torch.testing.assert_close(model(pixel_values=pictures).concentrations, expected)
    assert list(model.state_dict()) == names
