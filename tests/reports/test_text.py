"""Numbers in cards, pages and figures have three significant digits, and intervals one form."""

from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np
import pytest
from jinja2 import UndefinedError

from hf_galaxy.reports.text import NOT_MEASURED, compact_number, interval, number, percent, render, table, truncated


def test_a_number_has_three_significant_digits_or_is_whole():
    numbers = {
        0.19: "0.190", 0.0412345: "0.0412", 8.9: "8.90", 123.4: "123", 0: "0", -0.01: "-0.0100", 12345.6: "12,346",
        1e-6: "1e-06", 0.9996: "1.00",
    }  # fmt: skip
    assert {value: number(value) for value in numbers} == numbers
    assert number(None) == NOT_MEASURED


def test_a_number_is_the_nearest_decimal_with_three_digits():
    rng = np.random.default_rng(0)
    three = Context(prec=3, rounding=ROUND_HALF_EVEN)
    for value in [*10 ** rng.uniform(-4, 3, 300), 999.4, 999.6, 99.96, 0.09996]:
        expected = three.create_decimal(Decimal(float(value)))
        assert Decimal(number(value).replace(",", "")) == expected, value
        assert "e" not in number(value)
    assert number(999.7) == "1,000", "not 1.00e+03"


def test_an_interval_stands_in_brackets_with_the_format_of_its_number():
    estimate = {"value": -0.1234, "low": -0.2, "high": 0.05}
    assert interval(estimate) == "-0.123 [-0.200, 0.0500]"
    assert interval(estimate, percent) == "-12.3 % [-20.0 %, 5.0 %]"
    assert interval(estimate | {"low": None, "high": None}) == "-0.123 (no interval)"
    assert interval(None) == interval({"value": None, "low": None, "high": None}) == "-"


def test_small_formats():
    assert [compact_number(n) for n in (300, 1_000, 1_249, 20_000, 4_925_053)] == ["300", "1k", "1.25k", "20k", "4.93M"]
    assert (percent(0.125), percent(0.125, "+"), percent(-0.125, "+")) == ("12.5 %", "+12.5 %", "-12.5 %")
    assert (truncated("letters", 7), truncated("letters", 4)) == ("letters", "let…")
    assert table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"


def test_a_template_has_the_formats_as_filters_and_misses_no_name(tmp_path):
    file = tmp_path / "page.md.jinja"
    file.write_text("{{ value | number }}, {{ value | percent }}, {{ estimate | interval }}")
    assert render(file, value=0.5, estimate={"value": 1, "low": 0, "high": 2}) == "0.500, 50.0 %, 1.00 [0, 2.00]"
    with pytest.raises(UndefinedError, match="estimate"):
        render(file, value=0.5)
