"""What a study knows of the lengths of its trainings, in its table, in scaling.json and in a figure."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_galaxy.scaling.convergence import lengths_of, with_convergence
from hf_galaxy.scaling.length_figure import length_figures
from hf_galaxy.scaling.points import load_points, points_of, save_points
from tests.scaling.records import classed_records


@pytest.fixture
def records():
    """Two runs of which one has converged, and one of a single length."""
    records = classed_records(backbones={"test_resnet": 373_173}, sizes=(300, 1_000, 3_000), seeds=(1,))
    for name, losses, converged in (
        ("test_resnet/300/1", (1.5, 1.3, 1.31), True),
        ("test_resnet/1000/1", (1.2, 1.0), False),
    ):
        lengths = [{"epochs": 3.0 * 2**n, "validation_loss": loss} for n, loss in enumerate(losses)]
        records[name].training["convergence"] = {
            "gain": 0.005,
            "least": 0.2,
            "converged": converged,
            "lengths": lengths,
        }
    return records


def test_each_length_stands_beside_what_it_brought(records):
    few, more = lengths_of(points_of(records))
    assert (few["galaxies"], few["converged"], few["epochs"]) == (300, True, [3, 6, 12])
    assert few["pictures"] == [900, 1_800, 3_600]
    assert few["above"] == pytest.approx([1.3, 1.1, 1.11])
    assert few["least"] == 0.2
    assert (more["galaxies"], more["converged"], more["above"]) == (1_000, False, pytest.approx([1.0, 0.8]))


def test_the_table_of_points_keeps_the_lengths_and_older_tables_have_none(records, tmp_path):
    points = points_of(records)
    save_points(points, tmp_path / "points.parquet")
    again = load_points(tmp_path / "points.parquet")
    assert lengths_of(again) == lengths_of(points)
    older = again.drop(columns=["converged", "length_epochs", "length_losses", "length_least"])
    assert lengths_of(older) == []
    assert not with_convergence(older)["converged"].any()


def test_the_figure_has_a_line_for_each_run_and_marks_those_that_have_not_converged(records):
    (figure,) = length_figures({"lengths": lengths_of(points_of(records))})
    assert figure.name == "lengths-test_resnet-random"
    rows = pd.read_csv(io.StringIO(figure.csv))
    assert rows.groupby("galaxies")["epochs"].apply(list).to_dict() == {300: [3, 6, 12], 1_000: [3, 6]}
    assert "by up to 15 % before its last doubling" in figure.alt
    for run in records.values():
        run.training.get("convergence", {})["converged"] = True
    (converged,) = length_figures({"lengths": lengths_of(points_of(records))})
    pictures = [np.asarray(Image.open(io.BytesIO(each.png)).convert("L"), int) for each in (figure, converged)]
    assert pictures[0].shape != pictures[1].shape or np.abs(pictures[0] - pictures[1]).sum() > 0
