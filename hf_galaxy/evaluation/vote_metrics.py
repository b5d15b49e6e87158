"""How good predicted votes are, each figure beside that of the best constant prediction. Legend: B galaxies, A answers,
Q questions, R replicates.

Metrics are sums and counts: `update` adds a batch, `+` joins processes, `compute` divides once, at the end. A figure for
which there are no galaxies is None, never 0. Where batches say who their galaxies are (`keys`), as when a split is measured
for good, figures are also given in the replicates of a bootstrap over galaxies, and predictions are held against what came
out, in bins of fixed edges (`calibration`).
"""

from typing import Self

import numpy as np
import torch

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.evaluation import bootstrap
from hf_galaxy.evaluation.bootstrap import mean_of_counted, ratios, six_digits
from hf_galaxy.evaluation.constant_votes import ConstantVotes
from hf_galaxy.losses import constant, dirichlet_multinomial_nll, multinomial_nll, question_of_answer, sum_per_question

BINS = 10  # of predicted fractions and of a class's probability, equally wide
PLACES = 20  # parts of a predicted distribution: central intervals of 10 %, 20 %, ... end at their edges
LEVELS = (50, 80, 90)  # per cent of the central intervals whose coverage is given


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
        """Votes for each answer by the fraction that was predicted, and how far up in what was predicted of them they lie."""
        group = question_of_answer(self.tree, votes.device)
        cast = totals.index_select(1, group)
        fractions = outputs.fractions.to(precise)
        # The fractions of a question add up to 1, predicted or given: in bins of all its answers errors would cancel.
        bins = torch.arange(len(group), device=votes.device) * BINS + (fractions * BINS).long().clamp_max(BINS - 1)
        for name, values in (("cast", cast), ("predicted", cast * fractions), ("given", votes)):
            sums = fractions.new_zeros(len(group) * BINS)
            sums.index_add_(0, bins.flatten(), values.to(precise).flatten())
            self._add(f"{name} (A, bins)", sums.view(-1, BINS))
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

    def __add__(self, other: "VoteMetrics") -> "VoteMetrics":
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
            **({"calibration": self._calibration(sums)} if "cast (A, bins)" in sums else {}),
            **({"bootstrap": self._bootstrap(sums)} if "galaxies (R)" in sums else {}),
        }

    def _calibration(self, sums):
        """By question, and of all questions of a campaign; means are None in bins without votes.

        `cast`, `predicted`, `given` (BINS,): over answers whose predicted fraction is in this bin the votes for their question,
        the mean predicted fraction and the fraction that they were given, both weighted by votes. `error`: the mean distance
        of both in bins of each answer by itself, weighted by votes; of a campaign that of its questions, weighted by votes.
        `places` (PLACES,): the shares of answers whose votes lie in each twentieth of the beta-binomial that the Dirichlet
        predicts of them, which are equal if it is true; `coverage`, per cent -> the share in its central interval.
        """
        parts = [
            [sums[f"{name} (A, bins)"][where] for where in self.tree.slices] for name in ("cast", "predicted", "given")
        ]
        distances = [
            abs(predicted - given).sum() / max(cast.sum(), 1) for cast, predicted, given in zip(*parts, strict=True)
        ]
        votes = [given.sum() for given in parts[-1]]

        def over(questions):
            cast, predicted, given = (sum(each[q].sum(0) for q in questions) for each in parts)
            total = sum(votes[q] for q in questions)
            figures = {
                "cast": six_digits(cast),
                "predicted": six_digits(ratios(predicted, cast)),
                "given": six_digits(ratios(given, cast)),
                "error": float(sum(votes[q] * distances[q] for q in questions) / total) if total else None,
            }
            if "places (Q, places)" in sums:
                places = sums["places (Q, places)"][questions].sum(0)
                shares = ratios(places, places.sum())
                out = {level: PLACES * (100 - level) // 200 for level in LEVELS}
                covered = {str(level): six_digits([shares[n : PLACES - n].sum()])[0] for level, n in out.items()}
                figures |= {"places": six_digits(shares), "coverage": covered}
            return figures

        return {
            "questions": {q.name: over([i]) for i, q in enumerate(self.tree.questions)},
            "campaigns": {name: over(questions) for name, questions in self.tree.campaigns.items()},
        }

    def _bootstrap(self, sums):
        """The model's figures in each replicate, rounded to six digits; None where no galaxy counts."""

        def figures(total, count, root=False):
            return six_digits(np.sqrt(ratios(total, count)) if root else ratios(total, count))

        asked, enough = sums["asked (R, Q)"], sums["enough (R, Q)"]

        def campaign(i, questions):
            counted = [q for q in questions if sums["enough"][q]]
            nll = sums["model nll (R, Q)"][:, questions].sum(1)
            means = {
                "nll": ratios(nll, sums["in_campaign (R, campaigns)"][:, i]),
                "rmse": mean_of_counted(np.sqrt(ratios(sums["model squares (R, Q)"], enough))[:, counted]),
                "accuracy": mean_of_counted(ratios(sums["model correct (R, Q)"], enough)[:, counted]),
            }
            return {name: {"model": six_digits(values)} for name, values in means.items()}

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
