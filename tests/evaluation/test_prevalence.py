"""The share of a class: its estimate is the formula, its interval that of a brute posterior, and holds the truth as often as it says."""

import itertools

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import beta, linregress, norm, t

from hf_galaxy.evaluation.prevalence import BINS, Binned, Sample, effective_labels, prevalence
from hf_galaxy.evaluation.share_posterior import SLOPE, quantiles_of_share, recalibrate
from hf_galaxy.evaluation.survey_bins import bins_of_numbers

ENDS = np.array([0.05, 0.5, 0.95])
GALAXIES = 10_000


def survey(kind, share, rng):
    """The truth of galaxies, and predictions of a kind."""
    truth = rng.random(GALAXIES) < share
    strength = {"good": 3.0, "overconfident": 4.0, "bad": 1.0, "inverted": 2.0, "half": 4.0, "useless": 0.0}[kind]
    seen = truth & (rng.random(GALAXIES) < 0.5) if kind == "half" else truth  # half of the class looks like all others
    scores = logit(share) - strength**2 / 2 + strength * (rng.normal(size=GALAXIES) + strength * seen)
    if kind == "useless":
        scores = rng.normal(size=GALAXIES)
    return truth.astype(float), expit({"inverted": -1, "overconfident": 3}.get(kind, 1) * scores)


def intervals(truth, predictions, labelled, samples, rng):
    """For random samples: the intervals with and without predictions, and the usual one of PPI++, as rows (low, high)."""
    bins, share = Binned.of(predictions), truth.mean()
    places = bins.place(predictions)
    weights, positives = np.zeros((2, samples, len(bins.scores)))
    usual = []
    for sample in range(samples):
        chosen = rng.choice(GALAXIES, labelled, replace=False, shuffle=False)
        weights[sample] = np.bincount(places[chosen], minlength=len(bins.scores))
        positives[sample] = np.bincount(places[chosen], truth[chosen], minlength=len(bins.scores))
        y, f = truth[chosen], predictions[chosen]
        slope = np.cov(y, f)[0, 1] / f.var(ddof=1)
        half = norm.ppf(0.95) * np.sqrt((y - slope * f).var(ddof=1) * (1 / labelled - 1 / GALAXIES))
        usual.append(y.mean() + slope * (predictions.mean() - f.mean()) + np.array([-half, half]))
    tempered = np.array([weights, positives]) / (1 - labelled / GALAXIES)
    some = positives.sum(1) > 0
    found = []
    for slope in (True, False):
        ends = quantiles_of_share(bins.scores, bins.shares, *tempered, [0.05, 0.95], slope)
        ends[:, 0] *= some
        found.append(ends)
    return share, (*found, np.array(usual))


def held(share, ends):
    return ((ends[:, 0] <= share) & (share <= ends[:, 1])).mean()


RARE = [
    ("good", 0.02, 100),
    ("bad", 0.02, 200),
    ("useless", 0.02, 100),
    ("half", 0.04, 200),
    ("overconfident", 0.03, 100),
]
COMMON = [
    ("good", 0.3, 200),
    ("overconfident", 0.2, 500),
    ("bad", 0.5, 50),
    ("inverted", 0.1, 100),
    ("useless", 0.2, 50),
]


@pytest.fixture(scope="module")
def simulated():
    """Case -> how often the interval, that of the labels alone and the usual one of PPI++ hold the truth, and mean widths of the first two."""
    rng, results = np.random.default_rng(5), {}
    for case in RARE + COMMON:
        kind, share, labelled = case
        rows = []
        for _ in range(
            4
        ):  # surveys, with shares around the given one: for a single one, whole numbers of galaxies decide
            truth, predictions = survey(kind, share * np.exp(rng.uniform(-0.4, 0.4)) if share < 0.4 else share, rng)
            found, ends = intervals(truth, predictions, labelled, 40, rng)
            rows.append([*(held(found, each) for each in ends), *(np.ptp(each, axis=1).mean() for each in ends[:2])])
        results[case] = np.mean(rows, axis=0)
    return results


@pytest.mark.parametrize("case", RARE + COMMON, ids=str)
def test_the_interval_holds_the_truth_as_often_as_it_says(case, simulated):
    # Of 160 samples, two standard errors are 0.05. Few labels cannot show how seldom very good predictions are wrong: there it holds more often.
    assert 0.84 <= simulated[case][0] <= (0.99 if case[0] in ("good", "overconfident") else 0.95)


def test_on_average_it_holds_in_nine_of_ten_cases(simulated):
    ours, alone, usual, *_ = np.mean(list(simulated.values()), axis=0)
    assert 0.88 <= ours <= 0.935
    assert 0.87 <= alone <= 0.93
    assert usual < 0.85
    # The usual interval fails for rare classes.
    assert np.mean([simulated[case][2] for case in RARE]) < 0.8


def test_good_predictions_make_it_narrower_and_useless_ones_hardly_wider(simulated):
    widths = {case[:2]: result[3] / result[4] for case, result in simulated.items()}
    assert widths["good", 0.3] < 0.6
    assert widths["overconfident", 0.2] < 0.45
    assert all(ratio < 1.02 for ratio in widths.values())
    assert 0.98 < widths["useless", 0.02] < 1.02


@pytest.mark.parametrize(("labelled", "positives"), [(50, 0), (50, 1), (50, 25), (200, 200), (1000, 20)])
def test_without_predictions_the_interval_is_that_of_jeffreys(labelled, positives):
    shares = np.full(3, 1 / 3)
    found = quantiles_of_share(
        np.zeros(3), shares, labelled * shares[None], positives * shares[None], ENDS, slope=False
    )
    assert found[0] == pytest.approx(beta.ppf(ENDS, positives + 0.5, labelled - positives + 0.5), rel=2e-3)


def brute_quantiles(scores, shares, weights, positives):
    """By sums over a fine grid of all a and b."""
    b, a = np.linspace(-20, 20, 401)[:, None], np.linspace(-60, 25, 1701)
    log_posterior, information, mean = -(b**2) / 2 / SLOPE**2 + 0 * a, 1e-300, 0.0
    for score, share, weight, positive in zip(scores, shares, weights, positives, strict=True):
        p = expit(a + b * score)
        log_posterior = log_posterior + positive * (a + b * score) - weight * np.logaddexp(0, a + b * score)
        information, mean = information + weight * p * (1 - p), mean + share * p
    posterior = np.exp(log_posterior + 0.5 * np.log(information) - (log_posterior).max()).ravel()
    order = np.argsort(mean, axis=None)
    cumulative = np.cumsum(posterior[order]) - posterior[order] / 2
    return np.interp(ENDS, cumulative / posterior.sum(), mean.ravel()[order])


@pytest.mark.parametrize(("labelled", "steepness", "middle"), [(50, 3, -5), (200, -2, -4), (100, 8, 0), (30, 0, -9)])
def test_the_posterior_is_that_of_a_brute_grid(labelled, steepness, middle):
    rng = np.random.default_rng(labelled)
    scores = np.linspace(-2.5, 2.5, 8)
    shares = norm.pdf(scores) / norm.pdf(scores).sum()
    weights = rng.multinomial(labelled, shares).astype(float)
    positives = rng.binomial(weights.astype(int), expit(middle + steepness * scores)).astype(float)
    found = quantiles_of_share(scores, shares, weights[None], positives[None], ENDS)[0]
    expected = brute_quantiles(scores, shares, weights, positives)
    assert found == pytest.approx(expected, abs=0.01 * (expected[2] - expected[0]))


def test_the_estimate_is_the_mean_of_recalibrated_predictions_less_their_mean_error():
    rng = np.random.default_rng(0)
    truth, predictions = survey("bad", 0.1, rng)
    chosen = rng.choice(GALAXIES, 150, replace=False)
    result = prevalence(predictions, Sample.random(chosen, truth[chosen]))
    bins = Binned.of(predictions)
    places = bins.place(predictions)
    rows = [np.bincount(places[chosen], each, minlength=len(bins.scores))[None] for each in (None, truth[chosen])]
    (a,), (b,), _ = recalibrate(bins.scores, *rows)
    recalibrated = [1 / (1 + np.exp(-a - b * bins.scores[place])) for place in places]
    errors = [recalibrated[i] - truth[i] for i in chosen]
    assert result.share.value == pytest.approx(sum(recalibrated) / GALAXIES - sum(errors) / 150)
    assert result.share.low < result.share.value < result.share.high
    assert result.alone.value == pytest.approx(truth[chosen].mean())
    assert result.counted == (predictions > 0.5).mean()


def test_over_all_samples_of_a_small_survey_the_estimate_is_right_on_average():
    truth = np.array([0, 0, 0, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1.0])
    predictions = np.linspace(0.05, 0.95, 13)[::-1] ** 2
    samples = [np.array(chosen) for chosen in itertools.combinations(range(13), 11)]
    results = [prevalence(predictions, Sample.random(chosen, truth[chosen])) for chosen in samples]
    assert np.mean([result.share.value for result in results]) == pytest.approx(truth.mean(), abs=0.002)
    assert (
        np.mean([result.share.holds(truth.mean()) for result in results]) > 0.83
    )  # of which there are few different ones
    # The labelled galaxies are known: two others are of either kind.
    for chosen, result in zip(samples, results, strict=True):
        assert truth[chosen].sum() / 13 <= result.share.low <= result.share.high <= (truth[chosen].sum() + 2) / 13


def test_with_strata_the_estimate_is_right_and_its_interval_holds():
    rng = np.random.default_rng(2)
    truth, predictions = survey("bad", 0.06, rng)
    strata = np.digitize(predictions, np.quantile(predictions, [0.7, 0.9]))
    results = []
    for _ in range(120):
        chosen = np.concatenate([rng.choice(np.flatnonzero(strata == k), 60, replace=False) for k in range(3)])
        weights = np.bincount(strata)[strata[chosen]] / 60
        results.append(prevalence(predictions, Sample(chosen, truth[chosen], "yes/no", weights, strata[chosen])))
    values = np.array([result.share.value for result in results])
    assert values.mean() == pytest.approx(truth.mean(), abs=3 * values.std() / 120**0.5)
    assert 0.84 <= np.mean([result.share.holds(truth.mean()) for result in results]) <= 0.98
    naive = np.mean([result.positives / 180 for result in results])
    assert naive > 1.5 * truth.mean()  # as rare galaxies were preferred


def test_fractions_have_intervals_that_hold():
    rng = np.random.default_rng(3)
    fractions = rng.binomial(30, rng.beta(0.6, 2.4, GALAXIES)) / 30
    predictions = np.clip(fractions + rng.normal(size=GALAXIES) * 0.2, 0, 1)
    results = []
    for _ in range(120):
        chosen = rng.choice(GALAXIES, 80, replace=False)
        results.append(prevalence(predictions, Sample.random(chosen, fractions[chosen], "fraction")))
    assert 0.85 <= np.mean([result.share.holds(fractions.mean()) for result in results]) <= 0.97
    assert np.mean([result.share.width / result.alone.width for result in results]) < 0.85


def test_of_values_it_is_the_regression_estimate():
    rng = np.random.default_rng(4)
    values = rng.normal(8, 2, 500)
    predictions = 3 * values + rng.normal(0, 1, 500)
    chosen = np.arange(0, 500, 5)
    result = prevalence(predictions, Sample.random(chosen, values[chosen], "value"))
    line = linregress(predictions[chosen], values[chosen])
    assert result.share.value == pytest.approx(line.intercept + line.slope * predictions.mean())
    residuals = values[chosen] - line.intercept - line.slope * predictions[chosen]
    half = t.ppf(0.95, 98) * np.sqrt((residuals**2).sum() / 98 * (1 / 100 - 1 / 500))
    assert result.share.width == pytest.approx(2 * half)
    assert result.share.width < 0.3 * result.alone.width
    assert result.effective_labels > 400


def test_no_galaxy_of_the_class_among_the_labels_is_an_answer():
    predictions = np.random.default_rng(0).random(10_000)
    sample = Sample.random(np.arange(100), np.zeros(100))
    none, all_of_them = (prevalence(predictions, Sample.random(np.arange(100), np.full(100, k))) for k in (0.0, 1.0))
    assert none.share.low == none.alone.low == 0
    assert none.share.value == pytest.approx(0, abs=1e-3)
    assert none.alone.high == pytest.approx(beta.ppf(0.95, 0.5, 100.5), rel=0.02)
    assert none.alone.high / 2 < none.share.high < 1.3 * none.alone.high
    assert all_of_them.share.high == 1 - 0 / 10_000
    assert all_of_them.share.low == pytest.approx(1 - none.share.high, abs=0.003)
    assert prevalence(predictions, sample, 0.99).share.high > none.share.high


def test_a_survey_that_is_all_labelled_is_known():
    truth = np.array([1.0] * 7 + [0.0] * 13)
    result = prevalence(np.linspace(0, 1, 20), Sample.random(np.arange(20), truth))
    assert [*result.share] == pytest.approx([0.35] * 3)
    assert result.effective_labels == 20


def test_equal_predictions_give_what_the_labels_alone_give():
    sample = Sample.random(np.arange(60), np.arange(60) % 6 == 0)
    result = prevalence(np.full(1000, 0.3), sample)
    assert result.share == result.alone
    assert result.effective_labels == pytest.approx(60)
    assert (result.counted, result.is_counting_excluded) == (0, True)
    assert result.off.value == -result.share.value
    assert result.off.low == -result.share.high


def test_few_labels_have_no_interval():
    result = prevalence(np.linspace(0, 1, 50), Sample.random(np.arange(9), np.ones(9)))
    assert (result.share, result.alone, result.effective_labels, result.off) == (None, None, None, None)
    assert (result.galaxies, result.labelled, result.positives, result.counted) == (50, 9, 9, 0.5)


def test_effective_labels_are_those_of_an_interval_as_narrow():
    assert effective_labels(1000, 100, 1.0, 1.0) == pytest.approx(100)
    assert effective_labels(10**9, 100, 0.5, 1.0) == pytest.approx(400)
    assert effective_labels(1000, 100, 1e-9, 1.0) == pytest.approx(1000)


def test_predictions_are_binned_by_rank_and_equal_ones_together():
    predictions = np.random.default_rng(0).random(50_000) ** 9
    predictions[:20_000] = 0
    bins = Binned.of(predictions)
    assert len(bins.scores) <= BINS
    assert bins.shares.sum() == pytest.approx(1)
    assert 0.4 <= bins.shares[0] < 0.46
    assert bins.shares @ bins.scores == pytest.approx(0)
    assert bins.shares @ bins.scores**2 == pytest.approx(1)
    assert (np.diff(bins.scores) > 0).all()
    places = bins.place(predictions)
    assert np.bincount(places) / 50_000 == pytest.approx(bins.shares)
    other = Binned.of(predictions**0.5)  # of the same order
    assert other.scores == pytest.approx(bins.scores)
    assert len(Binned.of(np.full(7, 0.2)).scores) == 1


def test_bins_hold_equally_many_galaxies_or_have_given_edges():
    values = np.array([5.0, 1, 2, 3, 4, 6, 7, 8, np.nan])
    bins = bins_of_numbers(values, 2)
    assert bins.codes.tolist() == [1, 0, 0, 0, 0, 1, 1, 1, -1]
    assert bins.middles == [2.5, 6.5]
    assert bins.names == ["1 to 4.5", "4.5 to 8"]
    assert bins_of_numbers(values, 2, (2, 4, 8)).codes.tolist() == [1, -1, 0, 0, 1, 1, 1, 1, -1]
    assert bins_of_numbers(np.ones(4), 4).codes.tolist() == [0] * 4
    with pytest.raises(ValueError, match="no number"):
        bins_of_numbers(np.full(3, np.nan), 2)
