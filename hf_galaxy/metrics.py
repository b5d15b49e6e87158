"""How good predictions are, each figure beside that of the best constant prediction. Legend: N, B galaxies, A answers,
Q questions, C classes.

Metrics are sums and counts: `update` adds a batch, `+` joins processes, `compute` divides once, at the end. A figure for
which there are no galaxies is None, never 0.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import digamma, gammaln
from sklearn.metrics import log_loss, roc_auc_score

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.losses import dirichlet_multinomial_nll, multinomial_nll, sum_per_question


@dataclass
class ConstantVotes:
    """What to answer about every galaxy if nothing is known of it but the training split's votes.

    Attributes:
        fractions: (A,) mean vote fractions of the galaxies with enough votes for the question.
        concentrations: (A,) the constant Dirichlet under which all training votes are likeliest.
        shares: (A,) of all training votes for the question: the likeliest constant fractions of a multinomial.
    """

    fractions: torch.Tensor
    concentrations: torch.Tensor
    shares: torch.Tensor

    @classmethod
    def of(cls, votes: np.ndarray, tree: DecisionTree, min_votes: int) -> Self:
        """From (N, A) training votes. A question without votes gets equal fractions and concentrations of 1."""
        parts = {"fractions": [], "concentrations": [], "shares": []}
        for where in tree.slices:
            own = votes[:, where].astype(np.float64)
            own = own[own.sum(axis=1) > 0]
            answers = own.shape[1]
            enough = own[own.sum(axis=1) >= min_votes]
            telling = enough if len(enough) else own
            fractions = telling / telling.sum(axis=1, keepdims=True)
            parts["fractions"].append(fractions.mean(axis=0) if len(own) else np.full(answers, 1 / answers))
            parts["concentrations"].append(_likeliest_concentrations(own) if len(own) else np.ones(answers))
            parts["shares"].append(own.sum(axis=0) / own.sum() if len(own) else np.full(answers, 1 / answers))
        return cls(**{name: torch.tensor(np.concatenate(each), dtype=torch.float32) for name, each in parts.items()})

    def to_dict(self) -> dict:
        """Plain lists, for a run record."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_dict(cls, data: dict) -> Self:
        """What `to_dict` wrote."""
        return cls(**{name: torch.tensor(values) for name, values in data.items()})


def _likeliest_concentrations(votes):
    """(answers,) maximum-likelihood concentrations of one question from (N, answers) votes, by L-BFGS on their logarithm.

    The likelihood needs only how often each count occurs, so its cost does not grow with the number of galaxies.
    """
    counts = [np.unique(column, return_counts=True) for column in votes.T]
    totals = np.unique(votes.sum(axis=1), return_counts=True)

    def nll_and_gradient(log_concentrations):
        a = np.exp(log_concentrations)
        a0 = a.sum()
        value = (totals[1] * (gammaln(totals[0] + a0) - gammaln(a0))).sum()
        slope0 = (totals[1] * (digamma(totals[0] + a0) - digamma(a0))).sum()
        slopes = np.empty_like(a)
        for i, (k, times) in enumerate(counts):
            value -= (times * (gammaln(k + a[i]) - gammaln(a[i]))).sum()
            slopes[i] = slope0 - (times * (digamma(k + a[i]) - digamma(a[i]))).sum()
        return value / len(votes), a * slopes / len(votes)

    start = np.log(votes.mean(axis=0) / votes.sum(axis=1).mean() * votes.shape[1] + 0.01)
    # Votes that vary no more than by counting would send the concentrations to infinity; e^10 is as good.
    return np.exp(minimize(nll_and_gradient, start, jac=True, method="L-BFGS-B", bounds=[(-7, 10)] * len(start)).x)


class VoteMetrics:
    """Likelihood, vote-fraction errors and plurality accuracy, per question and per campaign.

    Fractions are compared only in galaxies with at least `min_votes` votes for the question (20 in GZ Evo), where volunteers'
    own scatter is small. Accuracy is the share of those in which the answer with the largest predicted fraction got the most votes.
    """

    def __init__(
        self,
        tree: DecisionTree,
        baseline: ConstantVotes,
        min_votes: int = 20,
        likelihood: str = "dirichlet_multinomial",
    ):
        self.tree, self.baseline, self.min_votes, self.likelihood = tree, baseline, min_votes, likelihood
        self.sums: dict[str, torch.Tensor] = {}

    def update(self, inputs: dict, outputs) -> None:
        """Add a batch: `votes` (B, A) of the inputs, `fractions` (B, A) and `nll` (B, Q) of the outputs."""
        votes = inputs["votes"]
        totals = sum_per_question(votes, self.tree)
        self._add("galaxies", torch.tensor([len(votes)], device=votes.device))
        self._add("asked", (totals > 0).sum(0))
        self._add("enough", (totals >= self.min_votes).sum(0))
        in_campaign = [(totals[:, questions] > 0).any(1).sum() for questions in self.tree.campaigns.values()]
        self._add("in_campaign", torch.stack(in_campaign))
        fractions, concentrations, shares = (
            values.to(votes.device).expand(votes.shape) for values in vars(self.baseline).values()
        )
        if self.likelihood == "multinomial":
            constant_nll = multinomial_nll(votes, shares.clamp_min(1e-6).log(), self.tree)
        else:
            constant_nll = dirichlet_multinomial_nll(votes, concentrations, self.tree)
        self._compare("model", votes, totals, outputs.fractions, outputs.nll)
        self._compare("baseline", votes, totals, fractions, constant_nll)

    def _compare(self, who, votes, totals, fractions, nll):
        group = torch.tensor(self.tree.question_of_answer, device=votes.device)
        answers = torch.bincount(group)
        enough = totals >= self.min_votes
        precise = torch.float32 if votes.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        error = ((fractions - votes / totals.clamp_min(1)[:, group]) * enough[:, group]).to(precise)
        self._add(f"{who} nll", nll.to(precise).sum(0))
        self._add(f"{who} squares", (sum_per_question(error**2, self.tree) / answers).sum(0))
        self._add(f"{who} absolutes", (sum_per_question(error.abs(), self.tree) / answers).sum(0))
        correct = [
            votes[:, where].gather(1, fractions[:, where].argmax(1, keepdim=True))[:, 0] == votes[:, where].amax(1)
            for where in self.tree.slices
        ]
        self._add(f"{who} correct", (torch.stack(correct, 1) & enough).sum(0))

    def _add(self, name, values):
        self.sums[name] = self.sums.get(name, 0) + values

    def cpu(self) -> Self:
        """Move the sums off the device, to be sent to other processes."""
        self.sums = {name: values.cpu() for name, values in self.sums.items()}
        return self

    def __add__(self, other: Self) -> Self:
        joined = VoteMetrics(self.tree, self.baseline, self.min_votes, self.likelihood)
        for part in (self, other):
            for name, values in part.sums.items():
                joined._add(name, values)
        return joined

    @property
    def loss(self) -> float:
        """Mean over galaxies of the summed negative log-likelihood: what training minimises."""
        return self._loss("model")

    def _loss(self, who):
        return (self.sums[f"{who} nll"].sum() / self.sums["galaxies"]).item()

    def compute(self) -> dict:
        """All figures; negative log-likelihoods are in nats per galaxy that was asked, errors are of fractions in [0, 1].

        A campaign's nll is that of all its questions, per galaxy; its other figures are means over its questions.
        """
        sums = {name: values.double().numpy() for name, values in self.sums.items()}

        def both(figure):
            return {who: figure(who) for who in ("model", "baseline")}

        def ratio(total, count, root=False):
            value = float(total) / float(count) if count else None
            return value**0.5 if root and value is not None else value

        def question(i):
            enough = sums["enough"][i]
            return {
                "galaxies_asked": int(sums["asked"][i]),
                "galaxies_with_enough_votes": int(enough),
                "nll": both(lambda who: ratio(sums[f"{who} nll"][i], sums["asked"][i])),
                "rmse": both(lambda who: ratio(sums[f"{who} squares"][i], enough, root=True)),
                "mae": both(lambda who: ratio(sums[f"{who} absolutes"][i], enough)),
                "accuracy": both(lambda who: ratio(sums[f"{who} correct"][i], enough)),
            }

        def campaign(i, questions):
            counted = [q for q in questions if sums["enough"][q]]

            def mean(name, root=False):
                return both(
                    lambda who: ratio(
                        sum(ratio(sums[f"{who} {name}"][q], sums["enough"][q], root) for q in counted), len(counted)
                    )
                )

            return {
                "galaxies": int(sums["in_campaign"][i]),
                "nll": both(lambda who: ratio(sums[f"{who} nll"][questions].sum(), sums["in_campaign"][i])),
                "rmse": mean("squares", root=True),
                "mae": mean("absolutes"),
                "accuracy": mean("correct"),
            }

        return {
            "galaxies": int(sums["galaxies"][0]),
            "min_votes": self.min_votes,
            "loss": both(self._loss),
            "questions": {q.name: question(i) for i, q in enumerate(self.tree.questions)},
            "campaigns": {name: campaign(i, qs) for i, (name, qs) in enumerate(self.tree.campaigns.items())},
        }


class ClassMetrics:
    """Accuracy, balanced accuracy, area under the ROC curve (one against the rest, mean over classes) and cross-entropy.

    Args:
        log_priors: (C,) log shares of the classes in the training split: the constant prediction.
    """

    def __init__(self, names: list[str], log_priors: torch.Tensor):
        self.names, self.log_priors = names, log_priors
        self.labels, self.logits = [], []

    def update(self, inputs: dict, outputs) -> None:
        """Add a batch: `labels` (B,) of the inputs, `logits` (B, C) of the outputs."""
        self.labels.append(inputs["labels"])
        self.logits.append(outputs.logits)

    def cpu(self) -> Self:
        """Move what was collected off the device, to be sent to other processes."""
        self.labels, self.logits = [x.cpu() for x in self.labels], [x.float().cpu() for x in self.logits]
        return self

    def __add__(self, other: Self) -> Self:
        joined = ClassMetrics(self.names, self.log_priors)
        joined.labels, joined.logits = self.labels + other.labels, self.logits + other.logits
        return joined

    @property
    def loss(self) -> float:
        """Mean cross-entropy: what training minimises."""
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
        }

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
