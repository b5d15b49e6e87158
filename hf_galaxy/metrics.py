"""How good predictions are, each figure beside that of the best constant prediction. Legend: N, B galaxies, A answers,
Q questions, C classes, K values, R replicates.

Metrics are sums and counts: `update` adds a batch, `+` joins processes, `compute` divides once, at the end. A figure for
which there are no galaxies is None, never 0. Where batches say who their galaxies are (`keys`), as when a split is measured
for good, figures are also given in the replicates of a bootstrap over galaxies, and predictions are held against what came
out, in bins of fixed edges (`calibration`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import digamma, gammaln
from sklearn.metrics import log_loss, roc_auc_score

from hf_galaxy import bootstrap
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.losses import (
    constant,
    dirichlet_multinomial_nll,
    multinomial_nll,
    question_of_answer,
    standardised_squared_error,
    sum_per_question,
)

BINS = 10  # of predicted fractions and of a class's probability, equally wide
PLACES = 20  # parts of a predicted distribution: central intervals of 10 %, 20 %, ... end at their edges
LEVELS = (50, 80, 90)  # per cent of the central intervals whose coverage is given


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
    def of(cls, batches: Iterable[np.ndarray], tree: DecisionTree, min_votes: int) -> Self:
        """From all training votes, (n, A) at a time: what is kept of them does not grow with the number of galaxies.

        A question without votes gets equal fractions and concentrations of 1.
        """
        questions = np.array(tree.question_of_answer)
        starts = [where.start for where in tree.slices]
        sums = {name: np.zeros(len(starts), np.int64) for name in ("asked", "enough")}
        sums |= {name: np.zeros(len(questions)) for name in ("votes", "fractions of asked", "fractions of enough")}
        occurrences = _Occurrences()
        for votes in batches:
            totals = np.add.reduceat(votes, starts, axis=1, dtype=np.int64)
            sums["asked"] += (totals > 0).sum(axis=0)
            sums["enough"] += (totals >= max(min_votes, 1)).sum(axis=0)
            galaxy, answer = np.nonzero(votes)
            k, total = votes[galaxy, answer], totals[galaxy, questions[answer]]
            in_enough = total >= min_votes
            sums["votes"] += np.bincount(answer, k, len(questions))
            sums["fractions of asked"] += np.bincount(answer, k / total, len(questions))
            sums["fractions of enough"] += np.bincount(answer, k / total * in_enough, len(questions))
            galaxy, question = np.nonzero(totals)
            occurrences.add(answer, k)
            occurrences.add(len(questions) + question, totals[galaxy, question])

        parts = {"fractions": [], "concentrations": [], "shares": []}
        for q, where in enumerate(tree.slices):
            answers = where.stop - where.start
            if not sums["asked"][q]:
                for name, value in (("fractions", 1 / answers), ("concentrations", 1), ("shares", 1 / answers)):
                    parts[name].append(np.full(answers, value))
                continue
            telling = "enough" if sums["enough"][q] else "asked"
            shares = sums["votes"][where] / sums["votes"][where].sum()
            counts = [occurrences.of(answer) for answer in range(where.start, where.stop)]
            parts["fractions"].append(sums[f"fractions of {telling}"][where] / sums[telling][q])
            parts["shares"].append(shares)
            parts["concentrations"].append(
                _likeliest_concentrations(counts, occurrences.of(len(questions) + q), shares)
            )
        return cls(**{name: torch.tensor(np.concatenate(each), dtype=torch.float32) for name, each in parts.items()})

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        return type(self)(**{name: values.to(device) for name, values in vars(self).items()})

    def to_dict(self) -> dict:
        """Plain lists, for a run record."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_dict(cls, data: dict) -> Self:
        """What `to_dict` wrote."""
        return cls(**{name: torch.tensor(values) for name, values in data.items()})


class _Occurrences:
    """How often each count occurs in each column; zeros are left out, as they add nothing to a likelihood."""

    def __init__(self):
        self.pairs, self.times = np.empty(0, np.int64), np.empty(0, np.int64)  # column * 2^40 + count, in order

    def add(self, column, count):
        """Some counts and the columns that they stand in."""
        pairs, times = np.unique((column << 40) + count, return_counts=True)
        self.pairs, places = np.unique(np.concatenate([self.pairs, pairs]), return_inverse=True)
        self.times = np.bincount(places, np.concatenate([self.times, times])).astype(np.int64)

    def of(self, column):
        """The counts of a column and how often each occurs."""
        own = slice(*np.searchsorted(self.pairs, [column << 40, (column + 1) << 40]))
        return self.pairs[own] - (column << 40), self.times[own]


def _likeliest_concentrations(counts, totals, shares):
    """(answers,) maximum-likelihood concentrations of one question, by L-BFGS on their logarithm.

    The likelihood needs only how often each count of each answer occurs, and each total.
    """
    galaxies = totals[1].sum()

    def nll_and_gradient(log_concentrations):
        a = np.exp(log_concentrations)
        a0 = a.sum()
        value = (totals[1] * (gammaln(totals[0] + a0) - gammaln(a0))).sum()
        slope0 = (totals[1] * (digamma(totals[0] + a0) - digamma(a0))).sum()
        slopes = np.empty_like(a)
        for i, (k, times) in enumerate(counts):
            value -= (times * (gammaln(k + a[i]) - gammaln(a[i]))).sum()
            slopes[i] = slope0 - (times * (digamma(k + a[i]) - digamma(a[i]))).sum()
        return value / galaxies, a * slopes / galaxies

    start = np.log(shares * len(shares) + 0.01)
    # Votes that vary no more than by counting would send the concentrations to infinity; e^10 is as good.
    return np.exp(minimize(nll_and_gradient, start, jac=True, method="L-BFGS-B", bounds=[(-7, 10)] * len(start)).x)


class VoteMetrics:
    """Likelihood, vote-fraction errors and plurality accuracy, per question and per campaign.

    The saturated nll is that of a multinomial with the fractions of the votes themselves: no prediction whatsoever can do
    better, as it knows how the volunteers' scatter came out; what is left of a loss above it is a bound on what is to be gained.

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

    def update(self, batch: dict, outputs) -> None:
        """Add a batch: `votes` (B, A) and perhaps `keys` (B,) of the batch, `fractions` (B, A) and `nll` (B, Q) of the outputs."""
        # Without keys nothing is read from the device or copied to it, after the first batch: either would wait for it.
        votes = batch["votes"]
        self.baseline = self.baseline.to(votes.device)
        totals = sum_per_question(votes, self.tree)
        self._add("galaxies", torch.full((1,), len(votes), device=votes.device))
        self._add("asked", (totals > 0).sum(0))
        self._add("enough", (totals >= self.min_votes).sum(0))
        campaigns = list(self.tree.campaigns)
        campaign = constant(tuple(campaigns.index(q.campaign) for q in self.tree.questions), votes.device)
        seen = totals.new_zeros(len(votes), len(campaigns)).index_add_(1, campaign, totals)
        self._add("in_campaign", (seen > 0).sum(0))
        fractions, concentrations, shares = (values.expand(votes.shape) for values in vars(self.baseline).values())
        if self.likelihood == "multinomial":
            constant_nll = multinomial_nll(votes, shares.clamp_min(1e-6).log(), self.tree)
        else:
            constant_nll = dirichlet_multinomial_nll(votes, concentrations, self.tree)
        saturated = multinomial_nll(votes, votes.clamp_min(1e-30).log(), self.tree)
        precise = torch.float32 if votes.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self._add("saturated nll", saturated.to(precise).sum(0))
        times = None
        if "keys" in batch:
            times = torch.from_numpy(bootstrap.counts(batch["keys"].cpu().numpy())).to(votes.device, precise).T
            self._add("galaxies (R)", times.sum(1))
            self._add("asked (R, Q)", times @ (totals > 0).to(precise))
            self._add("enough (R, Q)", times @ (totals >= self.min_votes).to(precise))
            self._add("saturated nll (R, Q)", times @ saturated.to(precise))
            self._add("in_campaign (R, campaigns)", times @ (seen > 0).to(precise))
            self._calibrate(votes, totals, outputs, precise)
        self._compare("model", votes, totals, outputs.fractions, outputs.nll, precise, times)
        self._compare("baseline", votes, totals, fractions, constant_nll, precise)

    def _compare(self, who, votes, totals, fractions, nll, precise, times=None):
        group = question_of_answer(self.tree, votes.device)
        answers = constant(tuple(len(q.answers) for q in self.tree.questions), votes.device)
        enough = totals >= self.min_votes
        measured = votes / totals.clamp_min(1).index_select(1, group)
        error = ((fractions - measured) * enough.index_select(1, group)).to(precise)
        squares = sum_per_question(error**2, self.tree) / answers
        self._add(f"{who} nll", nll.to(precise).sum(0))
        self._add(f"{who} squares", squares.sum(0))
        if times is not None:
            self._add(f"{who} nll (R, Q)", times @ nll.to(precise))
            self._add(f"{who} squares (R, Q)", times @ squares)
        self._add(f"{who} absolutes", (sum_per_question(error.abs(), self.tree) / answers).sum(0))
        predicted, own = (self._by_question(values) for values in (fractions, votes))
        correct = own.gather(2, predicted.argmax(2, keepdim=True)).squeeze(2) == own.amax(2)
        self._add(f"{who} correct", (correct & enough).sum(0))
        if times is not None:
            self._add(f"{who} correct (R, Q)", times @ (correct & enough).to(precise))

    def _calibrate(self, votes, totals, outputs, precise):
        """Votes by the fraction that was predicted, and how far up in what was predicted of them they lie."""
        group = question_of_answer(self.tree, votes.device)
        cast = totals.index_select(1, group)
        fractions = outputs.fractions.to(precise)
        bins = group * BINS + (fractions * BINS).long().clamp_max(BINS - 1)
        for name, values in (("cast", cast), ("predicted", cast * fractions), ("given", votes)):
            sums = fractions.new_zeros(len(self.tree.questions) * BINS)
            sums.index_add_(0, bins.flatten(), values.to(precise).flatten())
            self._add(f"{name} (Q, bins)", sums.view(-1, BINS))
        if self.likelihood == "dirichlet_multinomial":
            galaxy, answer = cast.nonzero(as_tuple=True)
            concentrations = outputs.concentrations.to(precise)
            others = sum_per_question(concentrations, self.tree).index_select(1, group) - concentrations
            shares = _places(*(values[galaxy, answer] for values in (votes, cast, concentrations, others)))
            sums = shares.new_zeros(len(self.tree.questions), PLACES)
            self._add("places (Q, places)", sums.index_add_(0, group[answer], shares))

    def _by_question(self, values):
        """(B, A) -> (B, Q, the most answers of a question), with -1 where a question has fewer."""
        most, nowhere = max(len(q.answers) for q in self.tree.questions), len(self.tree.columns)
        places = (p for where in self.tree.slices for p in (*range(nowhere)[where], *[nowhere] * most)[:most])
        padded = torch.nn.functional.pad(values, (0, 1), value=-1)
        return padded.index_select(1, constant(tuple(places), values.device)).unflatten(1, (-1, most))

    def _add(self, name, values):
        self.sums[name] = self.sums.get(name, 0) + values

    def cpu(self) -> Self:
        """Move the sums off the device, to be sent to other processes."""
        self.sums = {name: values.cpu() for name, values in self.sums.items()}
        self.baseline = self.baseline.to("cpu")
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
                "nll": {
                    who: ratio(sums[f"{who} nll"][i], sums["asked"][i]) for who in ("model", "baseline", "saturated")
                },
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
            "loss": {who: self._loss(who) for who in ("model", "baseline", "saturated")},
            "questions": {q.name: question(i) for i, q in enumerate(self.tree.questions)},
            "campaigns": {name: campaign(i, qs) for i, (name, qs) in enumerate(self.tree.campaigns.items())},
            **({"calibration": self._calibration(sums)} if "cast (Q, bins)" in sums else {}),
            **({"bootstrap": self._bootstrap(sums)} if "galaxies (R)" in sums else {}),
        }

    def _calibration(self, sums):
        """By question, and of all questions of a campaign; means are None in bins without votes.

        `cast`, `predicted`, `given` (BINS,): in galaxies with a predicted fraction in this bin the votes for the question, the
        mean predicted fraction and the fraction that the answer was given, both weighted by votes. `error` is their mean
        distance. `places` (PLACES,): the shares of answers whose votes lie in each twentieth of the beta-binomial that the
        Dirichlet predicts of them, which are equal if it is true; `coverage`, per cent -> the share in its central interval.
        """

        def over(questions):
            cast, predicted, given = (
                sums[f"{name} (Q, bins)"][questions].sum(0) for name in ("cast", "predicted", "given")
            )
            figures = {
                "cast": _six_digits(cast),
                "predicted": _six_digits(_ratios(predicted, cast)),
                "given": _six_digits(_ratios(given, cast)),
                "error": float(abs(predicted - given).sum() / cast.sum()) if cast.sum() else None,
            }
            if "places (Q, places)" in sums:
                places = sums["places (Q, places)"][questions].sum(0)
                shares = _ratios(places, places.sum())
                out = {level: PLACES * (100 - level) // 200 for level in LEVELS}
                covered = {str(level): _six_digits([shares[n : PLACES - n].sum()])[0] for level, n in out.items()}
                figures |= {"places": _six_digits(shares), "coverage": covered}
            return figures

        return {
            "questions": {q.name: over([i]) for i, q in enumerate(self.tree.questions)},
            "campaigns": {name: over(questions) for name, questions in self.tree.campaigns.items()},
        }

    def _bootstrap(self, sums):
        """The model's figures in each replicate, rounded to six digits; None where no galaxy counts."""

        def figures(total, count, root=False):
            return _six_digits(np.sqrt(_ratios(total, count)) if root else _ratios(total, count))

        asked, enough = sums["asked (R, Q)"], sums["enough (R, Q)"]

        def campaign(i, questions):
            counted = [q for q in questions if sums["enough"][q]]
            nll = sums["model nll (R, Q)"][:, questions].sum(1)
            means = {
                "nll": _ratios(nll, sums["in_campaign (R, campaigns)"][:, i]),
                "rmse": _mean(np.sqrt(_ratios(sums["model squares (R, Q)"], enough))[:, counted]),
                "accuracy": _mean(_ratios(sums["model correct (R, Q)"], enough)[:, counted]),
            }
            return {name: {"model": _six_digits(values)} for name, values in means.items()}

        return {
            "loss": {
                who: figures(sums[f"{who} nll (R, Q)"].sum(1), sums["galaxies (R)"]) for who in ("model", "saturated")
            },
            "questions": {
                q.name: {
                    "nll": {
                        who: figures(sums[f"{who} nll (R, Q)"][:, i], asked[:, i]) for who in ("model", "saturated")
                    },
                    "rmse": {"model": figures(sums["model squares (R, Q)"][:, i], enough[:, i], root=True)},
                    "accuracy": {"model": figures(sums["model correct (R, Q)"][:, i], enough[:, i])},
                }
                for i, q in enumerate(self.tree.questions)
            },
            "campaigns": {name: campaign(i, qs) for i, (name, qs) in enumerate(self.tree.campaigns.items())},
        }


def _six_digits(values):
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def _ratios(totals, counts):
    """Not a number where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return totals / counts


def _mean(values):
    """Of each row, of what was counted in it."""
    there = np.isfinite(values)
    return _ratios(np.where(there, values, 0).sum(1), there.sum(1))


def _places(k, n, a, b):
    """(..., PLACES) how much of each k of n votes lies in each part of the beta-binomial distribution with a and b.

    A count is no point of a continuous distribution: it takes up all from the probability of fewer votes to that of no more,
    evenly. If the distribution is true then on average all parts get the same (Czado, Gneiting and Held 2009, "Predictive
    model assessment for count data", eq. 2).
    """
    log_p = torch.lgamma(n + b) - torch.lgamma(b) + torch.lgamma(a + b) - torch.lgamma(n + a + b)  # of no vote
    fewer, here = torch.zeros_like(a), log_p.exp()
    for j in range(int(k.max()) if len(k) else 0):
        going = j < k
        fewer = torch.where(going, fewer + here, fewer)
        # Only what is going on is looked at: for the others the logarithms may be of negative numbers.
        log_p = log_p + ((n - j) / (j + 1)).log() + ((a + j) / (n + b - j - 1)).log()
        here = torch.where(going, log_p.exp(), here)
    upper = (fewer + here).clamp(1e-9, 1)
    lower = torch.minimum(fewer, upper - 1e-9)  # what is next to impossible takes up some room, too
    edges = torch.linspace(0, 1, PLACES + 1, dtype=a.dtype, device=a.device)
    below = (edges.clamp(lower.unsqueeze(-1), upper.unsqueeze(-1)) - lower.unsqueeze(-1)) / (upper - lower).unsqueeze(
        -1
    )
    return below.diff(dim=-1)


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
            "probability": _six_digits(_ratios(claimed, galaxies)),
            "accuracy": _six_digits(_ratios(right, galaxies)),
            "error": float(abs(claimed - right).sum() / len(labels)),
        }

    def _bootstrap(self, labels, logits):
        """The model's figures in each replicate, rounded to six digits."""
        times = bootstrap.counts(torch.cat(self.keys).numpy())
        each = {
            "loss": torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none"),
            "accuracy": (logits.argmax(1) == labels).double(),
        }
        figures = {name: _ratios(times.T @ values.numpy(), times.sum(0)) for name, values in each.items()}
        of_class = torch.nn.functional.one_hot(labels, len(self.names)).double().numpy()
        recalls = _ratios(times.T @ (of_class * each["accuracy"].numpy()[:, None]), times.T @ of_class)
        figures["balanced_accuracy"] = _mean(recalls)  # a class that no galaxy is of does not count
        return {name: {"model": _six_digits(values)} for name, values in figures.items()}

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


@dataclass
class ConstantValues:
    """What to answer about every galaxy if nothing is known of it but the values of the training split.

    Attributes:
        mean: (K,) float64; the constant of least squared error.
        std: (K,) standard deviations, by which errors are measured in the loss.
        median: (K,) the constant of least absolute error.
    """

    mean: torch.Tensor
    std: torch.Tensor
    median: torch.Tensor

    @classmethod
    def of(cls, numbers: np.ndarray) -> Self:
        """From (N, K) training values, NaN where missing; of a value that no galaxy has, all three are NaN."""
        known = [column[~np.isnan(column)] for column in numbers.T]
        parts = [
            [function(column) if len(column) else np.nan for column in known]
            for function in (np.mean, np.std, np.median)
        ]
        return cls(*(torch.tensor(part, dtype=torch.float64) for part in parts))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """The same on a device."""
        return type(self)(**{name: values.to(device, dtype) for name, values in vars(self).items()})

    def to_dict(self) -> dict:
        """Plain lists, for a run record."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_dict(cls, data: dict) -> Self:
        """What `to_dict` wrote."""
        return cls(**{name: torch.tensor(values, dtype=torch.float64) for name, values in data.items()})


class ValueMetrics:
    """RMSE, mean absolute error and R^2 of each value, over the galaxies that have it; and the loss that training minimises.

    Beside each stands the best constant of the training split: for RMSE, R^2 and the loss its mean, for the mean absolute error
    its median. R^2 = 1 - sum of squared errors / sum of squared deviations from the mean of the galaxies that are measured; it is
    1 for perfect predictions and about 0 for a constant.

    Args:
        names: of the K values.
        baseline: the constants of the training split.
    """

    def __init__(self, names: list[str], baseline: ConstantValues):
        self.names, self.baseline = names, baseline
        self.sums: dict[str, torch.Tensor] = {}

    def update(self, batch: dict, outputs) -> None:
        """Add a batch: `labels` (B, K) and perhaps `keys` (B,) of the batch, `values` (B, K) of the outputs."""
        device = batch["labels"].device
        precise = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self.baseline = self.baseline.to(device, precise)
        labels, values = batch["labels"].to(precise), outputs.values.to(precise)
        known = labels == labels  # NaN equals nothing
        mean, std, median = (constants.expand_as(labels) for constants in vars(self.baseline).values())

        def errors(predictions):
            return torch.where(known, predictions - labels, 0)

        of_galaxies = {
            "galaxies": labels.new_ones(len(labels)),
            "known": known.to(precise),
            "model loss": standardised_squared_error(labels, values, std),
            "model squares": errors(values) ** 2,
            "model absolutes": errors(values).abs(),
            "baseline loss": standardised_squared_error(labels, mean, std),
            "baseline squares": errors(mean) ** 2,
            "baseline absolutes": errors(median).abs(),
            "deviations": errors(mean),
        }
        for name, each in of_galaxies.items():
            self._add(name, each.sum(0))
        if "keys" in batch:
            times = torch.from_numpy(bootstrap.counts(batch["keys"].cpu().numpy())).to(device, precise).T
            for name, each in of_galaxies.items():
                self._add(f"{name} (R)", times @ each)

    def _add(self, name, values):
        self.sums[name] = self.sums.get(name, 0) + values

    def cpu(self) -> Self:
        """Move the sums off the device, to be sent to other processes."""
        self.sums = {name: values.cpu() for name, values in self.sums.items()}
        self.baseline = self.baseline.to("cpu", torch.float64)
        return self

    def __add__(self, other: Self) -> Self:
        joined = ValueMetrics(self.names, self.baseline)
        for part in (self, other):
            for name, values in part.sums.items():
                joined._add(name, values)
        return joined

    @property
    def loss(self) -> float:
        """Mean over galaxies of the squared error in standard deviations: what training minimises."""
        return (self.sums["model loss"] / self.sums["galaxies"]).item()

    def compute(self) -> dict:
        """All figures; errors are in the units of the values, the loss in squared standard deviations of the training split."""
        figures = {who: self._figures(who) for who in ("model", "baseline")}

        def both(name, k=None):
            return {who: _or_none(each[name] if k is None else each[name][k]) for who, each in figures.items()}

        return {
            "galaxies": int(self.sums["galaxies"]),
            "loss": both("loss"),
            "values": {
                name: {"galaxies": int(self.sums["known"][k])} | {f: both(f, k) for f in ("rmse", "mae", "r2")}
                for k, name in enumerate(self.names)
            },
            **({"bootstrap": self._bootstrap()} if "galaxies (R)" in self.sums else {}),
        }

    def _bootstrap(self):
        """The model's figures in each replicate, rounded to six digits; None where too few galaxies count."""
        figures = self._figures("model", " (R)")
        return {
            "loss": {"model": _six_digits(figures["loss"])},
            "values": {
                name: {f: {"model": _six_digits(figures[f][:, k])} for f in ("rmse", "mae", "r2")}
                for k, name in enumerate(self.names)
            },
        }

    def _figures(self, who, of=""):
        """loss (...), rmse, mae, r2 (..., K) of the sums, or with `of=" (R)"` of those in each replicate; NaN where not known."""
        names = (
            "galaxies",
            "known",
            f"{who} loss",
            f"{who} squares",
            f"{who} absolutes",
            "baseline squares",
            "deviations",
        )
        galaxies, known, losses, squares, absolutes, about_mean, deviations = (
            self.sums[name + of].double().numpy() for name in names
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = about_mean - deviations**2 / known
            spread = np.where(spread > 1e-12 * about_mean, spread, np.nan)  # what is left of equal values is rounding
            return {
                "loss": losses / galaxies,
                "rmse": np.sqrt(squares / known),
                "mae": absolutes / known,
                "r2": 1 - squares / spread,
            }


def _or_none(value):
    return float(value) if np.isfinite(value) else None
