"""What a downstream benchmark says, against cells whose truth is known and against brute force."""

import json

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from hf_galaxy.benchmark_results import (
    draws_of,
    falling,
    galaxies_for,
    points_of,
    read_about,
    read_cells,
    results_of,
)  # fmt: skip
from hf_galaxy.errors import BadInput
from tests import benchmark_cells as made


def one(rows, **which):
    (row,) = [row for row in rows if which.items() <= row.items()]
    return row


@pytest.fixture(scope="module")
def results():
    return results_of(made.cells(), made.about())


def test_reductions_lie_around_the_truth(results):
    for task in made.TASKS:
        for start, (_, factor, learnt) in made.STARTS.items():
            if start == "imagenet" or task in learnt:
                continue
            row = one(results["reductions"], task=task, start=start, mode="linear", share=0.25, main=True)
            assert row["value"] == pytest.approx(1 - factor, abs=0.08)
            assert row["low"] < row["value"] < row["high"]
            assert row["error"] == ("less" if row["low"] > 0 else "more" if row["high"] < 0 else "not shown")


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Of 90 % intervals; those of few seeds are a little too wide, never much too narrow."""
    held = []
    for seed in range(60):
        few = dict(tasks=["gz1", "rings"], starts=["imagenet", "gz2_votes"], shares=[1.0])
        found = results_of(made.cells(**few, modes=["full"], seed=seed), made.about(**few))
        rows = [*(row for row in found["reductions"] if row["main"]), *found["averages"]]
        held.append([row["low"] <= 0.25 <= row["high"] for row in rows])
    shares = np.mean(held, axis=0)
    assert len(shares) == 3
    assert (shares > 0.8).all(), shares


def test_two_equal_starts_differ_by_nothing():
    cells = made.cells(starts=["imagenet", "gz2_votes"])
    ours = {(c["task"], c["mode"], c["share"], c["seed"]): c for c in cells if c["start"] == "imagenet"}
    for cell in cells:
        cell["figures"] = ours[cell["task"], cell["mode"], cell["share"], cell["seed"]]["figures"]
    found = results_of(cells, made.about(starts=["imagenet", "gz2_votes"]))
    for row in found["reductions"] + found["averages"]:
        assert row["value"] == pytest.approx(0, abs=1e-12)
        assert abs(row["low"]) < 1e-9
        assert abs(row["high"]) < 1e-9
        assert row["error"] == "not shown"


def test_paired_intervals_are_narrower_than_those_of_independent_draws():
    few = dict(tasks=["gz1"], starts=["imagenet", "gz2_votes"], shares=[1.0])
    paired, unpaired = [], []
    for seed in range(20):
        cells = made.cells(**few, modes=["full"], seed=seed)
        row = one(results_of(cells, made.about(**few))["reductions"], measure="error")
        paired.append(row["high"] - row["low"])
        alone = []
        for start in few["starts"]:
            figures = [cell["figures"]["error"] for cell in cells if cell["start"] == start]
            values, again = np.array([f["model"] for f in figures]), np.array([f["replicates"] for f in figures])
            alone.append(draws_of(values[None], again[None], np.random.default_rng(len(alone)))[0])
        unpaired.append(np.ptp(np.quantile(1 - alone[1] / alone[0], [0.05, 0.95])))
    assert np.median(paired) < 0.6 * np.median(unpaired)


def test_one_seed_has_no_interval():
    cells = made.cells(seeds=[1])
    found = results_of(cells, made.about(seeds=[1]))
    for row in found["reductions"] + found["averages"] + found["linear"] + found["means"]:
        assert row["low"] is None
        assert row["high"] is None
        assert row.get("error", "not known") == "not known"


def test_an_average_is_the_mean_of_its_tasks_and_says_which(results):
    row = one(results["averages"], start="mixed", mode="full", share=1.0)
    assert row["tasks"] == ["gz1", "merger", "rings", "hart"]
    assert row["without"] == ["ceers"]
    each = [
        one(results["reductions"], task=t, start="mixed", mode="full", share=1.0, main=True)["value"]
        for t in row["tasks"]
    ]
    assert row["value"] == pytest.approx(np.mean(each), abs=1e-12)


def test_linear_probes_are_compared_with_full_finetuning(results):
    row = one(results["linear"], task="gz1", start="imagenet", share=1.0)
    assert row["value"] == pytest.approx(made.WORSE, rel=0.05)
    assert one(results["linear_averages"], start="imagenet", share=1.0)["error"] == "more"


def test_labels_needed_are_those_of_the_power_law(results):
    """The truth falls as galaxies^-FALLS, so a start with f of the loss needs f^(1 / FALLS) of the galaxies."""
    row = one(results["labels"], task="gz1", start="gz2_votes", mode="full")
    needed = 0.75 ** (1 / made.FALLS)
    assert row["galaxies"]["value"] == pytest.approx(4645 * needed, rel=0.25)
    assert row["factor"]["value"] == pytest.approx(1 / needed, rel=0.25)
    assert row["galaxies"]["low"] < row["galaxies"]["value"] < row["galaxies"]["high"]
    assert one(results["labels"], task="gz1", start="random", mode="full")["galaxies"]["value"] == "more"


def test_curves_that_may_not_rise_are_scipys_isotonic_regression():
    curves = np.random.default_rng(0).normal(size=(20, 6)) - np.arange(6) / 2
    theirs = [isotonic_regression(curve, increasing=False).x for curve in curves]
    np.testing.assert_allclose(falling(curves), theirs, atol=1e-12)


def test_galaxies_are_interpolated_between_measured_sizes_and_never_beyond():
    sizes, curve = np.array([10.0, 100.0, 1000.0]), np.log([[0.8, 0.4, 0.2]])
    for target, galaxies in ((0.8, -np.inf), (0.4, 100), (0.1, np.inf), (0.4 * 2**0.5, 10**1.5), (0.2, 1000)):
        assert galaxies_for(sizes, curve, np.log([target])) == pytest.approx(galaxies, rel=1e-9)


def test_points_are_one_for_each_cell_and_figure():
    cells = made.cells(tasks=["merger"], shares=[1.0], seeds=[1])
    points = points_of(cells, made.about())
    assert len(points) == sum(len(cell["figures"]) for cell in cells)
    assert set(points[points["main"]]["measure"]) == {"balanced_error"}
    holes = points[points["measure"] == "missed_precision"]["replicates"].iloc[0]
    assert np.isnan(holes[0])
    assert np.isfinite(holes[1:]).all()


def test_what_is_not_measured_is_said(results):
    assert results["data"]["missing"] == []
    assert results["data"]["learnt_from"] == ["ceers on ceers", "mixed on ceers"]
    found = results_of([c for c in made.cells() if (c["start"], c["mode"]) != ("mock", "full")], made.about())
    assert found["data"]["missing"] == ["mock, full: 0 of 60 cells are there"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "bars"}, "its task bars is not among those of benchmark.json"),
        ({"measure": "nll"}, "lacks the measure of its task, error"),
        ({"galaxies": 7}, "are not of the same galaxies"),
        (
            {"figures": {"error": {"model": -1, "replicates": [1.0]}}},
            "error is -1, but losses are numbers of 0 or more",
        ),
        ({"seed": "1"}, "is broken, as its seed is missing or of a wrong kind"),
    ],
)
def test_broken_cells_are_named(tmp_path, change, message):
    few = dict(tasks=["gz1"], starts=["imagenet", "gz2_votes"], shares=[1.0], seeds=[1])
    cells = made.cells(**few, modes=["full"])
    made.write(tmp_path, cells, made.about(**few))
    about = read_about(tmp_path / "benchmark.json")
    assert len(read_cells(tmp_path / "cells", about)) == 2
    file = next((tmp_path / "cells/gz1/gz2_votes").iterdir())
    file.write_text(json.dumps(cells[1] | change))
    with pytest.raises(BadInput, match=message):
        read_cells(tmp_path / "cells", about)
    file.write_text("{")
    with pytest.raises(BadInput, match=f"{file.name}: cannot be read as JSON"):
        read_cells(tmp_path / "cells", about)
