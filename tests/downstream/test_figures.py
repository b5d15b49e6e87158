"""Figures of a downstream benchmark: their tables hold the results and no other numbers; whatever lacks, the rest is drawn."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_galaxy.downstream.figures import figures_of
from hf_galaxy.downstream.results import results_of
from hf_galaxy.reports.charts import COLORS
from tests.downstream.cells import SHARES, STARTS, TASKS, about, cells

NAMES = ["labels-linear", "labels-full", "reductions-linear", "reductions-full", "linear-against-full"]


def drawn(measured, description):
    results = json.loads(json.dumps(results_of(measured, description), allow_nan=False))
    return results, {figure.name: figure for figure in figures_of(results, description)}


def table(figure):
    return pd.read_csv(io.StringIO(figure.csv))


def colored(figure, color):
    """How many pixels have this colour."""
    picture = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
    assert picture.shape[1] == 1600
    return (picture == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).sum()


@pytest.fixture(scope="module")
def everything():
    return drawn(cells(noise=0.04), about())


def test_a_page_shows_them_in_this_order(everything):
    _, figures = everything
    assert [*figures] == NAMES
    for name, figure in figures.items():
        for color in COLORS:
            # The reference is 0 where all are compared with it; its colour marks larger errors there.
            assert colored(figure, color) > 100, (name, color)


def test_curves_are_the_means(everything):
    results, figures = everything
    for mode in ("linear", "full"):
        rows = table(figures[f"labels-{mode}"]).set_index(["task", "start", "share"])
        means = [each for each in results["means"] if each["main"] and each["mode"] == mode]
        assert len(rows) == len(means) == (5 * len(STARTS) - 2) * len(SHARES)
        for mean in means:
            row = rows.loc[(mean["task"], mean["start"], mean["share"])]
            assert [row[key] for key in ("value", "low", "high", "galaxies")] == [
                mean[key] for key in ("value", "low", "high", "galaxies")
            ]


def test_reductions_are_those_of_the_results_with_most_and_fewest_labels(everything):
    results, figures = everything
    rows = table(figures["reductions-full"]).set_index(["task", "start", "share"])
    expected = {
        (row.get("task", "average"), row["start"], row["share"]): row
        for row in results["reductions"] + results["averages"]
        if row.get("main", row.get("family") == "headline")
        and row["mode"] == "full"
        and row["share"] in (SHARES[0], SHARES[-1])
    }
    assert set(rows.index) == set(expected)
    for key, own in expected.items():
        assert rows.loc[key, ["value", "low", "high", "error"]].tolist() == [
            own[k] for k in ("value", "low", "high", "error")
        ]
    assert rows.loc[("average", "mixed", 1.0), "tasks"] == 4
    best = expected["average", "mixed", 1.0]
    assert f" to {100 * best['value']:.1f} % (mixed)." in figures["reductions-full"].alt
    assert max(len(figure.alt) for figure in figures.values()) < 260


def test_linear_against_full_is_that_of_the_results(everything):
    results, figures = everything
    rows = table(figures["linear-against-full"])
    ratios = {(row["task"], row["start"]): row for row in results["linear"] if row["share"] == 1}
    assert len(rows) == len(ratios) == 5 * len(STARTS) - 2
    for row in rows.itertuples():
        own = ratios[row.task, row.start]
        assert (row.ratio, row.ratio_low, row.ratio_high) == (own["value"], own["low"], own["high"])
        assert row.ratio == pytest.approx(row.linear / row.full)


def test_what_lacks_is_left_out():
    measured = cells(tasks=("rings",), seeds=(1,), shares=(1.0,), modes=("linear",), starts=("imagenet", "gz2_votes"))
    _, figures = drawn(measured, about())
    assert [*figures] == ["labels-linear", "reductions-linear"]
    rows = table(figures["reductions-linear"])
    assert rows["task"].tolist() == ["rings"], "the average of one task is that task"
    assert rows["low"].isna().all()
    _, figures = drawn([cell for cell in measured if cell["start"] == "imagenet"], about())
    assert [*figures] == ["labels-linear"]


def test_a_start_without_any_error_is_drawn():
    measured = cells(tasks=("gz1",), starts=("imagenet", "gz2_votes"), shares=SHARES[-2:])
    for cell in measured:
        if cell["start"] == "gz2_votes" and cell["share"] == 1:
            cell["figures"]["error"] |= {"model": 0.0, "replicates": [0.0] * 50}
    results, figures = drawn(measured, about())
    assert [*figures] == NAMES
    assert set(table(figures["linear-against-full"])["start"]) == {"imagenet"}, "0 / 0 is not known"
    (row,) = (
        row for row in results["reductions"] if row["main"] and (row["mode"], row["share"]) == ("full", 1.0)
    )  # fmt: skip
    assert row["value"] == 1


def test_titles_that_are_alike_when_cut_short_give_way_to_names():
    description = about(tasks=("gz1",), starts=("imagenet", "gz2_votes", "mock"))
    for name in ("gz2_votes", "mock"):
        description["starts"][name]["title"] = f"{'a very long history of pretraining, ' * 4}{name}"
    _, figures = drawn(cells(tasks=("gz1",), starts=description["starts"], seeds=(1, 2)), description)
    assert len(figures) == 5
    assert set(TASKS) > set(table(figures["labels-full"])["task"])
