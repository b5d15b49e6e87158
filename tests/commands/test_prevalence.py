"""`hf-galaxy prevalence` answers how many there are, from the tables that people have; a mistake in them is answered with its row."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import hf_galaxy
from hf_galaxy import BadInput
from hf_galaxy.commands.main import module_of
from hf_galaxy.importing import survey_table

GALAXIES = 3000


@pytest.fixture(scope="module")
def survey():
    """Predictions of rings, of which there are more at high redshift, and the truth."""
    rng = np.random.default_rng(1)
    redshift = rng.gamma(2, 0.1, GALAXIES)
    truth = rng.random(GALAXIES) < 0.03 + 0.4 * np.minimum(redshift, 0.5)
    scores = rng.normal(size=GALAXIES) + 2.5 * truth
    table = pd.DataFrame({
        "dataset": "survey", "id_str": [f"J{i:05d}" for i in range(GALAXIES)], "ring_probability": 1 / (1 + np.exp(2 - 2.5 * scores)),
        "redshift": redshift, "field": np.array(["north", "south", "deep"])[rng.choice(3, GALAXIES, p=[0.7, 0.29, 0.01])],
    })  # fmt: skip
    table["ring_probability"] = table["ring_probability"].astype("float32")
    return table, truth


@pytest.fixture(scope="module")
def labelled(survey):
    table, truth = survey
    chosen = np.random.default_rng(2).choice(GALAXIES, 200, replace=False)
    return pd.DataFrame({"id_str": table["id_str"][chosen], "ring": truth[chosen].astype(int)}).reset_index(drop=True)


@pytest.fixture
def files(survey, labelled, tmp_path, monkeypatch):
    """A folder of parts, as predict writes it, and a small table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "predictions").mkdir()
    for part in range(3):
        survey[0][part * 1000 : part * 1000 + 1000].to_parquet(f"predictions/part-{part}.parquet")
    labelled.to_csv("small.csv", index=False)
    return tmp_path


def start(*words):
    module_of("prevalence").command(["--predictions", "predictions", "--labels", "small.csv", *map(str, words)])


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as refused:
        start(*words)
    assert isinstance(refused.value.code, str), capsys.readouterr().err
    return refused.value.code


def test_the_answer_is_printed_and_written(survey, files, capsys):
    start("--by", "redshift", "--bins", 3, "--out", "answer")
    printed = capsys.readouterr().out
    answer = json.loads((files / "answer/prevalence.json").read_text())
    share, truth = answer["survey"]["share"], survey[1].mean()
    assert share["low"] < truth < share["high"]
    assert answer["survey"]["number"]["value"] == pytest.approx(GALAXIES * share["value"])
    assert answer["survey"]["interval_excludes_counting"]
    assert f"ring: {100 * share['value']:.3g} % [" in printed
    assert "too high by" in printed
    assert "The interval excludes it." in printed
    assert sum(each["galaxies"] for each in answer["bins"]) == GALAXIES
    assert sum(each["labelled"] for each in answer["bins"]) == 200
    shares = [each["share"]["value"] for each in answer["bins"]]
    assert shares[0] < shares[2]
    table = pd.read_csv(files / "answer/prevalence.csv")
    assert table["bin"].tolist() == ["all", *(each["name"] for each in answer["bins"])]
    assert table["share_high"][0] == pytest.approx(share["high"])
    page = (files / "answer/README.md").read_text()
    assert page.startswith("# How many are there: ring\n")
    assert (files / "answer/prevalence.png").stat().st_size > 5000
    assert "(prevalence.png)" in page


def test_the_call_gives_the_same_numbers_of_tables_in_memory(survey, labelled, files):
    start("--by", "field", "--out", "answer")
    answer = json.loads((files / "answer/prevalence.json").read_text())
    table = hf_galaxy.prevalence(
        survey[0].assign(embedding=[np.zeros(3)] * GALAXIES), labelled, by="field", out="called"
    )
    assert json.loads((files / "called/prevalence.json").read_text()) == answer
    assert table["bin"].tolist() == ["all", "deep", "north", "south"]
    assert np.isnan(table["share"][1])  # too few labels
    assert "Bins with fewer than 10 labels have no interval: deep." in table.attrs["answer"]
    assert "hf-galaxy prevalence --predictions" in (files / "called/README.md").read_text()
    wrong = labelled.assign(ring=labelled["ring"] + (labelled.index == 3) * 5)
    with pytest.raises(BadInput, match=r"^labels, row 4, column ring: '[56]' is neither 0 nor 1"):
        hf_galaxy.prevalence(survey[0], wrong)
    with pytest.raises(BadInput, match="predictions: has the column 'field' more than once"):
        hf_galaxy.prevalence(pd.concat([survey[0], survey[0][["field"]]], axis=1), labelled)


def test_tables_may_be_csv_and_labels_classes_of_other_names(survey, labelled, files):
    survey[0].to_csv("predictions/predictions.csv", index=False)
    classes = pd.DataFrame(
        {"objid": labelled["id_str"], "kind": np.where(labelled["ring"], "ring", "none"), "who": "me"}
    )
    classes.to_parquet("classes.parquet")
    options = dict(label="kind", count="ring", on="id_str=objid", by="redshift", edges=(0, 0.2, 2))
    expected = hf_galaxy.prevalence("predictions", "small.csv", by="redshift", edges=(0, 0.2, 2))
    for predictions in ("predictions", "predictions/predictions.csv"):
        pd.testing.assert_frame_equal(hf_galaxy.prevalence(predictions, "classes.parquet", **options), expected)
    fractions = survey[0][["id_str"]].assign(bar_yes_fraction=survey[0]["ring_probability"])
    votes = labelled[["id_str"]].assign(bar=np.where(labelled["ring"], 0.75, 0.125))
    table = hf_galaxy.prevalence(fractions, votes, prediction="bar_yes_fraction")
    assert table["share"][0] == pytest.approx(0.125 + 0.625 * expected["share"][0], abs=0.03)
    assert table["number"].isna().all()
    redshifts = hf_galaxy.prevalence(
        survey[0],
        labelled[["id_str"]].merge(survey[0][["id_str", "redshift"]]) * 1,
        label="redshift",
        prediction="redshift",
    )
    assert redshifts["share"][0] == pytest.approx(survey[0]["redshift"].mean())
    assert redshifts["share_high"][0] - redshifts["share_low"][0] < 1e-6


def test_a_sample_that_prefers_some_galaxies_has_strata_or_weights(survey, files):
    table, truth = survey
    stratum = np.where(table["ring_probability"] > 0.3, "likely", "unlikely")
    rng = np.random.default_rng(5)
    chosen = np.concatenate(
        [rng.choice(np.flatnonzero(stratum == name), 150, replace=False) for name in ("likely", "unlikely")]
    )
    weights = pd.Series(stratum).value_counts()[stratum[chosen]].to_numpy() / 150
    labels = pd.DataFrame(
        {"id_str": table["id_str"].to_numpy()[chosen], "ring": truth[chosen].astype(int), "weight": weights}
    )
    by_strata = hf_galaxy.prevalence(table.assign(stratum=stratum), labels, label="ring", strata="stratum")
    by_weights = hf_galaxy.prevalence(table, labels, weight="weight")
    assert by_strata["share"][0] == pytest.approx(by_weights["share"][0])
    assert by_strata["share_low"][0] < truth.mean() < by_strata["share_high"][0]
    assert (
        hf_galaxy.prevalence(table, labels, label="ring")["labels_alone_low"][0] > truth.mean()
    )  # what happens without
    with pytest.raises(BadInput, match=r"--weight weight: is from .* to 1e\+20; of such a sample"):
        hf_galaxy.prevalence(
            table, labels.assign(weight=labels["weight"].mask(labels.index == 3, 1e20)), weight="weight"
        )
    with pytest.raises(BadInput, match="no labelled galaxy is in unlikely"):
        hf_galaxy.prevalence(table.assign(stratum=stratum), labels[:150], label="ring", strata="stratum")


def test_a_column_may_be_used_twice(survey, labelled):
    table = hf_galaxy.prevalence(survey[0], labelled, by="ring_probability", bins=2)
    assert table["galaxies"].tolist() == [GALAXIES, GALAXIES / 2, GALAXIES / 2]
    big = survey[0].assign(field=np.where(survey[0]["field"] == "north", "north", "other"))
    assert len(hf_galaxy.prevalence(big, labelled, by="field", strata="field")) == 3


def change(table, row, column, value):
    table = table.astype({column: object})
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda t: change(t, 6, "ring", ""), "small.csv, row 7, column ring: '' is no label; label the galaxy"),
        (lambda t: change(t, 6, "ring", "maybe"), "small.csv, row 7, column ring: 'maybe' is neither yes nor no, nor a number; say which"),
        (lambda t: change(t, 6, "ring", 1.5), "small.csv, row 7, column ring: '1.5' is neither 0 nor 1, nor a fraction"),
        (lambda t: change(t, 6, "ring", "inf"), "small.csv, row 7, column ring: 'inf' is neither"),
        (lambda t: change(t, 6, "ring", "1e300"), "small.csv, row 7, column ring: '1e300' is too large a number"),
        (lambda t: change(t, 6, "id_str", "K1"), "small.csv, row 7, column id_str: 'K1' is not in --predictions"),
        (lambda t: change(t, 6, "id_str", ""), "small.csv, row 7, column id_str: '' is no name of a galaxy"),
        (lambda t: pd.concat([t, t[3:4]]), "small.csv, row 201, column id_str: "),
        (lambda t: t.assign(id_str="x" + t["id_str"]), "none of the 200 labelled galaxies is in --predictions; their id_str is like 'xJ"),
        (lambda t: t[:9], "9 labels tell nothing of a survey; label at least 10"),
        (lambda t: t[["id_str"]], "--labels small.csv: has no column of labels beside id_str"),
        (lambda t: t.assign(bar=1), "which column holds the labels? Name one of ring, bar with --label"),
        (lambda t: t.rename(columns={"id_str": "star"}), "--on id_str: small.csv has no such column, only star, ring"),
        (lambda t: t[:0], "small.csv: has no rows"),
    ],
)  # fmt: skip
def test_mistakes_in_labels_are_answered_with_their_row(changed, message, labelled, files, capsys):
    changed(labelled).to_csv("small.csv", index=False)
    assert message in refusal(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--level", 1), "--level 1: give a probability between 0 and 0.999"),
        (("--bins", 0), "--bins 0: give a number from 1 to 100"),
        (("--edges", 0, 1), "--edges: are those of a column; name it with --by"),
        (("--by", "redshift", "--edges", 1, 0), "--edges: give 2 to 101 increasing numbers"),
        (("--by", "field", "--edges", 0, 1), "--edges: the column field holds texts"),
        (("--by", "z"), "--by z: --predictions predictions has no such column, only dataset, id_str, ring_probability"),
        (("--by", "id_str"), "has more than 1000 different texts"),
        (("--prediction", "Ring_Probability"), "did you mean ring_probability?"),
        (("--prediction", "redshift"), "labels of yes and no need probabilities from 0 to 1"),
        (("--prediction", "field"), "string, not numbers"),
        (("--count", "Ring"), "which column predicts --count Ring? Name one with --prediction: redshift"),
        (("--strata", "field", "--weight", "ring"), "--strata and --weight: give one of them"),
        (("--weight", "ring", "--label", "ring"), "small.csv, row 1, column ring: '0' is no weight above 0"),
        (("--label", "bar"), "--label bar: --labels small.csv has no such column, only id_str, ring"),
        (("--on", "objid"), "--on objid: small.csv has no such column"),
        (("--labels", "none.csv"), "--labels none.csv: no such file"),
        (("--predictions", "none"), "--predictions none: no such file"),
        (("--predictions", "."), "--predictions .: has neither Parquet files nor predictions.csv"),
        (("--out", "predictions"), "exists already"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(words, message, survey, files, capsys):
    if words[0] == "--count":
        survey[0].drop(columns="ring_probability").to_parquet("one.parquet")
        words = (*words, "--predictions", "one.parquet")
    assert message in refusal(capsys, *words)


def test_mistakes_in_predictions_are_answered_with_the_galaxy(survey, files, capsys):
    survey[0][5:6].to_parquet("predictions/part-3.parquet")
    assert "part-3.parquet: the galaxy 'J00005' is there twice" in refusal(capsys)
    gap = survey[0][:10].assign(id_str=lambda t: "K" + t["id_str"])
    gap.loc[4, "ring_probability"] = np.nan
    gap.to_parquet("predictions/part-3.parquet")
    assert "part-3.parquet, column ring_probability: 1 galaxies have no prediction, such as KJ00004" in refusal(capsys)
    (files / "predictions/part-3.parquet").write_bytes(b"PAR1 no")
    assert "part-3.parquet: cannot be read as a table" in refusal(capsys)
    pd.DataFrame({"id_str": ["a"]}).to_parquet("predictions/part-3.parquet")
    assert "part-3.parquet: has no column ring_probability, which part-0.parquet has" in refusal(capsys)


def test_names_of_others_do_no_harm(survey, labelled, files, capsys):
    table = survey[0].assign(**{"a|b\x1b[31m": np.where(survey[0].index % 2, "=1+1|[x](javascript:y)", "\x1b[2J<b>")})
    table.to_parquet("strange.parquet")
    start("--predictions", "strange.parquet", "--by", "a|b\x1b[31m", "--out", "answer")
    assert "\x1b[2J" not in capsys.readouterr().out
    page, cells = (files / "answer/README.md").read_text(), (files / "answer/prevalence.csv").read_text()
    assert "[x](javascript" not in page
    assert "<b>" not in page.replace("\\<b\\>", "")
    assert "'=1+1" in cells
    assert "\x1b" not in page + cells


def test_no_label_of_the_class_and_only_such_labels_are_answered(labelled, files, capsys):
    for value, expected in ((0, "ring: 0.00 % [0.00 %, "), (1, "ring: 100.0 % [")):
        labelled.assign(ring=value).to_csv("small.csv", index=False)
        start()
        assert expected in capsys.readouterr().out


def test_only_the_columns_that_are_needed_are_read_some_rows_at_a_time(survey, files, monkeypatch):
    read = []
    original = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda self, rows, columns: read.append((rows, columns)) or original(self, rows, columns=columns)
    )  # fmt: skip
    monkeypatch.setattr(survey_table, "ROWS", 64)
    table = hf_galaxy.prevalence("predictions", "small.csv", by="field")
    assert read == [(64, ["field", "id_str", "ring_probability"])] * 3
    monkeypatch.undo()
    pd.testing.assert_frame_equal(hf_galaxy.prevalence(files / "predictions", files / "small.csv", by="field"), table)
