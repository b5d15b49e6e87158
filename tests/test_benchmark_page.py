"""The page of a downstream benchmark is made of its results alone, and its table is a dataset."""

import json

import datasets
import pytest

from hf_galaxy.benchmark_page import MADE, benchmark_page, reduction_table, write_results
from hf_galaxy.benchmark_results import results_of
from hf_galaxy.errors import BadInput
from tests import benchmark_cells as made


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    about = made.about()
    for start in about["starts"].values():
        start |= {"pretraining": [], "looked": True}
    about["fixed"] |= {"linear": "to the optimum", "full": "AdamW", "backbone": "one"}
    for task in about["tasks"].values():
        task["folds"] = True
    made.write(folder, made.cells(), about)
    write_results(folder)
    return folder


def test_everything_that_was_found_is_written(written):
    page = (written / "README.md").read_text()
    figures = {path.stem for path in written.glob("*.png")}
    assert figures == {"labels-linear", "labels-full", "reductions-linear", "reductions-full", "linear-against-full"}
    for figure in figures:
        assert f"({figure}.png)" in page
        assert (written / f"{figure}.csv").stat().st_size > 100
    assert MADE in page
    assert "None" not in page
    assert "Not yet measured" not in page
    assert "ceers on ceers" in page


def test_the_table_loads_as_a_dataset(written):
    points = datasets.load_dataset(str(written), split="train")
    assert len(points) == sum(len(cell["figures"]) for cell in made.cells())
    assert len(points[0]["replicates"]) == 50


def test_numbers_of_the_page_are_those_of_the_results(written):
    results = json.loads((written / "results.json").read_text())
    best = max(
        (r for r in results["averages"] if (r["mode"], r["share"]) == ("full", 1.0)),
        key=lambda r: (len(r["tasks"]), r["value"]),
    )
    assert best["start"] == "gz2_votes", "mixed, which is better, was measured on fewer tasks"
    told = f"cuts the error of ImageNet by {100 * best['value']:.1f} % ({100 * best['low']:.1f} % to {100 * best['high']:.1f} %) on average over 5 tasks"
    assert told in (written / "README.md").read_text()


def test_a_start_that_loses_stands_in_bold_as_one_that_wins():
    about = made.about()
    rows = reduction_table(results_of(made.cells(), about), about, "full").splitlines()
    random, votes = (
        next(row for row in rows if f"| all | {made.STARTS[start][0]} |" in row) for start in ("random", "gz2_votes")
    )
    assert "**-60." in random or "**-59." in random
    assert "**2" in votes


def test_an_unfinished_benchmark_says_what_is_missing(tmp_path):
    about = json.loads(json.dumps(made.about()))
    cells = [c for c in made.cells(seeds=[1]) if c["mode"] == "linear"]
    for start in about["starts"].values():
        start |= {"pretraining": [], "looked": False}
    for task in about["tasks"].values():
        task["folds"] = False
    about["fixed"] |= {"linear": "to the optimum", "full": "AdamW", "backbone": "one"}
    page = benchmark_page(results_of(cells, about), about, {})
    assert "imagenet, linear: 20 of 60 cells are there" in page
    assert "Linear probes against full" not in page
    assert "could not be looked up" in page
    assert "(- to -)" not in page


def test_somebody_elses_page_is_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(BadInput, match=r"its README.md was not made by a benchmark"):
        write_results(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
