"""How good predicted yes/no labels are, each beside its constant rate. Legend: B galaxies, K labels, R replicates."""

import numpy as np
import torch

from hf_galaxy.evaluation.bootstrap import ratios, six_digits
from hf_galaxy.evaluation.class_metrics import ranked
from hf_galaxy.evaluation.logit_metrics import LogitMetrics
from hf_galaxy.losses import masked_binary_cross_entropy

FIGURES = ("error", "average_precision")


class LabelMetrics(LogitMetrics):
    """Binary cross-entropy of all labels; error and average precision of each, over the galaxies that have it.

    The error is the share of galaxies whose likelier answer is wrong. The average precision of a constant is the share of
    positive galaxies; where all or no galaxies are positive there is none.

    Args:
        baseline: (K,) shares of positive galaxies in the training split.
    """

    @property
    def loss(self) -> float:
        """Mean over galaxies of the binary cross-entropy: what training minimises."""
        return masked_binary_cross_entropy(self.labels, self.logits).mean().item()

    def compute(self) -> dict:
        """All figures; `positive` is the number of positive galaxies of a label."""
        labels, logits, times = self.labels, self.logits.double(), self.times
        once = np.ones((len(labels), 1))
        constant = self.baseline.double().logit().expand_as(logits)
        figures = {who: _figures(labels, values, once) for who, values in (("model", logits), ("baseline", constant))}

        def both(figure: str, *k: int) -> dict[str, float | None]:
            return {who: _or_none(each[figure][(0, *k)]) for who, each in figures.items()}

        measured = {
            "galaxies": len(labels),
            "loss": both("loss"),
            "labels": {
                name: {"galaxies": int((labels[:, k] >= 0).sum()), "positive": int((labels[:, k] > 0).sum())}
                | {figure: both(figure, k) for figure in FIGURES}
                for k, name in enumerate(self.names)
            },
        }
        if times is not None:
            measured["bootstrap"] = self._bootstrap(labels, logits, times)
        return measured

    def _bootstrap(self, labels: torch.Tensor, logits: torch.Tensor, times: np.ndarray) -> dict:
        """The model's figures in each replicate, rounded to six digits; None where too few galaxies count."""
        figures = _figures(labels, logits, times)
        return {
            "loss": {"model": six_digits(figures["loss"])},
            "labels": {
                name: {figure: {"model": six_digits(figures[figure][:, k])} for figure in FIGURES}
                for k, name in enumerate(self.names)
            },
        }


def _figures(labels: torch.Tensor, logits: torch.Tensor, times: np.ndarray) -> dict[str, np.ndarray]:
    """`loss` (R,), `error` and `average_precision` (R, K) of galaxies that count so often (B, R)."""
    losses = masked_binary_cross_entropy(labels, logits).numpy()
    known, wrong = ~torch.isnan(labels).numpy(), ((logits > 0) != (labels > 0)).numpy()
    precision = [
        ranked((labels[:, k] > 0).numpy()[has], logits[:, k].numpy()[has], times[has])[1]
        for k, has in enumerate(known.T)
    ]
    return {
        "loss": ratios(times.T @ losses, times.sum(0)),
        "error": ratios(times.T @ (wrong & known), times.T @ known),
        "average_precision": np.stack(precision, axis=1),
    }


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
