"""The results of a downstream benchmark agree with the truth that its cells were simulated from, as often as its intervals promise."""

import copy
import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import isotonic_regression

from hf_galaxy.downstream.cell_files import read_about, read_cells
from hf_galaxy.downstream.label_efficiency import FEWER, MORE, falling, galaxies_for
from hf_galaxy.downstream.results import points_of, results_of
from hf_galaxy.errors import BadInput
from tests.downstream.cells import FALLS, SEEDS, SHARES, STARTS, TASKS, WORSE, about, cells, truth, write

PAIR = ("imagenet", "gz2_votes")


@pytest.fixture(scope="module")
def results():
    return json.loads(json.dumps(results_of(cells(), about()), allow_nan=False))


def of(rows, **keys):
    return [row for row in rows if keys.items() <= row.items()]


def one(rows, **keys):
    (row,) = of(rows, **keys)
    return row


# Labels


def test_falling_curves_are_those_of_scipy():
    curves = np.random.default_rng(0).standard_normal((50, 7))
    expected = [isotonic_regression(curve, increasing=False).x for curve in curves]
    np.testing.assert_allclose(falling(curves), expected)


def test_galaxies_are_read_from_the_power_law_between_two_sizes():
    sizes = np.array([10.0, 100.0, 1000.0])
    logs = np.log(3 * sizes**-0.5)
    targets = np.log(3 * np.array([9.0, 20.0, 100.0, 555.0, 1000.0, 1001.0]) ** -0.5)
    reached = galaxies_for(sizes, np.tile(logs, (6, 1)), targets)
    np.testing.assert_allclose(reached, [-np.inf, 20, 100, 555, 1000, np.inf])
    flat = galaxies_for(sizes, np.log([[2.0, 1.0, 1.0]]), np.zeros(1))
    assert flat == [pytest.approx(100)], "where it first gets there"


def test_labels_needed_are_those_of_the_law():
    labels = results_of(cells(tasks=("gz1",), starts=("imagenet", "gz2_votes", "ceers"), noise=1e-4), about())["labels"]
    for mode in ("linear", "full"):
        row = one(labels, start="gz2_votes", mode=mode)
        factor = (STARTS["imagenet"][1] / STARTS["gz2_votes"][1]) ** (1 / FALLS)
        assert row["factor"]["value"] == pytest.approx(factor, rel=0.02)
        assert row["galaxies"]["value"] == pytest.approx(TASKS["gz1"][4] / factor, rel=0.02)
        assert row["galaxies"]["low"] <= row["galaxies"]["value"] <= row["galaxies"]["high"]
        assert row["target"] == pytest.approx(truth("gz1", "imagenet", mode, 1), rel=0.01)
        worse = one(labels, start="ceers", mode=mode)
        assert worse["galaxies"] == {"value": MORE, "low": MORE, "high": MORE}
        assert worse["factor"] == {"value": FEWER, "low": FEWER, "high": FEWER}


def test_a_start_that_needs_less_than_was_measured_and_one_that_is_the_reference():
    measured = cells(tasks=("gz1",), starts=PAIR, noise=0.05)
    twins = [{**cell, "start": "mock"} for cell in measured if cell["start"] == "imagenet"]
    for cell in measured:
        if cell["start"] == "gz2_votes":
            figure = cell["figures"]["error"]
            figure |= {"model": figure["model"] / 9, "replicates": [value / 9 for value in figure["replicates"]]}
    results = results_of(measured + twins, about())
    row = one(results["labels"], start="gz2_votes", mode="full")
    assert set(row["galaxies"].values()) == {FEWER}
    assert set(row["factor"].values()) == {MORE}
    same = one(results["labels"], start="mock", mode="full")
    assert set(same["factor"].values()) == {1.0}, "whatever the noise of its curve"
    for row in of(results["reductions"], start="mock"):
        assert row["low"] == row["value"] == row["high"] == 0
        assert row["error"] == "not shown"


# Results of whole benchmarks


def test_every_reduction_and_average_is_that_of_the_truth(results):
    rows = of(results["reductions"], main=True)
    inside = []
    for row in rows:
        true = 1 - STARTS[row["start"]][1]
        assert row["value"] == pytest.approx(true, abs=0.15)
        assert row["low"] < row["value"] < row["high"]
        inside.append(row["low"] <= true <= row["high"])
    assert 0.8 < np.mean(inside) < 0.98
    averages = of(results["averages"], family="headline")
    for row in averages:
        own = of(rows, **{key: row[key] for key in ("start", "mode", "share")})
        assert row["tasks"] == [each["task"] for each in own]
        assert row["without"] == STARTS[row["start"]][2]
        assert row["value"] == pytest.approx(np.mean([each["value"] for each in own]))
        assert row["high"] - row["low"] < np.mean([each["high"] - each["low"] for each in own])
        assert row["error"] == ("less" if STARTS[row["start"]][1] < 1 else "more")
    assert len(averages) == (len(STARTS) - 1) * 2 * len(SHARES)


def test_an_average_of_a_family_is_that_of_its_measures(results):
    own = {"start": "mock", "mode": "full", "share": 1.0}
    averages = {row["family"]: row for row in of(results["averages"], **own)}
    measures = {family: row["measures"] for family, row in averages.items()}
    assert measures["headline"] == ["error", "balanced_error", "error", "excess", "excess"]
    assert measures["likelihood"] == ["nll", "nll", "nll", "excess", "excess"]
    assert averages["balanced"]["tasks"] == ["gz1", "merger", "rings"], "the votes of these cells have no RMSE"
    for row in averages.values():
        reductions = [
            one(results["reductions"], task=task, measure=measure, **own)
            for task, measure in zip(row["tasks"], row["measures"], strict=True)
        ]
        assert row["value"] == pytest.approx(np.mean([each["value"] for each in reductions]))
    fewer = of(results["averages"], start="mock", mode="full", share=0.25)
    assert [row["family"] for row in fewer] == ["headline"], "the others with all labels"


def test_a_loss_is_compared_with_the_constant(results):
    for row in of(results["means"], main=True, start="mock"):
        gain = row["constant"]
        assert gain["value"] == pytest.approx(1 - row["value"] / row["baseline"])
        assert gain["low"] < gain["value"] < gain["high"]
    assert (
        one(results["means"], task="gz1", start="mock", mode="full", share=1.0, main=True)["constant"]["error"]
        == "less"
    )
    assert (
        one(results["means"], task="ceers", start="random", mode="full", share=1.0, main=True)["constant"]["error"]
        == "more"
    )


def test_pretrainings_widen_intervals_and_are_numbered():
    measured, description = cells(tasks=("gz1",), starts=PAIR, seeds=(1, 2, 3, 4)), about(seeds=(1, 2, 3, 4))
    once = results_of(measured, description)
    assert once["data"]["pretrainings"]["gz2_votes"] == 1
    description["starts"]["gz2_votes"]["weights"] = ["a", "b"]
    for cell in measured:
        cell["pretraining"] = 1 + (cell["seed"] - 1) % 2 if cell["start"] == "gz2_votes" else 1
    twice = results_of(measured, description)
    assert twice["data"]["pretrainings"]["gz2_votes"] == 2
    widths = [
        np.mean([row["high"] - row["low"] for row in of(each["reductions"], main=True)]) for each in (once, twice)
    ]
    assert widths[1] > 1.3 * widths[0], "two pretrainings are two units, however many seeds"
    assert set(points_of(measured, description)["pretraining"]) == {1, 2}


def test_values_are_plain_arithmetic_of_the_cells(results):
    measured = cells()
    losses = {
        tuple(cell[key] for key in ("task", "start", "mode", "share", "seed")): cell["figures"][cell["measure"]][
            "model"
        ]
        for cell in measured
    }

    def mean(*key):
        return np.mean([losses[(*key, seed)] for seed in SEEDS])

    for row in of(results["means"], main=True):
        key = row["task"], row["start"], row["mode"], row["share"]
        assert row["value"] == pytest.approx(mean(*key))
        assert row["runs"] == [losses[(*key, seed)] for seed in SEEDS]
        assert row["low"] < row["value"] < row["high"]
    row = one(results["reductions"], task="hart", start="mock", mode="full", share=0.25, main=True)
    assert row["value"] == pytest.approx(
        1 - mean("hart", "mock", "full", 0.25) / mean("hart", "imagenet", "full", 0.25)
    )
    row = one(results["linear"], task="hart", start="mock", share=0.25)
    assert row["value"] == pytest.approx(mean("hart", "mock", "linear", 0.25) / mean("hart", "mock", "full", 0.25))
    other = one(results["means"], measure="missed_precision", start="mock", mode="full", share=1.0)
    assert other["low"] < other["value"] < other["high"], "one replicate of fifty is not defined"
    assert not other["main"]


def test_linear_against_full_is_that_of_the_truth(results):
    averages = of(results["linear_averages"], share=1.0)
    assert [row["start"] for row in averages] == [*STARTS]
    assert np.mean([row["low"] <= WORSE <= row["high"] for row in averages]) > 0.7
    assert {row["error"] for row in results["linear_averages"]} <= {"more", "not shown"}


def test_an_average_holds_tasks_with_galaxies_in_common_together():
    # The same galaxies with the same luck in two tasks: their average is as uncertain as each; with galaxies of their own, less.
    measured = cells(tasks=("gz1", "rings"), starts=PAIR, shares=(1.0,), modes=("full",), noise=0.0, replicates=2000)
    rng = np.random.default_rng(0)
    widths = []
    for common in (True, False):
        luck = {task: np.exp(0.1 * rng.standard_normal(2000)) for task in ("gz1", "rings")}
        for cell in measured:
            own = luck["gz1" if common else cell["task"]]
            error = cell["figures"]["error"]
            error["replicates"] = list(error["model"] * (own if cell["start"] == "gz2_votes" else np.ones(2000)))
        (average,) = of(results_of(measured, about())["averages"], family="headline")
        widths.append(average["high"] - average["low"])
    assert widths[0] == pytest.approx(2 * 1.645 * 0.1 * 0.75, rel=0.1)
    assert widths[1] == pytest.approx(widths[0] / 2**0.5, rel=0.1)


def test_one_seed_has_values_and_no_intervals():
    results = results_of(cells(seeds=(1,)), about(seeds=(1,)))
    for name in ("means", "reductions", "averages", "linear", "linear_averages"):
        assert {row["low"] for row in results[name]} == {None}
        assert None not in {row["value"] for row in results[name]}
    assert {row["error"] for row in results["reductions"]} == {"not known"}
    assert {row["factor"]["low"] for row in results["labels"]} == {None}


def test_unequal_seeds_are_compared_where_both_are():
    measured = [
        cell for cell in cells(tasks=("gz1",), starts=PAIR) if (cell["start"], cell["seed"]) != ("gz2_votes", 2)
    ]
    results = results_of(measured, about())
    assert {row["seeds"] for row in results["reductions"]} == {2}
    assert {row["seeds"] for row in of(results["means"], start="imagenet")} == {3}
    assert "gz2_votes, full: 8 of 60 cells are there" in results["data"]["missing"]
    assert "mixed, linear: 0 of 48 cells are there" in results["data"]["missing"], (
        "of four tasks, as it was pretrained with one"
    )
    assert "ceers on ceers" in results["data"]["learnt_from"]
    alone = results_of([cell for cell in measured if cell["start"] != "imagenet"], about())
    assert alone["reductions"] == alone["averages"] == alone["labels"] == []


def test_a_figure_that_is_seldom_defined_has_no_interval():
    measured = cells(tasks=("merger",), starts=PAIR)
    for cell in measured:
        cell["figures"]["missed_precision"]["replicates"][:8] = [None] * 8
    rows = of(results_of(measured, about())["reductions"], measure="missed_precision")
    assert {row["low"] for row in rows} == {None}
    assert {row["error"] for row in rows} == {"not known"}


def test_labels_saved_are_those_of_the_law():
    labels = results_of(cells(tasks=("gz1",), starts=("imagenet", "gz2_votes", "random"), noise=1e-4), about())[
        "labels"
    ]
    saved = TASKS["gz1"][4] * (1 - 0.75 ** (1 / FALLS))
    assert one(labels, start="gz2_votes", mode="full")["saved"]["value"] == pytest.approx(saved, rel=0.02)
    assert set(one(labels, start="random", mode="full")["saved"].values()) == {FEWER}


def test_choices_at_an_edge_are_counted_where_there_was_a_choice():
    measured = cells(tasks=("gz1",), starts=("imagenet",), shares=(1.0,), modes=("full",))
    for cell, (grid, chosen) in zip(measured, [("123", 1), ("123", 3), ("2", 2)], strict=True):
        cell |= {"grid": {rate: 0.5 for rate in grid}, "chosen": chosen}
    (row,) = results_of(measured, about())["choices"]
    assert {key: row[key] for key in ("cells", "choosing", "lowest", "highest", "chosen")} == {
        "cells": 3, "choosing": 2, "lowest": 1, "highest": 1, "chosen": {"1": 1, "2": 1, "3": 1},
    }  # fmt: skip
    points = points_of(measured, about())
    assert points[points["main"]]["edge"].tolist() == ["lowest", "highest", "none"]


def test_points_are_the_cells(tmp_path):
    measured = cells(tasks=("gz1", "merger"), starts=PAIR, shares=SHARES[-2:])
    folder = write(tmp_path, measured, about())
    points = points_of(read_cells(folder / "cells", read_about(folder / "benchmark.json")), about())
    expected = {
        (*(cell[key] for key in ("task", "start", "mode", "share", "seed")), name): figure
        for cell, (name, figure) in itertools.chain.from_iterable(
            itertools.product([cell], cell["figures"].items()) for cell in measured
        )
    }
    assert len(points) == len(expected)
    for row in points.itertuples():
        figure = expected[row.task, row.start, row.mode, row.share, row.seed, row.measure]
        assert (row.loss, row.baseline) == (figure["model"], figure["baseline"])
        np.testing.assert_array_equal(row.replicates, np.array(figure["replicates"], float))
    assert points["task"].drop_duplicates().tolist() == ["gz1", "merger"]
    shuffled = points_of(measured[::-1], about())
    pd.testing.assert_frame_equal(shuffled.drop(columns="replicates"), points.drop(columns="replicates"))


def test_broken_cells_are_named(tmp_path):
    measured = cells(tasks=("gz1",), starts=PAIR, shares=(1.0,), seeds=(1,))
    folder = write(tmp_path, measured, about())
    description = read_about(folder / "benchmark.json")
    file = folder / "cells/gz1/gz2_votes/full,share=1-1,seed=1.json"
    whole = json.loads(file.read_text())

    def refused(text, **changes):
        file.write_text(json.dumps(whole | changes))
        with pytest.raises(BadInput, match=text) as error:
            read_cells(folder / "cells", description)
        assert str(file) in str(error.value)

    refused("its seed is missing or of a wrong type", seed=None)
    refused("its start elsewhere is not among", start="elsewhere")
    refused("lacks the measure", figures={"nll": whole["figures"]["nll"]})
    refused("has no pretraining 2", pretraining=2)
    refused("not of the same galaxies", galaxies=7)
    refused("are the same cell", start="imagenet")
    for value in (-1.0, math.inf, None):
        figures = copy.deepcopy(whole["figures"])
        figures["error"]["model"] = value
        refused("losses are numbers of 0 or more", figures=figures)
    above = whole["figures"] | {"above_oracle": whole["figures"]["error"] | {"model": -0.003}}
    file.write_text(json.dumps(whole | {"figures": above}))
    read = [cell["figures"].get("above_oracle") for cell in read_cells(folder / "cells", description)]
    assert above["above_oracle"] in read, "by chance a model may be better than the oracle"
    refused("lacks the replicates", figures={"error": {"model": 0.1, "baseline": 0.2, "replicates": []}})
    file.write_text("{")
    with pytest.raises(BadInput, match="cannot be read as JSON"):
        read_cells(folder / "cells", description)
    with pytest.raises(BadInput, match="no cell"):
        read_cells(folder / "nowhere", description)
    (folder / "benchmark.json").write_text(json.dumps(about() | {"reference": "other"}))
    with pytest.raises(BadInput, match="not among the starts"):
        read_about(folder / "benchmark.json")
    leaked = write(tmp_path / "leaked", cells(tasks=("ceers",), starts=("imagenet",)), about())
    (cell,) = leaked.glob("cells/ceers/imagenet/full,share=1-1,seed=1.json")
    cell.write_text(json.dumps(json.loads(cell.read_text()) | {"start": "ceers"}))
    with pytest.raises(BadInput, match="ceers was pretrained with galaxies of ceers"):
        read_cells(leaked / "cells", about())
