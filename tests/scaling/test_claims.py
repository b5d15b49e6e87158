"""What a study says on the claims of the paper: it finds what its losses were drawn from, and nothing in trainings that have not converged."""

import numpy as np
import pytest

from hf_galaxy.scaling.claims import claims
from hf_galaxy.scaling.figures import figures_of
from hf_galaxy.scaling.page import study_page
from hf_galaxy.scaling.points import points_of
from hf_galaxy.scaling.study import study_of
from tests.scaling.records import SIZES, classed_records, voted_records


def verdicts(points):
    """Of each claim, by its first words."""
    return {each.claim.split(",")[0]: each.verdict for each in claims(study_of(points))}


@pytest.fixture(scope="module")
def points():
    """Losses that fall by a law with a floor, with nearly the same exponent everywhere."""
    return points_of(voted_records(questions=("easy", "hard"), noise=0.004, replicates=10))


def changed(points, factor):
    """The points with each loss, and its replicates, times a function of its row."""
    factors = [factor(row) for row in points.itertuples()]
    replicates = [values * by for values, by in zip(points["replicates"], factors, strict=True)]
    return points.assign(loss=points["loss"] * factors, replicates=replicates)


def test_what_the_losses_were_drawn_from_is_shown(points):
    found = verdicts(points)
    assert found["More labelled galaxies lower the error"] == "shown"
    assert found["The error falls by a power law"] == "contradicted without a floor", "which they were drawn with"
    assert found["The exponent is nearly the same for all architectures"] in ("shown", "not decided")


def test_a_loss_that_does_not_fall_decides_nothing_and_one_that_rises_contradicts(points):
    level = points.groupby(["figure", "measure", "backbone"])["loss"].transform("mean")
    rng = np.random.default_rng(0)
    flat = changed(points, lambda row: level[row.Index] / row.loss * np.exp(0.01 * rng.standard_normal()))
    assert verdicts(flat)["More labelled galaxies lower the error"] == "not decided"
    rising = changed(flat, lambda row: (row.galaxies / SIZES[0]) ** 0.1)
    assert verdicts(rising)["More labelled galaxies lower the error"] == "contradicted"


def test_a_step_contradicts_a_power_law(points):
    step = changed(points, lambda row: (1.0 if row.galaxies < SIZES[3] else 0.6) * (row.galaxies / SIZES[0]) ** 0.3)
    found = verdicts(step)
    assert found["The error falls by a power law"] == "contradicted"


def test_other_exponents_of_one_architecture_contradict():
    points = points_of(voted_records(questions=("easy",), replicates=10))
    steeper = changed(points, lambda row: (row.galaxies / SIZES[0]) ** (-0.4 if row.backbone == "resnet10t" else 0))
    assert verdicts(steeper)["The exponent is nearly the same for all architectures"] == "contradicted"


def test_trainings_that_have_not_converged_decide_nothing():
    records = classed_records()
    for record in records.values():
        record.training["convergence"]["converged"] = record.settings["seed"] == 1
    study = study_of(points_of(records))
    found = claims(study)
    assert {each.verdict for each in found} == {"not decided"}
    assert "--until-converged" in found[0].decide
    page = study_page(study, "title", {}, "x")
    assert f"**Not converged: only {len(records) // 3} of the {len(records)} runs were trained" in page
    assert "left by a doubling" not in page
    assert "exponents, for which trainings must have converged" in page
    assert not [figure.name for figure in figures_of(study) if figure.name.startswith(("exponents", "joint"))]
    for record in records.values():
        record.training["convergence"]["converged"] = True
    page = study_page(study_of(points_of(records)), "title", {}, "x")
    assert f"All {len(records)} runs were trained until" in page
    assert "left by a doubling" in page
