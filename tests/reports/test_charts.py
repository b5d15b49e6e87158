"""Axes of charts show all values with a margin, and have few, round ticks."""

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

from hf_galaxy.reports.charts import csv_text, draw_curve_with_band, draw_points, limits, log_axis


@pytest.mark.parametrize("panels", [1, 3])
@pytest.mark.parametrize("low", [3e-4, 0.17, 0.96, 312.0, 4.1e6])
@pytest.mark.parametrize("ratio", [1.05, 1.3, 2.0, 7.0, 30.0, 1e3, 1e5])
def test_ticks_are_few_and_round(panels, low, ratio):
    axes = Canvas().subplots(1, panels, squeeze=False)[0, 0]
    log_axis(axes.yaxis, low, low * ratio)
    ticks = axes.yaxis.get_majorticklocs()
    assert 2 <= len(ticks) <= 9
    assert ((low <= ticks) & (ticks <= low * ratio)).all()
    labels = [axes.yaxis.get_major_formatter()(tick) for tick in ticks]
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 9
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}
    np.testing.assert_allclose(
        [float(text.rstrip("kMG")) * scale.get(text[-1], 1) for text in labels], ticks, rtol=1e-9
    )


def test_limits_have_a_margin_on_both_sides():
    low, high = limits([1, 100], 0.1)
    assert np.log10([low, high]) == pytest.approx([-0.2, 2.2])


def test_a_point_shows_its_runs_and_its_interval_only_if_it_has_them():
    axes = Canvas().subplots()
    points = [{"value": 2.0, "low": 1.0, "high": 3.0, "runs": [1.9, 2.1]}, {"value": 5.0, "low": None, "high": None}]
    draw_points(axes, [10, 20], points, "black")
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[10, 1.9], [10, 2.1]], [[10, 2]], [[20, 5]]]
    (interval,) = axes.collections
    assert interval.get_segments()[0].tolist() == [[10, 1], [10, 3]]


def test_a_curve_is_dashed_beyond_the_measured_range_and_its_band_is_all_of_it():
    axes = Canvas().subplots()
    curve = {"galaxies": [1, 10, 100], "loss": [4, 2, 1], "low": [3, 1.5, 0], "high": [5, 3, 2]}
    draw_curve_with_band(axes, curve, 10, "black")
    solid, dashed = axes.lines
    assert (solid.get_linestyle(), solid.get_xydata().tolist()) == ("-", [[1, 4], [10, 2], [10, 2]])
    assert (dashed.get_linestyle(), dashed.get_xydata().tolist()) == ("--", [[10, 2], [100, 1]])
    corners = axes.collections[0].get_paths()[0].vertices
    assert corners[:, 1].max() == 5
    assert 0 < corners[:, 1].min() < 1e-9, "0 has no place on a logarithmic axis"


def test_rows_that_lack_a_column_leave_it_empty():
    assert csv_text([{"a": 1}, {"a": 2, "b": "x"}]) == "a,b\n1,\n2,x\n"
