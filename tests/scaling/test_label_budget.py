"""Predictions from simulated pilots hold the truth as often as they say, and say where a pilot cannot tell."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from hf_galaxy.errors import BadInput
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.text import number
from hf_galaxy.scaling import leave_out
from hf_galaxy.scaling.label_budget import REACH, budget_of, series_of
from hf_galaxy.scaling.label_budget_page import page_of, sentences_of
from hf_galaxy.scaling.points import points_of, records_in

SERIES = {"dataset": "rings", "start": "survey", "backbone": "test_resnet", "measure": "error", "figure": "all"}
NOW = 400


def loss(law, galaxies):
    a, b, c = law
    return c + a * (galaxies / NOW) ** -b


def pilot(rng, law, sizes, seeds=3, scatter=0.04, test=1000):
    """Runs whose errors follow a law but for their scatter, all measured on the same galaxies, some of which are harder.

    Half of the variance between runs is from which galaxies they learnt from: runs with different seeds have in common the
    share of them that they learn from, and with all galaxies of the pilot all of it.
    """
    sizes, seed = np.repeat(sizes, seeds), np.tile(np.arange(seeds), len(sizes))
    share = np.minimum(sizes / NOW, 1)
    common = rng.standard_normal(len(set(sizes)))[np.unique(sizes, return_inverse=True)[1]]
    learnt = np.sqrt(share) * common + np.sqrt(1 - share) * rng.standard_normal(len(sizes))
    again = (learnt + rng.standard_normal(len(sizes))) / 2**0.5
    expected = loss(law, sizes) * (1 + scatter * again)
    hard = 0.8**0.5 * rng.standard_normal(test) + 0.2**0.5 * rng.standard_normal((len(sizes), test))
    wrong = (hard < norm.ppf(expected)[:, None]).astype(float)
    times = rng.poisson(1, (test, 200)).astype(float)
    replicates = wrong @ times / times.sum(axis=0)
    names = [f"run {i}" for i in range(len(sizes))]
    columns = {
        "run": names,
        "galaxies": sizes,
        "seed": seed,
        "loss": wrong.mean(axis=1),
        "replicates": list(replicates),
    }
    return pd.DataFrame(columns | SERIES | {"baseline": 0.9})


def halved(count, largest=NOW):
    return largest // 2 ** np.arange(count)[::-1]


def coverage(law, count, seeds, scatter, test, draws):
    """Shares of pilots whose intervals hold the truth with 2 and 4 times the galaxies, and what was held back there."""
    held, found = [], []
    for i in range(draws):
        points = pilot(np.random.default_rng(i), law, [*halved(count), 2 * NOW, 4 * NOW], seeds, scatter, test)
        if (points["loss"] == 0).any():
            continue
        budget = budget_of(points, hold_back=2)
        found.append([row["low"] <= loss(law, row["galaxies"]) <= row["high"] for row in budget.ahead[1:3]])
        held.append([row["inside"] for row in budget.held_back])
    return np.mean(found, axis=0), np.mean(held, axis=0)


PLAIN, FLOOR = (0.15, 0.4, 0), (0.075, 0.5, 0.075)


@pytest.mark.parametrize(
    ("law", "count", "seeds", "scatter", "test"),
    [
        (PLAIN, 4, 3, 0.04, 1000),
        (FLOOR, 4, 2, 0.05, 1000),
        pytest.param(FLOOR, 6, 3, 0.03, 5000, marks=pytest.mark.nightly),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(law, count, seeds, scatter, test):
    # A law without a floor alone would hold the truth in hardly any of the last pilots.
    draws = 30
    for share in np.concatenate(coverage(law, count, seeds, scatter, test, draws)):
        assert share >= 0.9 - 2 * (0.1 * 0.9 / draws) ** 0.5


def exact(law, sizes, target=None, hold_back=0, galaxies=None):
    """The budget of a pilot with hardly any scatter, measured on very many galaxies."""
    rng = np.random.default_rng(0)
    points = pilot(rng, law, sizes, test=100)
    points["loss"] = loss(law, points["galaxies"]) * (1 + 1e-3 * rng.standard_normal(len(points)))
    points["replicates"] = [np.full(200, each) for each in points["loss"]]
    return budget_of(points, target, hold_back, galaxies)


def test_a_target_needs_as_many_galaxies_as_the_law_says():
    for (a, b, c), target in ((PLAIN, 0.1), (FLOOR, 0.1), ((0.1, 0.8, 0.02), 0.05)):
        budget = exact((a, b, c), halved(5), target)
        needed, true = budget.galaxies_for, NOW * (a / (target - c)) ** (1 / b)
        assert needed["low"] - 1 <= true <= needed["high"]  # whole galaxies
        assert needed["low"] <= needed["value"] <= needed["high"]
        assert needed["value"] == pytest.approx(true, rel=0.05)
        assert budget.floor_shown == (c > 0)
        answer, more = sentences_of(budget)[1], needed["value"] - NOW
        assert f"{round(needed['value'], -2):,} galaxies [" in answer
        assert f"{round(more, -1 if more < 1000 else -2):,} more" in answer


def test_the_curve_falls_to_the_target_where_the_galaxies_for_it_are():
    points = pilot(np.random.default_rng(3), (0.15, 0.5, 0), halved(6), scatter=0.03, test=20000)
    budget = budget_of(points, 0.12)
    curve = {name: np.array(values) for name, values in budget.curve.items()}
    for of, name in (("value", "loss"), ("low", "low"), ("high", "high")):
        crossing = np.exp(np.interp(-0.12, -curve[name], np.log(curve["galaxies"])))
        assert budget.galaxies_for[of] == pytest.approx(crossing, rel=0.03)


def test_any_number_of_galaxies_may_be_asked_about():
    law = (0.2, 0.5, 0.1)
    budget = exact(law, halved(5), galaxies=1000)
    assert budget.asked["galaxies"] == 1000
    assert budget.asked["value"] == pytest.approx(loss(law, 1000), rel=1e-2)
    assert budget.doubling["value"] == pytest.approx(loss(law, 2000) / loss(law, 1000) - 1, abs=1e-2)
    assert budget.doubling["low"] <= budget.doubling["value"] <= budget.doubling["high"]
    nothing = exact(law, halved(5))
    assert nothing.asked is None
    assert nothing.doubling["value"] == pytest.approx(loss(law, 2 * NOW) / loss(law, NOW) - 1, abs=1e-2)
    for galaxies in (NOW // 16 - 1, REACH * NOW + 1):
        with pytest.raises(BadInput, match=f"{galaxies} galaxies: the pilot has {NOW // 16} to {NOW}"):
            exact(law, halved(5), galaxies=galaxies)


@pytest.mark.parametrize(
    ("target", "ends", "says"),
    [
        (0.07, "None None", "out of reach"),
        (0.2, "number number", "already reached"),
    ],
)
def test_a_target_below_the_floor_is_out_of_reach_and_one_above_the_loss_is_reached(target, ends, says):
    budget = exact(FLOOR, halved(6), target)
    needed = budget.galaxies_for
    assert ["None" if needed[end] is None else "number" for end in ("low", "high")] == ends.split()
    assert says in sentences_of(budget)[1]
    assert budget.doubts == []


def test_what_a_pilot_cannot_tell_is_said_without_a_number_that_has_no_interval():
    points = pilot(np.random.default_rng(1), (0.15, 0.3, 0), halved(4))
    budget = budget_of(points, 0.08)
    needed, answer = budget.galaxies_for, sentences_of(budget)[1]
    assert needed["low"] > NOW
    assert needed["high"] is None
    assert "at least" in answer
    assert "do not exclude that the loss never falls to it" in answer
    assert "about" not in answer
    assert any(doubt.startswith("whether a loss remains") for doubt in budget.doubts)
    assert not budget.floor_shown
    far = NOW * REACH * 10
    assert exact((0.15, 0.2, 0), halved(6), loss((0.15, 0.2, 0), far)).galaxies_for == dict.fromkeys(needed)

    near = budget_of(points, points.loc[points["galaxies"] == NOW, "loss"].mean())
    assert "may already be reached" in sentences_of(near)[1]


def test_runs_no_better_than_a_constant_are_named():
    points = pilot(np.random.default_rng(1), FLOOR, halved(5)).assign(baseline=0.3)
    budget = budget_of(points)
    assert points.groupby("galaxies")["loss"].mean()[25] > 0.3
    assert any("25 galaxies" in doubt and "no better than a constant" in doubt for doubt in budget.doubts)
    assert budget.galaxies_for is None


def test_what_is_held_back_is_not_fitted():
    points = pilot(np.random.default_rng(5), FLOOR, halved(6))
    budget = budget_of(points, hold_back=2)
    assert budget.now == 100
    assert [point["galaxies"] for point in budget.points] == [12, 25, 50, 100]
    assert [held["galaxies"] for held in budget.held_back] == [200, 400]
    without = budget_of(points[points["galaxies"] <= 100])
    assert without.ahead == budget.ahead
    assert [held["predicted"] for held in budget.held_back] == [row["value"] for row in without.ahead[1:3]]

    # What is measured elsewhere is outside, and nothing else changes.
    other = points.copy()
    moved = other["galaxies"] == 400
    other.loc[moved, "loss"] *= 3
    other["replicates"] = [3 * each if far else each for each, far in zip(other["replicates"], moved, strict=True)]
    worse = budget_of(other, hold_back=2)
    assert [held["inside"] for held in worse.held_back] == [True, False]
    assert "OUTSIDE" in sentences_of(worse)[-1]
    assert worse.ahead == budget.ahead


def test_held_back_runs_are_predicted_as_any_other_held_out_runs_are():
    rng = np.random.default_rng(7)
    points = pilot(rng, (0.1, 0.5, 0.1), halved(5), seeds=1, scatter=0.001, test=100)
    points["loss"] = loss((0.1, 0.5, 0.1), points["galaxies"]) * (1 + 1e-3 * rng.standard_normal(len(points)))
    points["replicates"] = [np.full(200, each) for each in points["loss"]]
    budget = budget_of(points, hold_back=1)
    assert budget.floor_shown, "one law predicts, as in leave_out"
    (held,) = budget.held_back
    columns = (points[name].to_numpy() for name in ("galaxies", "loss", "seed"))
    left = leave_out(*columns, galaxies=np.stack(points["replicates"]))
    assert (held["low"], held["high"]) == pytest.approx(left.interval, rel=1e-12)


def test_the_page_says_so_when_what_was_held_back_came_out_otherwise():
    points = pilot(np.random.default_rng(5), FLOOR, halved(6))
    moved = points["galaxies"] == 400
    points.loc[moved, "loss"] *= 3
    points["replicates"] = [3 * each if far else each for each, far in zip(points["replicates"], moved, strict=True)]
    budget = budget_of(points, hold_back=2)
    page = page_of(budget, "figure.png", "what it shows", "python x.py")
    assert all(sentence in page for sentence in sentences_of(budget))
    assert re.search(r"not fitted: 2\..* inside .* for 1, and outside for 1\.", page)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    rows = {cells[0]: cells for cells in rows if len(cells) == 5}
    for held, verdict in zip(budget.held_back, ("inside", "outside"), strict=True):
        cells = rows[str(held["galaxies"])]
        assert cells[-1] == verdict
        ends = [held["predicted"], held["low"], held["high"], held["measured"]]
        predicted = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", cells[1]).groups()
        assert list(map(float, [*predicted, cells[2]])) == pytest.approx(ends, rel=5e-3)
        assert list(map(float, cells[3].split(", "))) == pytest.approx(held["runs"], rel=5e-3)
    without = page_of(budget_of(points), "figure.png", "what it shows", "python x.py")
    assert "held back" not in without.lower()


def test_a_series_is_of_runs_of_one_kind():
    points = pilot(np.random.default_rng(0), FLOOR, halved(4), test=50)
    nll = points.assign(measure="nll")
    both = pd.concat([points, nll])
    assert series_of(both).index.tolist() == points.index.tolist()
    assert set(series_of(both, measure="nll")["measure"]) == {"nll"}
    votes = pd.concat(
        [nll.assign(figure=question) for question in ("all", "bar")] + [points.assign(measure="rmse", figure="bar")]
    )
    assert set(series_of(votes)["figure"]) == {"all"}
    with pytest.raises(BadInput, match="2 kinds of measure: choose --measure nll or rmse"):
        series_of(votes, question="bar")
    with pytest.raises(BadInput, match="2 kinds of backbone: choose --backbone resnet18 or test_resnet"):
        series_of(pd.concat([points, points.assign(backbone="resnet18")]))
    with pytest.raises(BadInput, match="--start nowhere: was not measured; choose survey"):
        series_of(points, start="nowhere")
    with pytest.raises(BadInput, match="--question bulge: was not measured; choose all, bar"):
        series_of(votes, question="bulge", measure="nll")
    with pytest.raises(BadInput, match="run 0 and other have the same galaxies and seed"):
        series_of(pd.concat([points, points[:1].assign(run="other")]))


def test_too_few_runs_are_refused():
    points = pilot(np.random.default_rng(0), FLOOR, halved(4), test=500)
    for held in (2, -1):
        with pytest.raises(BadInput, match=f"--hold-back {held}: the runs have 4 different numbers"):
            budget_of(points, hold_back=held)
    with pytest.raises(BadInput, match="3 runs: are too few"):
        budget_of(points[points["seed"] == 0], hold_back=1)
    for target in (0, -1, float("nan")):
        with pytest.raises(BadInput, match="give a loss above 0"):
            budget_of(points, target)


@pytest.fixture
def sweep(tmp_path):
    """The folder of a pilot's sweep."""
    for row in pilot(np.random.default_rng(2), FLOOR, halved(5)).to_dict("records"):
        again = row["replicates"].tolist()
        RunRecord(
            command="python scripts/finetune.py", settings={"seed": row["seed"], "task": "classes"}, finished=True,
            dataset={"name": "rings", "splits": {"train": row["galaxies"]}},
            model={"start": "runs/survey", "backbone": "test_resnet", "parameters": {"backbone": 1000, "head": 10}, "flops": 1},
            training={"best_epoch": 3, "seconds": 1.0},
            results={"test": {
                "galaxies": 1000, "loss": {"model": 2 * row["loss"], "baseline": 1.4},
                "accuracy": {"model": 1 - row["loss"], "baseline": 0.5},
                "bootstrap": {"loss": {"model": again}, "accuracy": {"model": [1 - error for error in again]}},
            }},
        ).save(tmp_path / "pilot" / row["run"])  # fmt: skip
    return tmp_path / "pilot"


def test_the_script_prints_what_the_runs_say(sweep, run_script):
    done = run_script("label_budget", "--runs", sweep, "--target", 0.1, "--hold-back", 1)
    budget = budget_of(series_of(points_of(records_in(sweep))), 0.1, 1)
    for sentence in sentences_of(budget):
        assert sentence in done.stdout
    for row, times in zip(budget.ahead, ("now", "2 x", "4 x", "8 x"), strict=True):
        assert f"{row['galaxies']:,} ({times})" in done.stdout
        assert f"{number(row['low'])} to {number(row['high'])}" in done.stdout


def test_the_script_writes_what_it_says(sweep, run_script, tmp_path):
    out = tmp_path / "budget"
    run_script("label_budget", "--runs", sweep, "--target", 0.1, "--out", out)
    assert {file.suffix for file in out.iterdir()} == {".json", ".png", ".csv", ".md"}
    budget = budget_of(series_of(points_of(records_in(sweep))), 0.1)
    written = budget.as_dict() | {"sentences": sentences_of(budget)}
    assert json.loads((out / "budget.json").read_text()) == json.loads(json.dumps(written))
    page = (out / "README.md").read_text()
    assert "label_budget.py --runs" in page
    assert (out / re.search(r"^!\[.+\]\((.+)\)$", page, re.M)[1]).exists()
    again = run_script("label_budget", "--runs", sweep, "--out", out, expect=1)
    assert "exists already" in again.stderr
