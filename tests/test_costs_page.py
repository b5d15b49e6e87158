"""The tables of docs/howto/costs.md are made of the record of what was measured."""

import json
import runpy
import sys
from statistics import median

import pytest

from tests.conftest import ROOT

RECORD = ROOT / "benchmarks/predictions.json"


def printed(capsys, *words):
    """What the script prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["costs.py", *words])
        runpy.run_path(str(ROOT / "benchmarks/costs.py"), run_name="__main__")
    return capsys.readouterr().out


def test_the_page_has_the_tables_of_the_record(capsys):
    page = (ROOT / "docs/howto/costs.md").read_text()
    for table in printed(capsys).strip().split("\n\n"):
        assert table in page, f"python benchmarks/costs.py makes another table:\n{table}"


def test_totals_are_products(capsys):
    record = json.loads(RECORD.read_text())
    seconds = {
        (each["backbone"], str(each["px"]), each["way"]): median(each["seconds"])
        for each in record["seconds_of_a_galaxy"]
    }
    rows = [line.strip("| ").split(" | ") for line in printed(capsys, "--galaxies", "3600000").splitlines()]
    hours = {tuple(row[:3]): float(row[4]) for row in rows if len(row) == 5 and row[1].isdecimal()}
    assert len(hours) == 2 * len({key[:2] for key in seconds})
    for (backbone, px, runtime), found in hours.items():
        way = {"torch": "hf_galaxy", "ONNX Runtime": "hf_galaxy, --runtime onnx"}[runtime]
        assert found == pytest.approx(1000 * seconds[backbone, px, way], rel=0.05)
    assert (
        printed(capsys, "--galaxies", "7200000", "--rate", "1000", "--price", "2.5") == "7,200,000: 2 hours, 5 to pay\n"
    )
