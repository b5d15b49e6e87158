"""How many galaxies of a survey are of a kind, from the predictions for all of them and the labels of a random sample.

Prediction-powered inference (Angelopoulos et al. 2023, https://huggingface.co/papers/2301.09633): predictions p of all N galaxies are
summed, and the mean error of those of the n labelled galaxies is taken off,

    share = sum over the survey of p / N + sum over the sample of w (y - p),    w = 1 / n

with predictions that the labels recalibrate first (`share_posterior`), as a regression of the sample on its auxiliary variable
(Lehtonen and Veijanen 1998, "Logistic generalized regression estimators"). So they need not be probabilities, and may be wrong, even
inverted: the estimate is right without them. Only the width of the interval depends on how good they are; a slope of about 0, of useless ones, makes it
that of the sample alone.

The usual interval, of the variance of the n differences, fails for rare classes: with 50 labels and a share of 2 % it holds the truth half
the time, as a sample without a miss shows no error. Here it is that of the posterior of the share. A finite survey and a sample with
weights make it narrower or wider by the variance of the estimate,

    V = sum of w^2 (1 - n / N) p (1 - p)

Where the labels show another scatter (y - p)^2 than p (1 - p), as fractions always do, it is drawn to theirs. Values beyond [0, 1] are averaged with the linear PPI++ (Angelopoulos,
Duchi and Zrnic 2023, https://huggingface.co/papers/2311.01453), with its lambda, and Student's t.

Legend: N galaxies of the survey, n of them labelled, B bins of predictions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import expit, ndtr, ndtri, stdtrit

from hf_galaxy.evaluation.bootstrap import LEVEL
from hf_galaxy.evaluation.share_posterior import quantiles_of_share, recalibrate

BINS = 64  # of the normal scores of predictions
LEAST = 10  # labels, for an interval
# Few labels show too little scatter. That of fractions is drawn to that of yes and no, as by half an uncertain label; that of yes and no to what the
# curve says, as by 20; that in a stratum to that of all labels, as by 20 labels.
LIKE_YES_NO, LIKE_CURVE, LIKE_ALL = 0.5, 20, 20
Kind = Literal["yes/no", "fraction", "value"]


@dataclass(frozen=True, eq=False)
class Sample:
    """The labelled galaxies.

    Attributes:
        galaxies: (n,) their places among the predictions, none of them twice.
        labels: (n,) 0 or 1, fractions, or values.
        kind: of the labels.
        weights: (n,) how many galaxies of the survey each stands for, up to a factor.
        strata: (n,) the stratum of each, from 0, for the scatter within strata; one stratum is all zeros.
    """

    galaxies: np.ndarray
    labels: np.ndarray
    kind: Kind
    weights: np.ndarray
    strata: np.ndarray

    @classmethod
    def random(cls, galaxies: np.ndarray, labels: np.ndarray, kind: Kind = "yes/no") -> Sample:
        """A sample in which any galaxy was as likely as any other."""
        n = len(galaxies)
        return cls(np.asarray(galaxies), np.asarray(labels, float), kind, np.ones(n), np.zeros(n, int))

    def select(self, kept: np.ndarray, places: np.ndarray) -> Sample:
        """The labelled galaxies where `kept`, (n,) bool, is true, at other places."""
        return Sample(places, self.labels[kept], self.kind, self.weights[kept], self.strata[kept])

    def __len__(self) -> int:
        return len(self.labels)


class Estimate(NamedTuple):
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Prevalence:
    """The share of a class among galaxies; of fractions and values, their mean.

    Attributes:
        galaxies, labelled: how many they are.
        positives: the sum of the labels.
        share: the estimate; None with fewer than `LEAST` labels.
        alone: that of the labelled sample without predictions.
        counted: the share of predictions above a half; of fractions and values, the mean prediction.
        effective_labels: how many random labels would give an interval as narrow without predictions.
    """

    galaxies: int
    labelled: int
    positives: float
    share: Estimate | None
    alone: Estimate | None
    counted: float
    effective_labels: float | None

    @property
    def off(self) -> Estimate | None:
        """By how much counting the predictions is off."""
        if self.share is None:
            return None
        return Estimate(self.counted - self.share.value, self.counted - self.share.high, self.counted - self.share.low)

    @property
    def is_counting_excluded(self) -> bool:
        """Whether the interval excludes what counting the predictions gives."""
        return self.share is not None and not self.share.holds(self.counted)


def prevalence(predictions: np.ndarray, sample: Sample, level: float = LEVEL) -> Prevalence:
    """The share of a class in a survey.

    Args:
        predictions: (N,) of all galaxies; for labels that are not values, probabilities or fractions.
        level: the probability with which the interval holds the truth.
    """
    counted = float(np.mean(predictions > 0.5 if sample.kind == "yes/no" else predictions, dtype=float))
    total = float(sample.labels.sum())
    if len(sample) < LEAST:
        return Prevalence(len(predictions), len(sample), total, None, None, counted, None)
    estimate = _mean_of_values if sample.kind == "value" else _share
    share, alone = (estimate(predictions, sample, level, used) for used in (True, False))
    effective = effective_labels(len(predictions), len(sample), share.width, alone.width)
    return Prevalence(len(predictions), len(sample), total, share, alone, counted, effective)


def effective_labels(galaxies: int, labelled: int, width: float, alone: float) -> float:
    """How many random labels would give an interval as narrow without predictions: its width falls as sqrt(1 / n - 1 / N)."""
    if alone == 0:
        return float(labelled)
    return 1 / (1 / galaxies + (1 / labelled - 1 / galaxies) * (width / alone) ** 2)


class Binned(NamedTuple):
    """Predictions in bins of equal steps of their normal scores, of which a galaxy has that of its rank; equal ones are in one bin.

    Attributes:
        edges: (B,) the least prediction of each.
        scores: (B,) standardised.
        shares: (B,) of the galaxies.
    """

    edges: np.ndarray
    scores: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, predictions: np.ndarray) -> Binned:
        ordered, n = np.sort(predictions), len(predictions)
        reach = -ndtri(0.5 / n)
        ranks = (ndtr(np.linspace(-reach, reach, BINS + 1)[:-1]) * n).astype(np.int64)
        edges = np.unique(ordered[ranks])
        edges[0] = ordered[0]
        starts = np.searchsorted(ordered, edges)
        ends = np.append(starts[1:], n)
        shares, scores = (ends - starts) / n, ndtri((starts + ends) / 2 / n)
        scores = scores - shares @ scores
        deviation = math.sqrt(shares @ scores**2)
        return cls(edges, scores / deviation if deviation > 0 else scores, shares)

    def place(self, predictions: np.ndarray) -> np.ndarray:
        """(n,) the bins of some of the predictions."""
        return np.searchsorted(self.edges, predictions, side="right") - 1


def _share(predictions: np.ndarray, sample: Sample, level: float, use_predictions: bool) -> Estimate:
    size, n, labels = len(predictions), len(sample), sample.labels
    bins = Binned.of(predictions if use_predictions else np.zeros(1))
    places = bins.place(predictions[sample.galaxies] if use_predictions else np.zeros(n))
    slope = len(bins.scores) > 1
    weights = sample.weights / sample.weights.sum()
    correction = np.clip(1 - 1 / (size * weights), 0, 1)  # for a finite survey

    def binned(of_each: np.ndarray) -> np.ndarray:
        return np.bincount(places, of_each, minlength=len(bins.scores))[None]

    (a,), (b,), _ = recalibrate(bins.scores, binned(n * weights), binned(n * weights * labels), slope)
    curve = expit(a + b * bins.scores)
    p = curve[places]
    value = float(curve @ bins.shares + weights @ (labels - p))
    # Each labelled galaxy is one of the survey.
    least, most = labels.sum() / size, 1 - (1 - labels).sum() / size
    if n == size:
        return Estimate(float(labels.mean()), float(labels.mean()), float(labels.mean()))
    scatter = p * (1 - p)
    within = scatter if slope else _scatter_in_strata(sample)
    variance = weights**2 * correction @ within
    if (slope or sample.kind == "fraction") and 0 < labels.sum() < n:
        free, events = n - 1 - slope, n * (weights @ scatter)
        own = weights**2 * correction @ (labels - p) ** 2 * n / free / variance
        like = LIKE_YES_NO if sample.kind == "fraction" else LIKE_CURVE
        variance *= (own * events + like) / (events + like)
        if sample.kind == "fraction":
            variance *= (stdtrit(free, (1 + level) / 2) / ndtri((1 + level) / 2)) ** 2
    tempered = (weights @ scatter) / variance * weights
    ends = np.array([1 - level, 1 + level]) / 2
    ((low, high),) = quantiles_of_share(
        bins.scores, bins.shares, binned(tempered), binned(tempered * labels), ends, slope
    )
    low = least if labels.sum() == 0 else max(low, least)
    high = most if labels.sum() == n else min(high, most)
    return Estimate(min(max(value, low), high), float(low), float(high))


def _scatter_in_strata(sample: Sample) -> np.ndarray:
    """(n,) p (1 - p) with the share p of the labels in the stratum of each."""
    mean = (sample.weights @ sample.labels / sample.weights.sum() * len(sample) + 0.5) / (len(sample) + 1)
    counts = np.bincount(sample.strata)
    if len(counts) == 1:
        return np.full(len(sample), mean * (1 - mean))
    shares = (np.bincount(sample.strata, sample.labels) + LIKE_ALL * mean) / (counts + LIKE_ALL)
    return (shares * (1 - shares))[sample.strata]


def _mean_of_values(predictions: np.ndarray, sample: Sample, level: float, use_predictions: bool) -> Estimate:
    own, labels, n = predictions[sample.galaxies].astype(float), sample.labels, len(sample)
    weights = sample.weights / sample.weights.sum()
    correction = np.clip(1 - 1 / (len(predictions) * weights), 0, 1)
    mean, predicted = weights @ labels, weights @ own
    spread = weights @ (own - predicted) ** 2
    use_predictions = use_predictions and bool(spread > 0)
    slope = weights @ ((own - predicted) * (labels - mean)) / spread if use_predictions else 0.0
    value = mean + slope * (np.mean(predictions, dtype=float) - predicted)
    residuals = labels - mean - slope * (own - predicted)
    free = n - 1 - use_predictions
    deviation = math.sqrt(weights**2 * correction @ residuals**2 * n / free)
    reach = stdtrit(free, (1 + level) / 2) * deviation
    return Estimate(float(value), float(value - reach), float(value + reach))
