"""A study finds in the records of runs what they were drawn from, and its page says so."""

import copy
import json
import re
import runpy
import sys

import numpy as np
import pandas as pd
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from hf_galaxy.errors import BadInput
from hf_galaxy.reports import model_card
from hf_galaxy.reports.measures import ALL, MEASURES, NAMES
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.scaling.claims import claims
from hf_galaxy.scaling.page import MADE, study_page
from hf_galaxy.scaling.points import family_of, load_points, points_of, records_in, save_points
from hf_galaxy.scaling.study import adjusted, better_than_a_constant, study_of
from tests.conftest import ROOT
from tests.scaling.records import BACKBONES, SIZES, classed_records, law_of, loss_of, voted_records


@pytest.fixture(scope="module")
def voted():
    return points_of(voted_records(questions=("easy", "hard", "odd")))


@pytest.fixture(scope="module")
def study(voted):
    return study_of(voted)


def test_points_are_what_the_runs_measured():
    records = voted_records(questions=("easy",), sizes=SIZES[:2], seeds=(1,), backbones={"resnet10t": 1000})
    points = points_of(records)
    (name, record), *_ = records.items()
    own = points[points["run"] == name].set_index(["figure", "measure"])
    nll = record.results["test"]["questions"]["easy"]["nll"]
    again = record.results["test"]["bootstrap"]["questions"]["easy"]["nll"]
    row = own.loc["easy", "excess"]
    assert row["loss"] + row["subtracted"] == pytest.approx(nll["model"])
    assert row["baseline"] + row["subtracted"] == pytest.approx(nll["baseline"])
    np.testing.assert_allclose(row["replicates"], np.subtract(again["model"], again["saturated"]))
    assert own.loc["easy", "rmse"]["loss"] == record.results["test"]["questions"]["easy"]["rmse"]["model"]
    assert row[["galaxies", "parameters", "seed", "start", "family"]].tolist() == [300, 1000, 1, "random", "resnet"]
    classes = points_of(classed_records(sizes=SIZES[:1], seeds=(1,)))
    assert set(classes["measure"]) == {"nll", "error"}
    assert family_of("test_resnet") == family_of("resnet50") == "resnet" != family_of("convnext_atto")


def with_oracle(record):
    """The record, with the loss of the true fractions 0.2 above the saturated one of all and of "easy"; "rare" has too few galaxies."""
    test = record.results["test"]
    for figures, again in (
        (test["loss"], test["bootstrap"]["loss"]),
        (test["questions"]["easy"]["nll"], test["bootstrap"]["questions"]["easy"]["nll"]),
    ):
        figures["oracle"] = figures["saturated"] + 0.2
        again["oracle"] = [each + 0.2 for each in again["saturated"]]
    for of in (test, test["bootstrap"]):
        of["questions"]["easy"]["true_rmse"] = {"model": of["questions"]["easy"]["rmse"]["model"], "baseline": 0.3}
    return record


def test_losses_of_votes_are_above_those_of_the_oracle_where_it_was_measured(tmp_path):
    records = voted_records(questions=("easy", "rare"), sizes=SIZES[:2], seeds=(1,), backbones={"resnet10t": 1000})
    before, (one, other) = points_of(records).set_index(["run", "figure", "measure"]), records
    with_oracle(records[one])
    with pytest.raises(
        BadInput, match=f"{other}: lacks the loss of the true vote fractions, .* {one} .* evaluate --run"
    ):
        points_of(records)
    with_oracle(records[other])
    points = points_of(records)
    measures = {figure: set(part["measure"]) for figure, part in points.groupby("figure")}
    assert measures == {ALL: {"above_oracle"}, "easy": {"above_oracle", "true_rmse"}, "rare": {"rmse"}}
    assert set(points["measure"]) <= MEASURES.keys()
    now = points.set_index(["run", "figure", "measure"])
    for figure in (ALL, "easy"):
        row, earlier = now.loc[one, figure, "above_oracle"], before.loc[one, figure, "excess"]
        for name in ("loss", "baseline"):
            assert row[name] == pytest.approx(earlier[name] - 0.2)
            assert row[name] + row["subtracted"] == pytest.approx(earlier[name] + earlier["subtracted"])
        np.testing.assert_allclose(row["replicates"], earlier["replicates"] - 0.2)
    # A table that was saved before has another name for what is subtracted.
    save_points(points.rename(columns={"subtracted": "saturated"}), tmp_path / "points.parquet")
    assert load_points(tmp_path / "points.parquet")["subtracted"].tolist() == points["subtracted"].tolist()


def test_points_of_runs_that_learnt_values():
    records = classed_records(sizes=SIZES[:1], seeds=(1,), backbones={"resnet10t": 1000})
    (record,) = records.values()
    r2 = {"model": 0.75, "baseline": -0.01}
    again = {"r2": {"model": [0.5, 0.8]}}
    record.settings["task"] = "values"
    record.results["test"] = {
        "galaxies": 500, "loss": {"model": 0.4, "baseline": 1.1}, "values": {"redshift": {"r2": r2, "galaxies": 321}},
        "bootstrap": {"loss": {"model": [0.3, 0.5]}, "values": {"redshift": again}},
    }  # fmt: skip
    points = points_of(records).set_index(["figure", "measure"])
    assert points.loc[(ALL, "mse"), "loss"] == 0.4
    row = points.loc[("redshift", "unexplained")]
    assert row[["loss", "baseline", "test_galaxies"]].tolist() == [0.25, 1.01, 321]
    np.testing.assert_allclose(row["replicates"], [0.5, 0.2])


def test_points_of_runs_of_several_labels():
    records = classed_records(sizes=SIZES[:1], seeds=(1,), backbones={"resnet10t": 1000})
    (record,) = records.values()
    record.settings["task"] = "labels"
    figures = {"error": {"model": 0.1, "baseline": 0.3}}
    record.results["test"] = {
        "galaxies": 500, "loss": {"model": 0.4, "baseline": 1.1}, "labels": {"ring": figures | {"galaxies": 321}},
        "bootstrap": {"loss": {"model": [0.3, 0.5]}, "labels": {"ring": {"error": {"model": [0.05, 0.2]}}}},
    }  # fmt: skip
    points = points_of(records).set_index(["figure", "measure"])
    assert points.loc[(ALL, "nll"), ["loss", "baseline"]].tolist() == [0.4, 1.1]
    row = points.loc[("ring", "error")]
    assert row[["loss", "baseline", "test_galaxies"]].tolist() == [0.1, 0.3, 321]
    np.testing.assert_allclose(row["replicates"], [0.05, 0.2])


def test_a_figure_of_too_few_galaxies_is_left_out():
    records = voted_records(questions=("easy", "rare", "odd"), sizes=SIZES[:1], seeds=(1,))
    for record in records.values():
        again = record.results["test"]["bootstrap"]["questions"]
        again["rare"]["rmse"]["model"][3] = None
        for who in ("model", "saturated"):
            again["odd"]["nll"][who][5] = None
    points = points_of(records)
    measures = {figure: set(part["measure"]) for figure, part in points.groupby("figure")}
    assert measures == {ALL: {"excess"}, "easy": {"excess", "rmse"}, "rare": {"excess"}, "odd": {"rmse"}}


def test_runs_measured_without_replicates_are_refused():
    records = classed_records(sizes=SIZES[:1], seeds=(1,))
    for record in records.values():
        del record.results["test"]["bootstrap"]
    with pytest.raises(BadInput, match="hf-galaxy evaluate"):
        points_of(records)


def test_runs_that_are_no_one_study_are_refused():
    records = classed_records(sizes=SIZES[:3], seeds=(1, 2))
    name, record = next(iter(records.items()))
    with pytest.raises(BadInput, match=f"{name} and again have the same backbone, number of galaxies and seed"):
        points_of(records | {"again": record})
    other = copy.deepcopy(record)
    other.settings |= {"seed": 9, "label_smoothing": 0.0, "zoom": [0.9, 1.1]}
    points_of(records | {"of a later version, by its defaults": other})
    folded, elsewhere = copy.deepcopy(other), copy.deepcopy(other)
    folded.settings |= {"fold": 2}
    elsewhere.settings |= {"fold": 2}
    folded.model["backbone"], elsewhere.dataset["name"] = "resnet18", "another"
    with pytest.raises(BadInput, match=f"{name} and folded differ in --fold, so they were tested on different"):
        points_of(records | {"folded": folded})
    points_of(records | {"elsewhere": elsewhere})
    other.settings |= {"learning_rate": 0.1}
    with pytest.raises(BadInput, match=f"{name} and other differ in --learning-rate"):
        points_of(records | {"other": other})
    other.settings |= {"subset": 0.5, "epochs": 3}
    del other.settings["learning_rate"]
    assert len(points_of(records | {"other": other})) == 2 * len(records) + 2


def test_runs_without_an_error_or_all_alike_have_no_law_or_no_r2():
    records = classed_records(sizes=SIZES[:4], seeds=(1,))
    accuracies = {"resnet10t": 1.0, "test_resnet": 0.5, "mobilenetv3_small_050": 0.25}
    for name, record in records.items():
        test, accuracy = record.results["test"], accuracies[name.split("/")[0]]
        test["accuracy"]["model"], test["bootstrap"]["accuracy"]["model"] = accuracy, [accuracy] * 40
    laws = {law["backbone"]: law for law in study_of(points_of(records))["laws"] if law["measure"] == "error"}
    assert laws["resnet10t"]["law"] is laws["resnet10t"]["plain"] is None
    assert laws["test_resnet"]["plain"]["r2"] is None
    assert any("the seed" in doubt for doubt in laws["test_resnet"]["plain"]["doubts"])
    assert laws["mobilenetv3_small_050"]["useless_up_to"] == SIZES[3], "a constant is right more often"
    assert laws["mobilenetv3_small_050"]["law"] is laws["mobilenetv3_small_050"]["plain"] is None


def test_points_are_read_as_they_were_written(voted, tmp_path):
    save_points(voted, tmp_path / "points.parquet")
    again = load_points(tmp_path / "points.parquet")
    pd.testing.assert_frame_equal(again.drop(columns="replicates"), voted.drop(columns="replicates"))
    np.testing.assert_allclose(np.stack(again["replicates"]), np.stack(voted["replicates"]), rtol=1e-6)
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(BadInput, match="lacks"):
        load_points(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("x")
    with pytest.raises(BadInput, match="Parquet"):
        load_points(tmp_path / "text.parquet")


def test_the_law_of_each_question_and_backbone_is_found(study):
    truth = {"easy": 0, "hard": 1, "odd": 2}
    inside = []
    for law in study["laws"]:
        if law["figure"] in truth and law["measure"] == "rmse":
            of = law_of(truth[law["figure"]])
            inside.append(law["law"]["b"]["low"] <= of["beta"] <= law["law"]["b"]["high"])
            assert law["law"]["b"]["value"] == pytest.approx(of["beta"], rel=0.2)
            most = law["points"][-1]
            assert most["value"] == pytest.approx(loss_of(of, law["parameters"], SIZES[-1]) / 5, rel=0.05)
            assert most["low"] < most["value"] < most["high"]
            assert law["law"]["leave_out"]["galaxies"] == SIZES[-1]
    assert len(inside) == 9
    assert sum(inside) >= 6


def test_more_parameters_are_seen_to_help_and_to_do_nothing():
    flat = voted_records(questions=("easy",), backbones={"resnet10t": 1e6, "test_resnet": 1e6}, noise=0.005)
    pairs = study_of(points_of(flat))["parameters"]
    assert {pair["loss"] for pair in pairs} == {"not shown"}
    steep = voted_records(questions=("easy",), backbones={"resnet10t": 1e7, "test_resnet": 1e5}, noise=0.005)
    pairs = study_of(points_of(steep))["parameters"]
    assert {(pair["small"], pair["large"]) for pair in pairs} == {("test_resnet", "resnet10t")}
    assert {pair["loss"] for pair in pairs} == {"less"}
    of = law_of(0)
    change = (loss_of(of, 1e7, SIZES[-1]) - loss_of(of, 1e5, SIZES[-1])) / 5
    rmse = next(pair for pair in pairs if pair["measure"] == "rmse" and pair["figure"] == "easy")
    assert rmse["low"] < change < rmse["high"]


def test_exponents_that_differ_are_told_from_those_that_do_not(study):
    among = {(each["across"], each["measure"], each.get("backbone")): each for each in study["exponents"]}
    assert among["figure", "rmse", "resnet10t"]["count"] in (2, 3), "but for one that is rejected by chance"
    backbones = [each for each in study["exponents"] if each["across"] == "backbone"]
    assert min(each["p_adjusted"] for each in backbones) > 0.01, "all backbones were drawn with the same exponent"
    points = points_of(voted_records(questions=("easy",)))
    steeper, of, parameters = points["backbone"] == "resnet10t", law_of(0), BACKBONES["resnet10t"]
    floor, first = (loss_of(of, parameters, galaxies) for galaxies in (1e15, SIZES[0]))
    other = floor + (first - floor) * (points["galaxies"] / SIZES[0]) ** (-2 * of["beta"])
    falls = other / loss_of(of, parameters, points["galaxies"])  # twice the exponent
    points.loc[steeper, "loss"] *= falls[steeper]
    points["replicates"] = [r * f if s else r for r, f, s in zip(points["replicates"], falls, steeper, strict=True)]
    differing = [each for each in study_of(points)["exponents"] if each["across"] == "backbone"]
    assert [each["p_adjusted"] < 0.05 for each in differing] == [True] * 3, (
        "the excess of all, of the question, and its rmse"
    )


def test_p_of_several_tests_is_that_of_holm():
    # Holm's own rule: the smallest of m is compared with 0.05 / m, the next with 0.05 / (m - 1), ..., until one is above.
    ps = [0.012, 0.2, 0.005, 0.03, 0.04]
    assert adjusted(ps) == pytest.approx([0.048, 0.2, 0.025, 0.09, 0.09])
    assert adjusted([0.9, 0.8]) == [1, 1]


def test_losses_up_to_those_of_a_constant_are_not_fitted():
    points = points_of(voted_records(questions=("easy",), backbones={"resnet10t": 1e6}))
    chosen = (points["figure"] == "easy") & (points["measure"] == "rmse")

    def law_above(size):
        """The law where a constant prediction is as good as runs on this number of galaxies."""
        level = points.loc[chosen & (points["galaxies"] == size), "loss"].mean()
        again = points.assign(baseline=points["baseline"].where(~chosen, level - 1e-9))
        assert set(better_than_a_constant(again[chosen])["galaxies"]) == {each for each in SIZES if each > size}
        return next(law for law in study_of(again)["laws"] if (law["figure"], law["measure"]) == ("easy", "rmse"))

    law = law_above(SIZES[1])
    assert law["law"]["range"] == (SIZES[2], SIZES[-1])
    assert law["useless_up_to"] == SIZES[1]
    assert len(law["points"]) == len(SIZES), "they are shown"
    law = law_above(SIZES[2])
    assert law["law"] is None, "three numbers of galaxies are left"
    assert law["plain"]["range"] == (SIZES[3], SIZES[-1])


def test_few_runs_make_a_study_that_claims_nothing():
    study = study_of(points_of(voted_records(questions=("easy",), sizes=SIZES[:2], seeds=(1,))))
    assert all(law["law"] is None and law["plain"] is None for law in study["laws"])
    assert all(point["low"] is None for law in study["laws"] for point in law["points"])
    assert {law["last_step"]["loss"] for law in study["laws"]} == {"not known"}
    page = study_page(study, "Few", {}, "command")
    assert "(no interval)" in page
    assert "not known" in page
    assert "changes with an interval" not in page


def test_the_page_is_a_function_of_the_study_and_a_card_for_the_hub(study, tmp_path):
    again = json.loads(json.dumps(study, allow_nan=False))
    page = study_page(again, 'A title: with "quotes"', {"curves-rmse": "what it shows"}, "python x")
    assert page == study_page(study, 'A title: with "quotes"', {"curves-rmse": "what it shows"}, "python x")
    assert DatasetCard(page).data.pretty_name == 'A title: with "quotes"'
    assert "![what it shows](curves-rmse.png)" in page
    law = next(law for law in study["laws"] if law["figure"] == "hard" and law["measure"] == "rmse")
    b = law["law"]["b"]
    assert f"{b['value']:#.3g} [{b['low']:#.3g}, {b['high']:#.3g}]" in page
    falls, *_ = claims(study)
    for measure in ("excess", "rmse"):
        assert falls.answers[measure].why.startswith("of 9 laws of a backbone on a question, 9 fall with more galaxies")
        assert f" By {NAMES[measure]}, {falls.answers[measure].why}" in page


def test_the_page_says_what_a_loss_of_votes_is_above(study):
    page = study_page(study, "T", {}, "x")
    assert "knows the votes (the saturated likelihood)" in page
    assert "knew the true vote fractions" not in page
    anchored = json.loads(json.dumps(study).replace('"excess"', '"above_oracle"').replace('"rmse"', '"true_rmse"'))
    page = study_page(anchored, "T", {}, "x")
    assert "An oracle that knew the true vote fractions of every galaxy" in page
    assert "### above_oracle: loss above that of the true fractions" in page
    assert "saturated" not in page


def test_comparisons_stand_beside_the_number_that_chance_would_give(study):
    page = study_page(study, "title", {}, "python x")
    falls, parameters, form, architectures, questions = (
        " ".join(answer.why for answer in each.answers.values()) for each in claims(study)
    )
    # 9 laws, each with a chance of 5 % to look falling where it is flat, or to be rejected where it holds.
    assert falls.count("chance alone would give about 0.45.") == 2, "of excess and rmse"
    rejections = r"is rejected for \d of 9 .*? for \d of 9 .*?: lack of fit, p below 0\.05, by chance about 0\.45\."
    assert len(re.findall(rejections, form)) == 2
    held_out = [law["plain"]["leave_out"] for law in study["laws"] if law["measure"] == "rmse" and law["figure"] != ALL]
    misses = sorted(abs(each["before"] / each["measured"] - 1) for each in held_out)
    assert f"stays what it was misses by {100 * misses[len(misses) // 2]:.1f} %" in form
    # One comparison of each question and of all together.
    assert re.search(
        r"in \d of 4 comparisons of 2 to 3 architectures|in \d of 4 comparisons of 3 architectures", architectures
    )
    assert re.search(
        r"adjusted for the number of comparisons; without that in \d, by chance about 0\.2\)", architectures
    )
    assert re.search(r"in \d of 3 comparisons of (2 to )?3 questions .*? by chance about 0\.15\)", questions)
    steps = [each for each in study["parameters"] if each["measure"] == "rmse"]
    assert f"of {len(steps)} pairs" in parameters
    assert f"chance alone would give about {0.05 * len(steps):.2g} of each" in parameters
    changes = [law["last_step"] for law in study["laws"] if law["measure"] == "rmse"] + steps
    less, more = (sum(step["loss"] == verdict for step in changes) for verdict in ("less", "more"))
    assert re.search(
        rf"Of {len(changes)} changes .*? {less} are less and {more} more .*? about {0.05 * len(changes):.2g} of each",
        page,
    )


def test_the_script_writes_a_folder_that_datasets_reads_and_cards_of_runs(tmp_path, monkeypatch):
    def fit(*arguments):
        monkeypatch.setattr(sys, "argv", ["fit_scaling.py", *map(str, arguments)])
        runpy.run_path(str(ROOT / "scripts/fit_scaling.py"), run_name="__main__")

    records = classed_records()
    for name, record in records.items():
        record.settings |= {"task": "classes", "label": "type", "epochs": 10}
        record.dataset |= {
            "title": "Made up",
            "classes": ["a", "b"],
            "splits": {**record.dataset["splits"], "validation": 1, "test": 1},
        }
        record.model |= {"image_size": 32, "crop": 1.0}
        lengths = [{"epochs": epochs, "validation_loss": 1.0} for epochs in (5.0, 10.0)]
        record.training["convergence"] |= {"lengths": lengths, "pictures": 15 * 300}
        record.environment = {"device": "CPU", "processes": 1}
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        record.save(folder)
        (folder / "README.md").write_text(model_card.model_card(record))
    edited = tmp_path / "runs" / next(iter(records)) / "README.md"
    edited.write_text("mine")
    fit("--runs", tmp_path / "runs", "--out", tmp_path / "study", "--cards")
    table = load_dataset(str(tmp_path / "study"), split="train")
    assert len(table) == 2 * len(records)
    study = json.loads((tmp_path / "study/scaling.json").read_text())
    assert study["data"]["runs"] == len(records) == len(BACKBONES) * len(SIZES) * 3
    assert edited.read_text() == "mine"
    name = list(records)[-1]
    card = (tmp_path / "runs" / name / "README.md").read_text()
    assert "How its loss scales" in card
    record = RunRecord.load(tmp_path / "runs" / name)
    assert card == model_card.model_card(record)
    assert {law["backbone"] for law in record.scaling["laws"]} == {record.model["backbone"]}
    assert records_in(tmp_path / "runs").keys() == records.keys()
    (tmp_path / "again").mkdir()
    (tmp_path / "again/README.md").write_text("mine")
    again = ["--runs", tmp_path / "study/points.parquet", "--out", tmp_path / "again"]
    with pytest.raises(SystemExit, match=r"README\.md was not made by this command"):
        fit(*again)
    assert [file.name for file in (tmp_path / "again").iterdir()] == ["README.md"]
    (tmp_path / "again/README.md").write_text(MADE)
    (tmp_path / "again/curves-rmse.png").write_text("of an earlier fit")
    fit(*again)
    assert not (tmp_path / "again/curves-rmse.png").exists()
    again = json.loads((tmp_path / "again/scaling.json").read_text())
    ours, theirs = (next(law for law in each["laws"] if law["figure"] == ALL) for each in (again, study))
    assert ours["law"]["b"]["value"] == pytest.approx(theirs["law"]["b"]["value"])
    figures = {file.stem for file in (tmp_path / "study").glob("*.png")}
    assert figures == {file.stem for file in (tmp_path / "study").glob("*.csv")}
    assert all(f"({name}.png)" in (tmp_path / "study/README.md").read_text() for name in figures)
