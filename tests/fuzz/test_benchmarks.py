"""Benchmarks of anybody: what was measured is summed up as it is, or refused with the name of the file."""

import json
import math

import numpy as np
import pytest
from hypothesis import example
from hypothesis import strategies as st

from hf_galaxy.downstream.cell_files import read_about, read_cells
from hf_galaxy.downstream.results import results_of
from tests.downstream.cells import about, cells, write
from tests.fuzz.cases import Refused, answer, fuzz, own_folder
from tests.fuzz.mutations import changed, damaged

OF = dict(tasks=("gz1",), starts=("imagenet", "gz2_votes"), shares=(0.25, 1.0), seeds=(1,))
ABOUT, CELLS = about(**OF), cells(**OF, replicates=3)
FOLDER = write(own_folder(), CELLS, ABOUT)
CELL = next(iter(sorted((FOLDER / "cells").rglob("*.json"))))
VALID = json.loads(CELL.read_text())


def summed_up():
    described = answer(read_about, FOLDER / "benchmark.json", place=str(FOLDER))
    if isinstance(described, Refused):
        return described
    measured = answer(read_cells, FOLDER / "cells", described, place=str(FOLDER))
    return measured if isinstance(measured, Refused) else json.dumps(results_of(measured, described), allow_nan=False)


@pytest.fixture(autouse=True)
def whole_again():
    yield
    CELL.write_text(json.dumps(VALID))
    (FOLDER / "benchmark.json").write_text(json.dumps(ABOUT))


def test_the_benchmark_that_is_changed_is_whole():
    assert len(summed_up()) > 1000


@fuzz(changed(VALID, changes=3), share=0.5)
@example(VALID | {"figures": {"error": []}})
@example(VALID | {"grid": {"a": 1}})
@example(VALID | {"grid": {}})
@example(VALID | {"chosen": math.nan})
@example(VALID | {"galaxies": 10**400})
@example(VALID | {"share": True})
@example(VALID | {"figures": {"error": VALID["figures"]["error"] | {"replicates": [1, "2", 3]}}})
@example(VALID | {"figures": {"error": {"model": 0.5, "replicates": [0.5, 0.5, 0.5]}}})
def test_a_cell_is_summed_up_or_refused_with_its_folder(cell):
    CELL.write_text(json.dumps(cell))
    with np.errstate(all="ignore"):
        summed_up()


@fuzz(changed(ABOUT, changes=3), share=0.4)
@example(ABOUT | {"tasks": {name: 1 for name in ABOUT["tasks"]}})
@example(ABOUT | {"starts": {name: {} for name in ABOUT["starts"]}})
@example(ABOUT | {"shares": []})
@example(ABOUT | {"seeds": [[]]})
def test_a_description_is_used_or_refused_with_its_folder(described):
    (FOLDER / "benchmark.json").write_text(json.dumps(described))
    with np.errstate(all="ignore"):
        summed_up()


@fuzz(damaged(st.just(CELL.read_bytes())))
@example(b"[" * 100_000)
def test_bytes_that_are_no_cell_are_refused_with_their_folder(content):
    CELL.write_bytes(content)
    summed_up()
