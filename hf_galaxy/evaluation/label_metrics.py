"""How good predicted yes/no labels are, each beside its constant rate. Legend: B galaxies, K labels, R replicates."""

from typing import Any, Self

import numpy as np
import torch

from hf_galaxy.evaluation import bootstrap
from hf_galaxy.evaluation.bootstrap import ratios, six_digits
from hf_galaxy.evaluation.class_metrics import ranked
from hf_galaxy.losses import masked_binary_cross_entropy

FIGURES = ("error", "average_precision")


class LabelMetrics:
    """Binary cross-entropy of all labels; error and average precision of each, over the galaxies that have it.

    The error is the share of galaxies whose likelier answer is wrong. The average precision of a constant is the share of
    positive galaxies; where all or no galaxies are positive there is none.

    Args:
        names: of the K labels.
        rates: (K,) shares of positive galaxies in the training split: the constant prediction.
    """

    def __init__(self, names: list[str], rates: torch.Tensor) -> None:
        self.names, self.rates = names, rates
        self.labels: list[torch.Tensor] = []
        self.logits: list[torch.Tensor] = []
        self.keys: list[torch.Tensor] = []

    def update(self, batch: dict[str, torch.Tensor], outputs: Any) -> None:
        """Add a batch: `labels` (B, K) and perhaps `keys` (B,) of the batch, `logits` (B, K) of the outputs."""
        self.labels.append(batch["labels"])
        self.logits.append(outputs.logits)
        if "keys" in batch:
            self.keys.append(batch["keys"])

    def cpu(self) -> Self:
        """Move the batches off the device, to be sent to other processes."""
        self.labels, self.logits = [x.cpu() for x in self.labels], [x.float().cpu() for x in self.logits]
        self.keys = [x.cpu() for x in self.keys]
        return self

    def __add__(self, other: Self) -> Self:
        joined = type(self)(self.names, self.rates)
        joined.labels, joined.logits = self.labels + other.labels, self.logits + other.logits
        joined.keys = self.keys + other.keys
        return joined

    @property
    def loss(self) -> float:
        """Mean over galaxies of the binary cross-entropy: what training minimises."""
        return masked_binary_cross_entropy(torch.cat(self.labels), torch.cat(self.logits)).mean().item()

    def compute(self) -> dict:
        """All figures; `positive` is the number of positive galaxies of a label."""
        labels, logits = torch.cat(self.labels), torch.cat(self.logits).double()
        once = np.ones((len(labels), 1))
        constant = self.rates.double().logit().expand_as(logits)
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
        if self.keys:
            measured["bootstrap"] = self._bootstrap(labels, logits)
        return measured

    def _bootstrap(self, labels: torch.Tensor, logits: torch.Tensor) -> dict:
        """The model's figures in each replicate, rounded to six digits; None where too few galaxies count."""
        figures = _figures(labels, logits, bootstrap.counts(torch.cat(self.keys).numpy()))
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
