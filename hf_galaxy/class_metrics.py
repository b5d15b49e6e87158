"""How good predicted classes are, as `metrics` says it of votes. Legend: B galaxies, C classes, R replicates."""

from typing import Self

import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score

from hf_galaxy import bootstrap
from hf_galaxy.bootstrap import mean_of_counted, ratios, six_digits
from hf_galaxy.metrics import BINS


class ClassMetrics:
    """Accuracy, balanced accuracy, area under the ROC curve (one against the rest, mean over classes) and cross-entropy.

    The cross-entropy is the plain one, in nats, whatever label smoothing and class weights a model is trained with: so models
    can be compared, and the best epoch is chosen by the same measure.

    Args:
        log_priors: (C,) log shares of the classes in the training split: the constant prediction.
    """

    def __init__(self, names: list[str], log_priors: torch.Tensor):
        self.names, self.log_priors = names, log_priors
        self.labels, self.logits, self.keys = [], [], []

    def update(self, batch: dict, outputs) -> None:
        """Add a batch: `labels` (B,) and perhaps `keys` (B,) of the batch, `logits` (B, C) of the outputs."""
        self.labels.append(batch["labels"])
        self.logits.append(outputs.logits)
        if "keys" in batch:
            self.keys.append(batch["keys"])

    def cpu(self) -> Self:
        """Move what was collected off the device, to be sent to other processes."""
        self.labels, self.logits = [x.cpu() for x in self.labels], [x.float().cpu() for x in self.logits]
        self.keys = [x.cpu() for x in self.keys]
        return self

    def __add__(self, other: Self) -> Self:
        joined = ClassMetrics(self.names, self.log_priors)
        joined.labels, joined.logits = self.labels + other.labels, self.logits + other.logits
        joined.keys = self.keys + other.keys
        return joined

    @property
    def loss(self) -> float:
        """Mean cross-entropy: what training minimises, but for label smoothing and class weights."""
        return torch.nn.functional.cross_entropy(torch.cat(self.logits), torch.cat(self.labels)).item()

    def compute(self) -> dict:
        """All figures, and the confusion matrix of the model: rows are true classes, columns predicted ones."""
        labels, logits = torch.cat(self.labels), torch.cat(self.logits)
        predictions = {"model": logits, "baseline": self.log_priors.expand_as(logits)}
        figures = {who: self._figures(labels.numpy(), values) for who, values in predictions.items()}
        classes = len(self.names)
        confusion = torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
        return {
            "galaxies": len(labels),
            **{name: {who: figures[who][name] for who in figures} for name in figures["model"]},
            "confusion": confusion.tolist(),
            **({"calibration": self._calibration(labels, logits)} if self.keys else {}),
            **({"bootstrap": self._bootstrap(labels, logits)} if self.keys else {}),
        }

    def _calibration(self, labels, logits):
        """By the probability of the likeliest class, in BINS: `galaxies`, their mean `probability`, and the share `accuracy` in
        which that class is right; `error` is the mean distance of both (Guo et al. 2017, huggingface.co/papers/1706.04599).
        """
        probability, predicted = logits.double().softmax(1).max(1)
        bins = (probability * BINS).long().clamp_max(BINS - 1)
        weights = (torch.ones_like(probability), probability, (predicted == labels).double())
        galaxies, claimed, right = (torch.bincount(bins, each, BINS).numpy() for each in weights)
        return {
            "galaxies": galaxies.astype(int).tolist(),
            "probability": six_digits(ratios(claimed, galaxies)),
            "accuracy": six_digits(ratios(right, galaxies)),
            "error": float(abs(claimed - right).sum() / len(labels)),
        }

    def _bootstrap(self, labels, logits):
        """The model's figures in each replicate, rounded to six digits."""
        times = bootstrap.counts(torch.cat(self.keys).numpy())
        each = {
            "loss": torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none"),
            "accuracy": (logits.argmax(1) == labels).double(),
        }
        figures = {name: ratios(times.T @ values.numpy(), times.sum(0)) for name, values in each.items()}
        of_class = torch.nn.functional.one_hot(labels, len(self.names)).double().numpy()
        recalls = ratios(times.T @ (of_class * each["accuracy"].numpy()[:, None]), times.T @ of_class)
        figures["balanced_accuracy"] = mean_of_counted(recalls)  # a class that no galaxy is of does not count
        return {name: {"model": six_digits(values)} for name, values in figures.items()}

    def _figures(self, labels, logits):
        shares = logits.double().softmax(1).numpy()
        every = list(range(len(self.names)))
        predicted = shares.argmax(1)
        if len(set(labels)) < len(every):
            auc = None  # a class without a galaxy has no ROC curve
        elif len(every) == 2:
            auc = float(roc_auc_score(labels, shares[:, 1]))
        else:
            auc = float(roc_auc_score(labels, shares, multi_class="ovr", labels=every))
        recalls = [(predicted[labels == c] == c).mean() for c in set(labels)]
        return {
            "loss": float(log_loss(labels, shares, labels=every)),
            "accuracy": float((predicted == labels).mean()),
            "balanced_accuracy": float(np.mean(recalls)),
            "auc": auc,
        }
