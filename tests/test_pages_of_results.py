"""Pages in results/ are made again from the records beside them: the same words, and the same numbers."""

import importlib.util
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import linregress

from hf_galaxy.downstream.cell_files import read_about, read_cells
from hf_galaxy.downstream.figures import figures_of as benchmark_figures
from hf_galaxy.downstream.page import benchmark_page
from hf_galaxy.downstream.results import results_of
from hf_galaxy.reports.records_file import read_records
from hf_galaxy.scaling.figures import figures_of
from hf_galaxy.scaling.label_budget import budget_of, series_of
from hf_galaxy.scaling.label_budget_figure import label_budget_figure
from hf_galaxy.scaling.label_budget_page import page_of, sentences_of
from hf_galaxy.scaling.page import study_page
from hf_galaxy.scaling.points import points_of, records_in
from hf_galaxy.scaling.study import study_of
from tests.conftest import ROOT

RESULTS = ROOT / "results"
# The fits of all studies take minutes: one page of each kind is made in each run of the tests, the others in that of the night.
NIGHTLY = pytest.mark.nightly


def approximately(value):
    """Numbers may differ in their last digits between processors."""
    if isinstance(value, dict):
        return {key: approximately(each) for key, each in value.items()}
    if isinstance(value, list):
        return [approximately(each) for each in value]
    return pytest.approx(value, rel=1e-3, abs=1e-9) if isinstance(value, float) else value


NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def assert_same_text(page, file):
    """The words are the same; of the numbers one in a hundred may have been rounded to another last digit."""
    text = file.read_text()
    assert NUMBER.sub("#", page) == NUMBER.sub("#", text)
    ours, theirs = NUMBER.findall(page), NUMBER.findall(text)
    assert sum(one != other for one, other in zip(ours, theirs, strict=True)) <= len(theirs) / 100


def read(file):
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    "name",
    [
        "gz2_classes",
        *(pytest.param(name, marks=NIGHTLY) for name in ("ceers_converged", "gz2_votes", "ceers", "ceers_starts")),
    ],
)
def test_the_page_of_a_study_is_that_of_its_records(name):
    folder = RESULTS / name
    study, text = study_of(points_of(records_in(folder))), (folder / "README.md").read_text()
    (title,), (command,) = re.findall(r"^# (.*)$", text, re.M), re.findall(r"```bash\n(.*)\n```", text)
    alts = {figure.name: figure.alt for figure in figures_of(study)}
    assert_same_text(study_page(study, title, alts, command), folder / "README.md")
    assert json.loads(json.dumps(study)) == approximately(read(folder / "scaling.json"))


@pytest.mark.parametrize(
    "name", ["model_sizes", *(pytest.param(n, marks=NIGHTLY) for n in ("downstream", "mock_galaxies"))]
)
def test_the_page_of_a_benchmark_is_that_of_its_records(name):
    folder = RESULTS / name
    about = read_about(folder / "benchmark.json")
    results = json.loads(json.dumps(results_of(read_cells(folder / "cells", about), about)))
    page = benchmark_page(results, about, {figure.name: figure.alt for figure in benchmark_figures(results, about)})
    assert_same_text(page, folder / "README.md")
    assert results == approximately(read(folder / "results.json"))


@pytest.mark.parametrize(
    ("page", "study", "options"),
    [
        ("label_budget", "gz2_classes", {"backbone": "test_resnet", "target": 0.1, "hold_back": 3}),
        ("label_budget_finetuned/error", "label_budget_finetuned", {"target": 0.15, "hold_back": 1}),
        ("label_budget_finetuned/nll", "label_budget_finetuned", {"measure": "nll", "target": 0.45, "hold_back": 1}),
    ],
)
def test_the_page_of_a_label_budget_is_that_of_its_records(page, study, options):
    folder, options = RESULTS / page, dict(options)
    target, hold_back = options.pop("target"), options.pop("hold_back")
    budget = budget_of(series_of(points_of(records_in(RESULTS / study)), **options), target, hold_back)
    text, figure = (folder / "README.md").read_text(), label_budget_figure(budget)
    command = re.search(r"Made with `(.*?)`", text)[1]
    assert_same_text(page_of(budget, f"{figure.name}.png", figure.alt, command), folder / "README.md")
    numbers = json.loads(json.dumps(budget.as_dict() | {"sentences": sentences_of(budget)}))
    assert numbers == approximately(read(folder / "budget.json"))


def script_of(file):
    """A script of a study as a module."""
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}_{file.stem}", file)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_page_of_mock_galaxies_is_that_of_their_records():
    folder = RESULTS / "mock_galaxies"
    amounts = script_of(folder / "amounts.py")
    about, results = read_about(folder / "benchmark.json"), read(folder / "results.json")
    exponents, mean = amounts.exponents_of(about)
    assert_same_text(amounts.page_of(about, results, exponents, mean), folder / "amounts.md")
    # The exponent is the slope of a line by least squares.
    means, galaxies = amounts.rows_of(results, "means"), amounts.galaxies_of(about)
    assert list(galaxies.values()) == [174, 698, 2_790, 11_162]
    for task, exponent in exponents.items():
        losses = [means[task, start]["value"] for start in galaxies]
        assert exponent["value"] == pytest.approx(-linregress(np.log([*galaxies.values()]), np.log(losses)).slope)
        assert exponent["low"] < exponent["value"] < exponent["high"]


def test_the_page_of_bands_is_that_of_its_records():
    folder = RESULTS / "bands"
    page, records = script_of(folder / "page.py"), read_records(folder / "records.parquet")
    assert_same_text(page.page_of(records), folder / "README.md")
    # Independent of the page: the losses are means over seeds, and a reduction is that of these means.
    losses = {}
    records = page.epochs_of(records, page.EPOCHS)
    for record in records.values():
        values = record["results"]["test"].get("values")
        if values:
            losses.setdefault(page.way_of(record), []).append(values["redshift"]["rmse"]["model"])
    assert losses.keys() == page.WAYS.keys()
    assert {len(each) for each in losses.values()} == {3}
    reductions = page.results_of(page.points_of(records))[1]
    for before, after in page.STEPS:
        estimate = reductions["redshift", before, after]
        assert estimate["value"] == pytest.approx(1 - np.mean(losses[after]) / np.mean(losses[before]))
        assert estimate["low"] < estimate["value"] < estimate["high"]


def test_the_page_of_views_is_that_of_its_records():
    folder = RESULTS / "views"
    page, records = script_of(folder / "page.py"), read_records(folder / "records.parquet")
    text = page.page_of(records)
    assert_same_text(text, folder / "README.md")
    # Independent of the page: a reduction is that of the means over seeds.
    errors = {}
    for record in records.values():
        if "values" not in record["results"]["test"]:
            errors.setdefault(record["settings"]["mixup"], []).append(
                1 - record["results"]["test"]["accuracy"]["model"]
            )
        assert record["settings"]["dataset"] == ["data/bands/survey.csv"]
    plain = [
        1 - record["results"]["test"]["accuracy"]["model"]
        for record in records.values()
        if "values" not in record["results"]["test"] and not any(record["settings"][name] for name in page.CHANGES)
    ]
    reduction = 100 * (1 - np.mean(errors[0.2]) / np.mean(plain))
    (line,) = [line for line in text.splitlines() if line.startswith("| `--mixup 0.2`")]
    assert f"{reduction:.1f} %" in line


def test_the_page_of_vote_heads_is_that_of_its_records():
    folder = RESULTS / "vote_heads"
    page, records = script_of(folder / "page.py"), read_records(folder / "records.parquet")
    text = page.page_of(records)
    assert_same_text(text, folder / "README.md")
    # Independent of the page: losses are means over seeds, differences those of the same seeds.
    losses = {}
    for name, record in records.items():
        settings = record["settings"]
        assert settings["fold"] == settings["seed"]
        key = name.split("/")[1], settings["dataset"][0], settings["head_activation"]
        losses.setdefault(key, {})[settings["seed"]] = record["results"]["test"]["loss"]["model"]
    for kind, table in zip(("probe", "finetune"), text.split("## After finetuning"), strict=True):
        old, new = (losses[kind, "data/ceers", head] for head in ("sigmoid", "softplus"))
        assert old.keys() == new.keys()
        line = next(line for line in table.splitlines() if line.startswith("| softplus(x) + 0.01"))
        difference = np.mean(list(new.values())) - np.mean(list(old.values()))
        assert f"| {np.mean(list(new.values())):.2f}: {difference:+.2f} [" in line
    # What the page says of every survey.
    for (kind, survey, head), own in losses.items():
        of_seeds = [losses[kind, survey, "sigmoid"][seed] for seed in own]
        assert head == "sigmoid" or np.mean(list(own.values())) < np.mean(of_seeds)
        if head == "mixture":
            assert all(own[seed] < loss for seed, loss in losses[kind, survey, "softplus"].items() if seed in own)


def test_the_page_of_prevalence_is_that_of_its_records():
    folder = RESULTS / "prevalence"
    page, records = script_of(folder / "page.py"), read_records(folder / "records.parquet")
    text = page.page_of(records)
    assert_same_text(text, folder / "README.md")
    # Independent of the page: what it says of all surveys.
    samples = [(record["about"], sample) for record in records.values() for sample in record["samples"]]
    held = [sample["held"] / sample["draws"] for _, sample in samples]
    assert f"{100 * np.mean(held):.1f} % on average" in text
    assert 0.88 < np.mean(held) < 0.95
    assert min(held) > 0.84
    assert all(sample["width"] < 1.03 * sample["width_alone"] for _, sample in samples)
    assert all(
        abs(sample["mean_error"]) < 0.06 * about["truth"] for about, sample in samples if sample["labelled"] >= 100
    )
    assert {sample["draws"] for _, sample in samples} == {500}


def test_the_page_of_degrade_is_that_of_its_records():
    folder = RESULTS / "degrade"
    page, records = script_of(folder / "page.py"), read_records(folder / "records.parquet")
    text = page.page_of(records)
    assert_same_text(text, folder / "README.md")
    # Independent of the page: what it says of both surveys, of the correction, of the truth and of volunteers.
    for name, question in (("gz2", "smooth-or-featured-gz2"), ("ceers", "smooth-or-featured-jwst")):
        steps = records[name]["steps"]
        featured = [
            row for step in steps for row in step["answers"] if row["answer"] == f"{question}_featured-or-disk_fraction"
        ]
        drifts = [row["drift"] for row in featured]
        assert sorted(drifts[:3], reverse=True) == drifts[:3], "the farther, the fewer look featured, as far as twice"
        assert all(row["drift_high"] < 0 for row in featured)
        assert f"drifts by {100 * drifts[2]:+.1f} [" in text
        for step in steps:
            errors = [abs(row["error_after"]) for row in step["answers"] if row["error_after"] is not None]
            assert np.mean(errors) < 0.002
    drifts = records["drawn"]["drifts"]
    true, ours, linear = (
        np.array([row[0] for row in drifts[f"{name} x2"].values()])
        for name in ("drawn farther away", "lupton, softening 0.1 (default)", "linear")
    )
    assert np.std(ours - true) < np.std(linear - true)
    assert np.std(ours - true) < 0.6 * np.std(true)
    hart = records["volunteers"]["hart"]
    model = {row["answer"]: row["drift"] for row in records["gz2"]["steps"][2]["answers"]}
    for answer in (
        "smooth-or-featured-gz2_smooth_fraction",
        "smooth-or-featured-gz2_featured-or-disk_fraction",
        "bar-gz2_yes_fraction",
    ):
        assert model[answer] == pytest.approx(hart[answer]["value"], abs=0.03), "agree in size"
    assert model["has-spiral-arms-gz2_yes_fraction"] < 1.8 * hart["has-spiral-arms-gz2_yes_fraction"]["value"] < 0
    assert model["spiral-winding-gz2_tight_fraction"] > 0 > hart["spiral-winding-gz2_tight_fraction"]["value"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository, which knows its files")
def test_the_folder_stays_small():
    files = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=True)
    sizes = [(ROOT / file).stat().st_size for file in files.stdout.split() if (ROOT / file).exists()]
    assert len(sizes) < 200
    assert sum(sizes) < 25e6
    assert not [file for file in files.stdout.split() if file.endswith((".safetensors", "points.parquet"))]


def test_the_page_of_calibration_is_that_of_its_records():
    folder = RESULTS / "calibration"
    page, records = script_of(folder / "page.py"), read_records(folder / "records.parquet")
    transfer = json.loads((folder / "transfer.json").read_text())
    text = page.page_of(records, transfer)
    assert_same_text(text, folder / "README.md")
    # Independent of the page: what it says of losses, and of every survey.
    gains = {}
    for record in records.values():
        settings, test = record["settings"], record["results"]["test"]
        before = test["calibration"].get("uncalibrated", {"loss": test["loss"]["model"]})["loss"]
        key = settings["dataset"][0].removeprefix("data/"), settings["head_activation"]
        gains.setdefault(key, []).append(before - test["loss"]["model"])
        assert ("uncalibrated" in test["calibration"]) == record["training"]["calibration"]["used"]
    assert all(len(folds) == 3 for folds in gains.values())
    assert all(np.mean(folds) > 0 for folds in gains.values())
    assert all(f"| {np.mean(folds):+.2f} (" in text for folds in gains.values())
    for pair in transfer["results"]:
        few, *_, many = pair["draws"]
        far = {
            each: np.abs(np.array(each) - 0.9).max()
            for each in map(tuple, (pair["before"], few["after"], many["after"]))
        }
        assert far[tuple(pair["before"])] > far[tuple(few["after"])] > far[tuple(many["after"])]
