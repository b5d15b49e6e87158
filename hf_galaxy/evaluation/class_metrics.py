"""Figures of merit of predicted classes, beside those of the class frequencies. Legend: B galaxies, C classes, R replicates."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import log_loss

from hf_galaxy.evaluation.bootstrap import mean_of_counted, ratios, six_digits
from hf_galaxy.evaluation.logit_metrics import LogitMetrics
from hf_galaxy.evaluation.vote_metrics import BINS


class ClassMetrics(LogitMetrics):
    """Accuracy, balanced accuracy, area under the ROC curve, average precision, and cross-entropy.

    With two classes, area and average precision are of the second one; with more, they are means over the classes, each against
    the rest. By chance the area is 0.5, the average precision the share of the class. Where a class has no galaxy they are None.

    The cross-entropy is in nats, without the label smoothing and class weights of training: so models can be compared, and the
    best epoch is chosen by the same measure.

    Args:
        baseline: (C,) log shares of the classes in the training split.
        uncalibrated: of a calibrated model: from its logits to those before the calibration, which are measured, too.
    """

    def __init__(
        self,
        names: list[str],
        baseline: torch.Tensor,
        uncalibrated: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(names, baseline)
        self.uncalibrated = uncalibrated

    @property
    def loss(self) -> float:
        """Mean cross-entropy: the training loss without label smoothing and class weights."""
        return torch.nn.functional.cross_entropy(self.logits, self.labels).item()

    def compute(self) -> dict:
        """All figures, and the confusion matrix of the model: rows are true classes, columns predicted ones."""
        labels, logits, times = self.labels, self.logits, self.times
        predictions = {"model": logits, "baseline": self.baseline.expand_as(logits)}
        figures = {who: self._figures(labels.numpy(), values) for who, values in predictions.items()}
        classes = len(self.names)
        confusion = torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
        measured = {
            "galaxies": len(labels),
            **{name: {who: figures[who][name] for who in figures} for name in figures["model"]},
            "confusion": confusion.tolist(),
        }
        if times is not None:
            measured["calibration"] = self._calibration(labels, logits)
            if self.uncalibrated is not None:
                before = self.uncalibrated(logits)
                measured["calibration"]["uncalibrated"] = self._calibration(labels, before) | {
                    "loss": torch.nn.functional.cross_entropy(before.double(), labels).item()
                }
            measured["bootstrap"] = self._bootstrap(labels, logits, times)
        return measured

    def _calibration(self, labels: torch.Tensor, logits: torch.Tensor) -> dict:
        """By the probability of the likeliest class, in BINS: `galaxies`, their mean `probability`, and the share `accuracy` in
        which that class is right; `error` is the mean distance of both (Guo et al. 2017, huggingface.co/papers/1706.04599).
        """
        probability, predicted = logits.double().softmax(1).max(1)
        bins = (probability * BINS).long().clamp_max(BINS - 1)
        weights = (torch.ones_like(probability), probability, (predicted == labels).double())
        galaxies, predicted_right, right = (torch.bincount(bins, each, BINS).numpy() for each in weights)
        return {
            "galaxies": galaxies.astype(int).tolist(),
            "probability": six_digits(ratios(predicted_right, galaxies)),
            "accuracy": six_digits(ratios(right, galaxies)),
            "error": float(abs(predicted_right - right).sum() / len(labels)),
        }

    def _bootstrap(self, labels: torch.Tensor, logits: torch.Tensor, times: np.ndarray) -> dict:
        """The model's figures in each replicate, rounded to six digits."""
        each = {
            "loss": torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none"),
            "accuracy": (logits.argmax(1) == labels).double(),
        }
        figures = {name: ratios(times.T @ values.numpy(), times.sum(0)) for name, values in each.items()}
        of_class = torch.nn.functional.one_hot(labels, len(self.names)).double().numpy()
        recalls = ratios(times.T @ (of_class * each["accuracy"].numpy()[:, None]), times.T @ of_class)
        figures["balanced_accuracy"] = mean_of_counted(recalls)  # a class that no galaxy is of does not count
        figures |= _ranking_metrics(labels.numpy(), logits.double().softmax(1).numpy(), times)
        return {name: {"model": six_digits(values)} for name, values in figures.items()}

    def _figures(self, labels: np.ndarray, logits: torch.Tensor) -> dict[str, float | None]:
        shares = logits.double().softmax(1).numpy()
        every = list(range(len(self.names)))
        predicted = shares.argmax(1)
        rankings = _ranking_metrics(labels, shares, np.ones((len(labels), 1)))
        recalls = [(predicted[labels == c] == c).mean() for c in set(labels)]
        return {
            "loss": float(log_loss(labels, shares, labels=every)),
            "accuracy": float((predicted == labels).mean()),
            "balanced_accuracy": float(np.mean(recalls)),
            **{name: float(value) if np.isfinite(value) else None for name, (value,) in rankings.items()},
        }


def _ranking_metrics(labels: np.ndarray, shares: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """`auc` and `average_precision` (R,), with weights `times` (B, R) of the galaxies; NaN where a class has none."""
    classes = [1] if shares.shape[1] == 2 else range(shares.shape[1])
    areas, precisions = zip(*(ranked(labels == c, shares[:, c], times) for c in classes), strict=True)
    return {"auc": np.mean(areas, axis=0), "average_precision": np.mean(precisions, axis=0)}


def ranked(positive: np.ndarray, scores: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve, and average precision, with weights of the galaxies in each replicate.

    The area is the probability that a positive galaxy has a higher score than another one, where equal scores count half. The
    average precision is the sum of (r_k - r_(k-1)) p_k over the distinct scores from the highest, where r_k is the share of the
    positive galaxies that have at least this score, and p_k the share of those with at least this score that are positive.

    Args:
        positive: (B,) bool.
        scores: (B,) finite; sorted once for all replicates.
        times: (B, R) how often each galaxy counts.

    Returns:
        Two of (R,), NaN where no galaxy is positive, or all are.
    """
    order = np.argsort(-scores)
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # the last of those with equal scores
    positive = positive[order]
    figures = np.full((2, times.shape[1]), np.nan)
    for r, counts in enumerate(times.T):
        counts = counts[order]
        above, true_above = np.cumsum(counts)[ends], np.cumsum(counts * positive)[ends]  # with at least each score
        others = above[-1] - true_above[-1]
        if true_above[-1] and others:
            gained = np.diff(true_above, prepend=0)
            # Of each positive galaxy: the other ones below it, and half of those beside it.
            beside = np.diff(above - true_above, prepend=0)
            figures[0, r] = gained @ (others - (above - true_above) + beside / 2) / (true_above[-1] * others)
            figures[1, r] = (
                gained @ np.divide(true_above, above, out=np.zeros_like(above), where=above > 0) / true_above[-1]
            )
    return figures[0], figures[1]
