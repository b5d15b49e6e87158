"""Laws are recovered from what was drawn from them, as often inside their intervals as these say."""

import numpy as np
import pytest
from scipy.optimize import curve_fit, least_squares, nnls

from hf_galaxy.errors import BadInput
from hf_galaxy.scaling import fit_joint_law, fit_power_law, fitting, laws, leave_out

SIZES = 315 * 2.0 ** np.arange(7)
RUNS, SEEDS = np.repeat(SIZES, 3), np.tile([1, 2, 3], 7)


def power(galaxies, a, b, c):
    return c + a * galaxies**-b


def drawn(rng, a, b, c, scatter, replicates=200, common=0.0, own=0.0):
    """Losses of three seeds at seven sizes, and their replicates: a law times scatter, and luck with the test galaxies.

    Some of the luck all runs have in common, some is their own; the replicates show how large they are, as a bootstrap would.
    """
    law = power(RUNS, a, b, c)
    losses = law * (1 + common * rng.standard_normal() + np.hypot(scatter, own) * rng.standard_normal(len(RUNS)))
    luck = common * rng.standard_normal(replicates) + own * rng.standard_normal((len(RUNS), replicates))
    return losses, losses[:, None] + law[:, None] * luck


@pytest.mark.parametrize(("a", "b", "c"), [(8, 0.5, 0.08), (30, 0.45, 19), (2, 0.35, 0), (500, 1.2, 0.3)])
def test_a_law_without_scatter_is_recovered(a, b, c):
    law = fit_power_law(RUNS, power(RUNS, a, b, c))
    assert [law.a, law.b, law.c] == pytest.approx([a, b, c], rel=2e-3, abs=1e-4)
    assert law.predict(1e6) == pytest.approx(power(1e6, a, b, c), rel=1e-3)
    assert law.galaxies_for(power(5000.0, a, b, c)) == pytest.approx(5000, rel=1e-3)
    assert law.galaxies_for(c * 0.99) == np.inf
    assert law.range == (315, 20160)
    assert law.scatter < 1e-4
    assert law.r2 > 0.9999


def test_the_least_squares_are_those_that_scipy_finds_from_a_good_start():
    losses, _ = drawn(np.random.default_rng(0), 8, 0.5, 0.08, 0.05)
    ours = fitting._least_squares_fit(
        lambda b: np.stack([(RUNS / 2520) ** -b, np.ones_like(RUNS + b)], -1), 1, losses[None], losses**-2
    )
    theirs, _ = curve_fit(lambda d, a, b, c: power(d / 2520, a, b, c), RUNS, losses, (0.2, 0.5, 0.08), sigma=losses)
    a, c, b = ours[0]
    assert [a, b, c] == pytest.approx(theirs, rel=2e-3)


def test_no_coefficient_is_below_zero_and_the_rest_is_best_as_scipy_finds():
    rng = np.random.default_rng(1)
    columns, losses = rng.standard_normal((40, 12, 3)), rng.standard_normal((5, 1, 12))
    weights = rng.uniform(0.5, 2, 12)
    coefficients, squares = fitting._solve_coefficients(columns[None], losses, weights)
    for r in range(5):
        for k in range(40):
            theirs, norm = nnls(columns[k] * weights[:, None] ** 0.5, losses[r, 0] * weights**0.5)
            np.testing.assert_allclose(coefficients[r, k], theirs, atol=1e-8)
            assert squares[r, k] == pytest.approx(norm**2)


def test_what_the_seeds_have_in_common_widens_the_intervals():
    rng = np.random.default_rng(4)
    covered = {"known": 0, "not known": 0}
    for _ in range(100):
        common = 1 + 0.04 * rng.standard_normal(3)[SEEDS - 1]
        losses = power(RUNS, 30, 0.45, 19) * (1 + 0.001 * rng.standard_normal(len(RUNS))) * common
        for name, seeds in (("known", SEEDS), ("not known", None)):
            low, high = fit_power_law(RUNS, losses, seeds).band(2520.0)
            covered[name] += bool(low <= power(2520, 30, 0.45, 19) <= high)
    assert covered["known"] >= 75 > covered["not known"] + 5


def test_an_outlier_moves_the_law_little():
    losses = power(RUNS, 8, 0.5, 0.08) * (1 + 0.01 * np.random.default_rng(5).standard_normal(len(RUNS)))
    straight = fit_power_law(RUNS, losses)
    losses[10] *= 1.8  # a run that collapsed
    robust = fit_power_law(RUNS, losses)
    plain = least_squares(lambda p: power(RUNS, *p) / losses - 1, [straight.a, straight.b, straight.c]).x
    assert abs(robust.predict(40320) / straight.predict(40320) - 1) < 0.02
    assert abs(power(40320, *plain) / straight.predict(40320) - 1) > 0.02


def test_what_cannot_be_told_is_said():
    rng = np.random.default_rng(6)
    flat = fit_power_law(RUNS, 0.5 * (1 + 0.05 * rng.standard_normal(len(RUNS))), SEEDS)
    assert "whether the loss falls with more galaxies at all" in flat.doubts
    assert flat.galaxies_interval(0.2)[1] == np.inf
    losses, _ = drawn(rng, 2, 0.35, 0, 0.04)
    assert any("whether a loss remains" in doubt for doubt in fit_power_law(RUNS, losses, SEEDS).doubts)
    assert fit_power_law(RUNS, losses, SEEDS, floor=False).doubts == []
    low, high = fit_power_law(RUNS, losses, SEEDS, floor=False).interval("per_doubling")
    assert low < 2**-0.35 < high


def test_luck_with_the_test_galaxies_is_in_the_interval_of_the_law_and_not_in_that_of_what_was_left_out():
    losses, galaxies = drawn(np.random.default_rng(7), 8, 0.5, 0.08, 0.001, common=0.1)
    low, high = fit_power_law(RUNS, losses, SEEDS, galaxies=galaxies).band(SIZES[-1])
    assert high[0] - low[0] == pytest.approx(2 * 1.645 * 0.1 * losses[-1], rel=0.25)
    left = leave_out(RUNS, losses, SEEDS, galaxies=galaxies)
    assert left.interval[1] - left.interval[0] < 0.1 * losses[-1]
    assert left.galaxies == SIZES[-1]
    assert left.measured == pytest.approx(losses[-3:].mean())
    assert left.inside
    assert abs(left.miss) < 0.02


def test_a_law_that_does_not_hold_is_caught_by_what_it_was_not_fitted_to():
    losses = np.maximum(power(RUNS, 8, 0.5, 0), 0.12) * (1 + 0.01 * np.random.default_rng(8).standard_normal(len(RUNS)))
    left = leave_out(RUNS, losses, SEEDS, floor=False)
    assert not left.inside
    assert left.miss < -0.2


def test_the_joint_law_and_its_frontier_are_recovered():
    rng = np.random.default_rng(9)
    parameters = np.repeat([3e5, 1e6, 3e6, 1e7], 21)
    sizes, seeds = np.tile(RUNS, 4), np.tile(SEEDS, 4)
    truth = {"E": 0.5, "A": 20.0, "alpha": 0.3, "B": 15.0, "beta": 0.45}

    def losses(scatter):
        law = truth["E"] + truth["A"] * parameters ** -truth["alpha"] + truth["B"] * sizes ** -truth["beta"]
        return law * (1 + scatter * rng.standard_normal(len(law)))

    exact = fit_joint_law(parameters, sizes, losses(0), seeds)
    assert exact.values == pytest.approx(truth, rel=0.02)
    assert exact.predict(1e7, 1e5) == pytest.approx(0.5 + 20 * 1e7**-0.3 + 15 * 1e5**-0.45, rel=1e-3)
    models, galaxies = exact.frontier(np.array([1e9, 1e11]))
    for model, number in zip(models, galaxies, strict=True):
        steps = np.geomspace(0.2, 5, 81)
        along = exact.predict(model * steps, number / steps)
        assert steps[along.argmin()] == pytest.approx(1, rel=0.05), "no other model of the same N D does better"
    covered = dict.fromkeys((*truth, "share"), 0)
    for _ in range(20):
        law = fit_joint_law(parameters, sizes, losses(0.01), seeds)
        for name in covered:
            low, high = law.interval(name)
            covered[name] += low <= (truth | {"share": 0.3 / 0.75})[name] <= high
    assert all(14 <= count <= 20 for count in covered.values()), covered


def test_models_that_differ_by_more_than_their_size_are_no_law_of_parameters():
    rng = np.random.default_rng(11)
    claimed = 0
    for _ in range(12):
        parameters, sizes = np.repeat(np.geomspace(3e5, 1e7, 6), 21), np.tile(RUNS, 6)
        offsets = np.repeat(1 + 0.15 * rng.standard_normal(6), 21)
        losses = power(sizes, 8, 0.5, 0.1) * offsets * (1 + 0.03 * rng.standard_normal(len(sizes)))
        doubts = fit_joint_law(parameters, sizes, losses, np.tile(SEEDS, 6)).doubts
        claimed += not any(doubt.startswith(laws.FALLS) for doubt in doubts)
    assert claimed <= 4, "without the offsets being dealt out among models it is claimed about every other time"
    few = parameters < 2e6
    few = fit_joint_law(parameters[few], sizes[few], losses[few], np.tile(SEEDS, 6)[few])
    assert any("sizes of models are too few" in doubt for doubt in few.doubts)


def test_the_published_losses_of_zoobot_s_encoders_do_not_pin_an_exponent_of_parameters_down():
    # facts: github.com/mwalmsley/zoobot, docs/pretrained_models.rst; parameters counted with timm, without a head
    published = {
        8.53: 19.33, 14.95: 19.23, 27.82: 19.08, 49.45: 19.06, 87.57: 19.05, 196.23: 19.09,
        28.6: 19.22, 64.13: 19.20, 115.37: 19.09, 210.76: 19.18,
        4.01: 19.48, 20.18: 19.33, 11.18: 19.83, 23.51: 19.43, 42.50: 19.37,
    }  # fmt: skip
    law = fit_power_law(np.array(list(published)) * 1e6, list(published.values()))
    assert 18.5 < law.c < 19.2
    assert law.interval("c")[0] < 19.05 < law.interval("c")[1] + 0.15
    assert law.doubts, "fifteen models of five families, one run of each"
    assert 0.003 < law.scatter < 0.02


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (([1, 2, 3], [1, 2]), "one of each"),
        (([1, 2, 2], [1, 2, 3]), "2 different numbers of galaxies"),
        (([1, 2, 0], [1, 2, 3]), "positive numbers"),
        (([1, 2, 4], [1, np.nan, 3]), "positive numbers"),
        (([1, 2, 4, 8], [1, 2, 3, 4], [1, 2]), "a seed"),
        (([1, 2, 4], [3, 2, 1]), "3 runs leave no degree of freedom for a law of 3 parameters"),
    ],
)
def test_what_no_law_can_be_fitted_to_is_refused(arguments, word):
    with pytest.raises(BadInput, match=word):
        fit_power_law(*arguments)
    with pytest.raises(BadInput, match="some replicates"):
        fit_power_law([1, 2, 4, 8], [4, 3, 2, 1], galaxies=np.full((4, 5), np.nan))


def test_a_level_in_percent_is_refused():
    law = fit_power_law(RUNS, power(RUNS, 8, 0.5, 0.08))
    with pytest.raises(BadInput, match="between 0 and 1"):
        law.interval("b", 90)
