"""Corrections are right on average for galaxies that they were not measured on, and their intervals hold as often as they say."""

import numpy as np
import pandas as pd
import pytest
from sklearn.isotonic import IsotonicRegression

from hf_galaxy.decision_tree import DecisionTree, Question
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.drift import Answers
from hf_galaxy.evaluation.drift_correction import Correction, CorrectionSums
from hf_galaxy.evaluation.drift_measurement import FOLDS, Pairs, step_drift
from hf_galaxy.randomness import key_of

ANSWERS = Answers.of_classes(["ring_probability"], exclusive=False)


def survey(count, seed, loss=0.4):
    """Galaxies whose degraded fraction is lower, as that of features farther away, with scatter."""
    rng = np.random.default_rng(seed)
    before = rng.beta(1.2, 1.5, count)
    after = np.clip(before * (1 - loss) + rng.normal(0, 0.06, count), 0, 1)
    return Pairs(np.array([key_of(f"{seed} {i}") for i in range(count)]), before[:, None], after[:, None])


def correction_of(*surveys, places=(2.0,)):
    curves = []
    for some in surveys:
        sums = CorrectionSums(ANSWERS, 60)
        sums.add(*some)
        curves.append(sums.curve(0))
    return Correction("distance", 1.0, places, {"ring_probability": tuple(curves)})


def table(some, **columns):
    return pd.DataFrame({"ring_probability": some.after[:, 0], **columns})


@pytest.mark.parametrize(("measured", "catalogue"), [(300, 1000), (1000, 60)])
def test_the_interval_of_a_mean_holds_that_of_the_original_pictures(measured, catalogue):
    """100 corrections, each of a sample of its own, applied to other galaxies."""
    errors, held = [], 0
    for trial in range(100):
        mine, others = survey(measured, 2 * trial), survey(catalogue, 2 * trial + 1)
        mean, truth = correction_of(mine).mean(table(others), "ring_probability", 2.0), others.before.mean()
        errors.append(mean["value"] - truth)
        held += mean["low"] <= truth <= mean["high"]
    assert 0.84 <= held / 100 <= 0.96
    uncorrected = survey(20_000, 7)
    assert np.mean(uncorrected.after - uncorrected.before) < -0.15, "so far off without the correction"
    assert abs(np.mean(errors)) < 3 * np.std(errors) / 100**0.5 + 0.002


def test_the_interval_of_a_single_galaxy_holds_and_scatter_does_not_tilt_the_function():
    correction, others = correction_of(survey(4000, 1)), survey(4000, 2)
    corrected = correction.corrected(table(others), 2.0)
    inside = corrected["ring_probability_single_low"].to_numpy() <= others.before[:, 0]
    inside &= others.before[:, 0] <= corrected["ring_probability_single_high"].to_numpy()
    assert inside.mean() == pytest.approx(0.9, abs=0.02)
    bins = np.digitize(others.after[:, 0], [0.15, 0.3, 0.45])
    for k in range(4):  # right on average at any fraction, not only in all
        difference = corrected["ring_probability_corrected"].to_numpy()[bins == k] - others.before[bins == k, 0]
        assert abs(difference.mean()) < 0.012


def test_the_function_is_the_isotonic_regression_of_scikit_learn():
    some = survey(3000, 3)
    curve = correction_of(some).curves["ring_probability"][0]
    places = np.linspace(0.05, 0.5, 20)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(some.after[:, 0], some.before[:, 0]).predict(places)
    assert np.abs(curve.at(places) - fitted).mean() < 0.012
    assert (np.diff(curve.original) >= 0).all()
    assert curve.at(some.after).mean() == pytest.approx(some.before.mean(), rel=1e-3)
    noise = Pairs(some.keys, some.before, np.random.default_rng(0).random(some.after.shape))
    flat = correction_of(noise).curves["ring_probability"][0]
    assert np.ptp(flat.at(np.linspace(0.1, 0.9, 9))) < 0.06, "of what says nothing it makes the mean"


def test_between_steps_functions_are_interpolated_and_beyond_there_is_none():
    correction = correction_of(survey(2000, 1, 0.2), survey(2000, 2, 0.5), places=(2.0, 4.0))
    catalogue = pd.DataFrame({"ring_probability": [0.3] * 6, "d": [0.5, 1.0, 1.5, 3.0, 4.0, 4.5]})
    values = correction.corrected(catalogue, "d")["ring_probability_corrected"].to_numpy()
    at_two, at_four = (curve.at(np.array([0.3]))[0] for curve in correction.curves["ring_probability"])
    assert values[:2].tolist() == [0.3, 0.3]
    assert values[2] == pytest.approx((0.3 + at_two) / 2)
    assert values[3] == pytest.approx((at_two + at_four) / 2)
    assert values[4] == pytest.approx(at_four)
    assert np.isnan(values[5])
    assert correction.corrected(catalogue, "d")["ring_probability"].tolist() == [0.3] * 6
    assert correction.mean(catalogue, "ring_probability", "d")["galaxies"] == 5
    with pytest.raises(BadInput, match="no column 'z', which says its distance"):
        correction.corrected(catalogue, "z")
    with pytest.raises(BadInput, match="has none of the answers, such as ring_probability"):
        correction.corrected(catalogue[["d"]], "d")


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("d", [2.0, "far"], "column 'd' is 'far' in row 1; a plain number is needed"),
        ("d", [2.0, -9.0], "column 'd' is -9 in row 1, which is no distance"),
        ("ring_probability", [0.2, "many"], "column 'ring_probability' is 'many' in row 1"),
    ],
)
def test_a_catalogue_with_what_is_no_number_is_refused(column, values, reason):
    catalogue = pd.DataFrame({"ring_probability": [0.3, 0.4], "d": [2.0, 2.0], column: values})
    for asked in (lambda c: c.corrected(catalogue, "d"), lambda c: c.mean(catalogue, "ring_probability", "d")):
        with pytest.raises(BadInput, match=reason):
            asked(correction_of(survey(500, 1)))


@pytest.mark.filterwarnings("error")
def test_galaxies_without_a_number_do_not_count_in_a_mean():
    correction = correction_of(survey(500, 1))
    whole = correction.mean(pd.DataFrame({"ring_probability": [0.3, 0.5], "d": 2.0}), "ring_probability", "d")
    more = pd.DataFrame({"ring_probability": [0.3, np.nan, 0.5, 0.5, 0.5], "d": [2.0, 2.0, 2.0, 2.5, np.nan]})
    assert correction.mean(more, "ring_probability", "d") == pytest.approx(whole)
    assert whole["galaxies"] == 2
    for none in (more[:0], more.assign(d=3.0)):
        mean = correction.mean(none, "ring_probability", "d")
        assert mean["galaxies"] == 0
        assert np.isnan([mean["value"], mean["low"], mean["high"]]).all()
    with pytest.raises(BadInput, match="has no correction; those that have one are ring_probability"):
        correction.mean(more, "bar_probability", "d")
    with pytest.raises(BadInput, match="the catalogue has no column 'ring_probability'"):
        correction.mean(more[["d"]], "ring_probability", "d")


def test_a_question_that_is_asked_after_others_counts_as_much_as_it_is_asked(tmp_path):
    """Of galaxies whose arms depend on how often they are asked for: the interval of a mean holds that of the original pictures."""
    first = Question("disk", ("yes", "no"), (), "c")
    tree = DecisionTree("c", (first, Question("arms", ("loose", "tight"), ("disk_yes",), "c")))
    answers = Answers.of_tree(tree)

    def survey(count, seed):
        rng = np.random.default_rng(seed)
        disk = rng.beta(0.5, 0.7, count)
        loose = np.clip(0.7 - 0.5 * disk + rng.normal(0, 0.15, count), 0, 1)
        later, blurred = disk * rng.uniform(0.4, 1, count), np.clip(0.8 * loose + rng.normal(0, 0.1, count), 0, 1)
        before, after = (np.stack([d, 1 - d, a, 1 - a], axis=1) for d, a in ((disk, loose), (later, blurred)))
        return Pairs(np.array([key_of(f"{seed} {i}") for i in range(count)]), before, after)

    held, errors, plain = 0, [], []
    for trial in range(60):
        sums, others = CorrectionSums(answers, 60), survey(400, 2 * trial + 1)
        sums.add(*survey(400, 2 * trial))
        curves = {name: (curve,) for name, curve in zip(answers.columns, sums.curves(), strict=True)}
        correction = Correction("distance", 1.0, (2.0,), curves, tree)
        catalogue = pd.DataFrame(others.after, columns=answers.columns)
        mean = correction.mean(catalogue, "arms_loose_fraction", 2.0)
        truth = np.average(others.before[:, 2], weights=others.after[:, 0])
        held += mean["low"] <= truth <= mean["high"]
        errors.append(mean["value"] - truth)
        plain.append(correction.corrected(catalogue, 2.0)["arms_loose_fraction_corrected"].mean() - truth)
    assert 0.8 <= held / 60 <= 0.98
    assert abs(np.mean(errors)) < 0.004
    assert abs(np.mean(plain)) > 0.02, "so far off if all count alike"
    correction.write(tmp_path)
    assert Correction.read(tmp_path).mean(catalogue, "arms_loose_fraction", 2.0) == pytest.approx(mean, rel=1e-5)
    with pytest.raises(BadInput, match="no column 'disk_yes_fraction', which says how often arms_loose_fraction"):
        correction.mean(catalogue.drop(columns="disk_yes_fraction"), "arms_loose_fraction", 2.0)


def test_corrections_are_read_as_they_were_written(tmp_path):
    correction, others = correction_of(survey(500, 1), survey(500, 2), places=(2.0, 3.0)), table(survey(50, 3), d=2.7)
    correction.write(tmp_path)
    again = Correction.read(tmp_path)
    pd.testing.assert_frame_equal(again.corrected(others, "d"), correction.corrected(others, "d"))
    assert again.mean(others, "ring_probability", "d") == pytest.approx(
        correction.mean(others, "ring_probability", "d"), rel=1e-5
    )
    rows = pd.read_csv(tmp_path / "correction.csv")
    assert rows["distance"].unique().tolist() == [2.0, 3.0]
    assert (rows["original_low"] <= rows["original"]).all()
    assert (rows["single_low"] < rows["single_high"]).all()
    with pytest.raises(BadInput, match="is no table of corrections"):
        Correction.read(tmp_path / "none")


def test_what_is_held_out_tells_how_the_correction_does():
    def halves():
        some = survey(2000, 5)
        yield Pairs(*(each[:700] for each in some))
        yield Pairs(*(each[700:] for each in some))

    (row,) = step_drift(ANSWERS, halves).answers
    assert row["error_before"] < -0.15
    assert abs(row["error_after"]) < 0.004
    assert row["folds"] == FOLDS
    assert row["folds_held"] >= 3
    assert row["single_held"] == pytest.approx(0.9, abs=0.03)
    few = step_drift(ANSWERS, lambda: iter([survey(8, 6)]))
    assert few.curves == [None]
    assert few.answers[0]["error_after"] is None
