"""How good predicted votes are, each figure beside that of the best constant prediction. Legend: B galaxies, A answers,
Q questions, R replicates, L levels.

Metrics are sums and counts: `update` adds a batch, `+` joins processes, `compute` divides once, at the end. A figure
without galaxies is None, never 0. If batches have `keys` of their galaxies, as on the test split, figures also have replicates
of a bootstrap over galaxies, and predictions are compared with observed votes in bins of fixed edges (`calibration`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.evaluation import bootstrap, oracle
from hf_galaxy.evaluation.bootstrap import mean_of_counted, ratios, six_digits
from hf_galaxy.evaluation.constant_votes import ConstantVotes
from hf_galaxy.evaluation.pit import OUTSIDE, PIT_BINS, pit_histogram
from hf_galaxy.evaluation.volunteers import lead_over_volunteers, seen_by, volunteers_worth
from hf_galaxy.evaluation.vote_calibration import vote_calibration
from hf_galaxy.evaluation.vote_sample import VoteSample
from hf_galaxy.losses import (
    constant,
    dirichlet_multinomial_nll,
    expected_fractions,
    multinomial_nll,
    question_of_answer,
    sum_per_question,
)

BINS = 10  # of predicted fractions and of a class's probability, equally wide


class VoteMetrics:
    """Likelihood, vote-fraction errors and plurality accuracy, per question and per campaign.

    Beside the model and the constant stand two references. The oracle knows the true fractions of every galaxy, but not the votes: the least
    that a model can be expected to score (`oracle`). It is measured where galaxies have keys, of questions that at least `oracle.FEWEST` of its sample were asked. The saturated nll is that of a multinomial with the observed fractions: no
    prediction can have a lower one, but it knows the votes.

    `true_rmse` is the error against the true fractions: the mean squared error against the observed ones above that of the oracle, which is
    not negative, has this square root.

    Fractions are compared only in galaxies with at least `min_votes` votes for the question (20 in GZ Evo), where volunteers'
    own scatter is small. Accuracy is the share of those in which the answer with the largest predicted fraction got the most votes.

    Args:
        uncalibrated: of a calibrated model: from the logarithms (..., A) of concentrations, or of fractions, to those before the calibration,
            whose likelihood and coverage are measured, too.
    """

    def __init__(
        self,
        tree: DecisionTree,
        baseline: ConstantVotes,
        min_votes: int = 20,
        likelihood: str = "dirichlet_multinomial",
        uncalibrated: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.tree, self.baseline, self.min_votes, self.likelihood = tree, baseline, min_votes, likelihood
        self.uncalibrated = uncalibrated
        self.sums: dict[str, torch.Tensor] = {}
        self.sample = VoteSample(oracle.MOST)

    def update(self, batch: dict[str, torch.Tensor], outputs: Any) -> None:
        """Add a batch: `votes` (B, A) and perhaps `keys` (B,) of the batch, `fractions` (B, A), `nll` (B, Q), `concentrations` and `weights` of the
        outputs, as of `GalaxyVotesOutput`."""
        # Without keys nothing is read from the device or copied to it, after the first batch: either would wait for it.
        votes = batch["votes"]
        self.baseline = self.baseline.to(votes.device)
        totals = sum_per_question(votes, self.tree)
        self._add("galaxies", torch.full((1,), len(votes), device=votes.device))
        self._add("asked", (totals > 0).sum(0))
        self._add("enough", (totals >= self.min_votes).sum(0))
        campaigns = list(self.tree.campaigns)
        campaign = constant(tuple(campaigns.index(q.campaign) for q in self.tree.questions), votes.device)
        in_campaign = totals.new_zeros(len(votes), len(campaigns)).index_add_(1, campaign, totals)
        self._add("in_campaign", (in_campaign > 0).sum(0))
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
            self._add("in_campaign (R, campaigns)", times @ (in_campaign > 0).to(precise))
            self.sample.add(batch["keys"].cpu().numpy(), votes.cpu().numpy())
            if self.min_votes > 1:
                self._add_scatter(votes, totals, times)
            self._compare_fractions(votes, totals, outputs.fractions.to(precise))
            if self.likelihood == "dirichlet_multinomial":
                predicted = outputs.concentrations.to(precise), outputs.weights
                self._place("places", votes, totals, *predicted, times)
                self._spread("model", totals, *predicted)
                self._spread("baseline", totals, concentrations.to(precise))
            if self.uncalibrated is not None:
                self._measure_uncalibrated(votes, totals, outputs, precise)
            self._compare_with_volunteers(votes, totals, fractions=outputs.fractions, times=times)
        self._compare("model", votes, totals, outputs.fractions, outputs.nll, precise, times)
        self._compare("baseline", votes, totals, fractions, constant_nll, precise)

    def _compare(
        self, who: str, votes: torch.Tensor, totals: torch.Tensor, fractions: torch.Tensor, nll: torch.Tensor,
        precise: torch.dtype, times: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
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

    def _add_scatter(self, votes: torch.Tensor, totals: torch.Tensor, times: torch.Tensor) -> None:
        """The squared errors of the true fractions against the observed ones, of which k (N - k) / (N^2 (N - 1)) has the expected value."""
        cast = totals.index_select(1, question_of_answer(self.tree, votes.device)).to(times.dtype)
        squares = votes * (cast - votes) / (cast**2 * (cast - 1)).clamp_min(1) * (cast >= self.min_votes)
        answers = constant(tuple(len(q.answers) for q in self.tree.questions), votes.device)
        of_questions = sum_per_question(squares, self.tree) / answers
        self._add("oracle squares", of_questions.sum(0))
        self._add("oracle squares (R, Q)", times @ of_questions)

    def _compare_with_volunteers(
        self, votes: torch.Tensor, totals: torch.Tensor, fractions: torch.Tensor, times: torch.Tensor
    ) -> None:
        lead = lead_over_volunteers(votes, fractions, self.baseline.concentrations.to(times.dtype), self.tree)
        for name, values in (("lead", lead), ("compared", seen_by(totals).to(times.dtype))):
            self._add(f"{name} (Q, n)", values.sum(0))
            self._add(f"{name} (R, Q, n)", (times @ values.flatten(1)).unflatten(1, values.shape[1:]))

    def _compare_fractions(self, votes: torch.Tensor, totals: torch.Tensor, fractions: torch.Tensor) -> None:
        """Votes for each answer by predicted fraction."""
        group = question_of_answer(self.tree, votes.device)
        cast = totals.index_select(1, group)
        # The fractions of a question add up to 1, predicted or observed: in bins of all its answers errors would cancel.
        bins = torch.arange(len(group), device=votes.device) * BINS + (fractions * BINS).long().clamp_max(BINS - 1)
        for name, values in (("cast", cast), ("predicted", cast * fractions), ("given", votes)):
            sums = fractions.new_zeros(len(group) * BINS)
            sums.index_add_(0, bins.flatten(), values.to(fractions.dtype).flatten())
            self._add(f"{name} (A, bins)", sums.view(-1, BINS))

    def _place(
        self, name: str, votes: torch.Tensor, totals: torch.Tensor, concentrations: torch.Tensor,
        weights: torch.Tensor | None, times: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        """The PIT histogram of votes under their predicted distribution, and with `times` the coverage in replicates."""
        group = question_of_answer(self.tree, votes.device)
        cast = totals.index_select(1, group)
        galaxy, answer = cast.nonzero(as_tuple=True)
        others = sum_per_question(concentrations, self.tree).index_select(-1, group) - concentrations
        # (..., K) of the distributions of a mixture
        of_mixture = (
            [concentrations, others]
            if weights is None
            else [each.movedim(1, -1) for each in (concentrations, others, weights.index_select(-1, group))]
        )
        shares = pit_histogram(*(values[galaxy, answer] for values in (votes, cast, *of_mixture)))
        questions = len(self.tree.questions)
        self._add(f"{name} (Q, places)", shares.new_zeros(questions, PIT_BINS).index_add_(0, group[answer], shares))
        if times is None:
            return
        covered = torch.stack([shares[:, n : PIT_BINS - n].sum(1) for n in OUTSIDE.values()], dim=1)
        place = galaxy * questions + group[answer]
        for what, values in (("covered", covered), ("answers", torch.ones_like(covered[:, :1]))):
            sums = shares.new_zeros(len(votes) * questions, values.shape[1]).index_add_(0, place, values)
            self._add(f"{what} (R, Q, L)", (times @ sums.view(len(votes), -1)).unflatten(1, (questions, -1)))

    def _spread(
        self, who: str, totals: torch.Tensor, concentrations: torch.Tensor, weights: torch.Tensor | None = None
    ) -> None:
        """The standard deviation of the predicted fractions, mean over the answers of a question."""
        group = question_of_answer(self.tree, totals.device)
        all_of_question = sum_per_question(concentrations, self.tree).index_select(-1, group)
        means = concentrations / all_of_question
        variances = means * (1 - means) / (all_of_question + 1)
        if weights is not None:
            shares, mean = weights.index_select(-1, group), expected_fractions(concentrations, self.tree, weights)
            variances = (shares * (variances + (means - mean.unsqueeze(1)) ** 2)).sum(1)
        answers = sum_per_question(torch.ones_like(variances), self.tree)
        deviations = sum_per_question(variances.sqrt(), self.tree) / answers
        self._add(f"{who} spread", (deviations * (totals > 0)).sum(0))

    def _measure_uncalibrated(
        self, votes: torch.Tensor, totals: torch.Tensor, outputs: Any, precise: torch.dtype
    ) -> None:
        assert self.uncalibrated is not None
        if self.likelihood == "multinomial":
            fractions = outputs.fractions.clamp_min(torch.finfo(outputs.fractions.dtype).tiny)  # has a logarithm
            nll = multinomial_nll(votes, self.uncalibrated(fractions.log()), self.tree)
        else:
            concentrations = self.uncalibrated(outputs.concentrations.log()).exp()
            nll = dirichlet_multinomial_nll(votes, concentrations, self.tree, outputs.weights)
            self._place("uncalibrated places", votes, totals, concentrations.to(precise), outputs.weights)
        self._add("uncalibrated nll", nll.to(precise).sum(0))

    def _by_question(self, values: torch.Tensor) -> torch.Tensor:
        """(B, A) -> (B, Q, the most answers of a question), with -1 where a question has fewer."""
        most, nowhere = max(len(q.answers) for q in self.tree.questions), len(self.tree.columns)
        places = (p for where in self.tree.slices for p in (*range(nowhere)[where], *[nowhere] * most)[:most])
        padded = torch.nn.functional.pad(values, (0, 1), value=-1)
        return padded.index_select(1, constant(tuple(places), values.device)).unflatten(1, (-1, most))

    def _add(self, name: str, values: torch.Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0) + values

    def cpu(self) -> Self:
        """Move the sums off the device, to be sent to other processes."""
        self.sums = {name: values.cpu() for name, values in self.sums.items()}
        self.baseline = self.baseline.to("cpu")
        return self

    def __add__(self, other: "VoteMetrics") -> "VoteMetrics":
        joined = VoteMetrics(self.tree, self.baseline, self.min_votes, self.likelihood, self.uncalibrated)
        for part in (self, other):
            for name, values in part.sums.items():
                joined._add(name, values)
        joined.sample = self.sample + other.sample
        return joined

    @property
    def loss(self) -> float:
        """Mean over galaxies of the summed negative log-likelihood: what training minimises."""
        return (self.sums["model nll"].sum() / self.sums["galaxies"]).item()

    def compute(self) -> dict:
        """All figures; negative log-likelihoods are in nats per galaxy that was asked, errors are of fractions in [0, 1].

        A campaign's nll is that of all its questions, per galaxy; its other figures are means over its questions.
        """
        sums = {name: values.double().numpy() for name, values in self.sums.items()}
        sums |= oracle.oracle_sums(sums, self.sample, self.tree) | _true_squares(sums)
        of_all = ("model", "baseline", "saturated", *(("oracle",) if "oracle nll" in sums else ()))

        def both(figure: Callable[[str], float | None]) -> dict[str, float | None]:
            return {who: figure(who) for who in ("model", "baseline")}

        def ratio(total: float, count: float, root: bool = False) -> float | None:
            value = float(total) / float(count) if count else None
            return value**0.5 if root and value is not None else value

        def question(i: int) -> dict:
            enough = sums["enough"][i]
            return {
                "galaxies_asked": int(sums["asked"][i]),
                "galaxies_with_enough_votes": int(enough),
                "nll": {
                    who: ratio(sums[f"{who} nll"][i], sums["asked"][i])
                    for who in of_all
                    if who != "oracle" or sums["oracle asked"][i] >= oracle.FEWEST
                },
                "rmse": {
                    who: ratio(sums[f"{who} squares"][i], enough, root=True)
                    for who in ("model", "baseline", "oracle")
                    if f"{who} squares" in sums
                },
                **(
                    {"true_rmse": both(lambda who: ratio(sums[f"{who} true squares"][i], enough, root=True))}
                    if "oracle squares" in sums
                    else {}
                ),
                "mae": both(lambda who: ratio(sums[f"{who} absolutes"][i], enough)),
                "accuracy": both(lambda who: ratio(sums[f"{who} correct"][i], enough)),
            }

        def campaign(i: int, questions: Sequence[int]) -> dict:
            counted = [q for q in questions if sums["enough"][q]]

            def mean(name: str, root: bool = False) -> dict[str, float | None]:
                return both(
                    lambda who: ratio(
                        sum(ratio(sums[f"{who} {name}"][q], sums["enough"][q], root) or 0.0 for q in counted),
                        len(counted),
                    )
                )

            return {
                "galaxies": int(sums["in_campaign"][i]),
                "nll": {
                    who: ratio(sums[f"{who} nll"][questions].sum(), sums["in_campaign"][i])
                    for who in of_all
                    if who != "saturated"
                },
                "rmse": mean("squares", root=True),
                **({"true_rmse": mean("true squares", root=True)} if "oracle squares" in sums else {}),
                "mae": mean("absolutes"),
                "accuracy": mean("correct"),
            }

        return {
            "galaxies": int(sums["galaxies"][0]),
            "min_votes": self.min_votes,
            "loss": {who: float(sums[f"{who} nll"].sum() / sums["galaxies"][0]) for who in of_all},
            "questions": {q.name: question(i) for i, q in enumerate(self.tree.questions)},
            "campaigns": {name: campaign(i, qs) for i, (name, qs) in enumerate(self.tree.campaigns.items())},
            **({"calibration": vote_calibration(sums, self.tree)} if "cast (A, bins)" in sums else {}),
            **({"volunteers": self._volunteers(sums)} if "lead (Q, n)" in sums else {}),
            **({"bootstrap": self._bootstrap(sums)} if "galaxies (R)" in sums else {}),
        }

    def _volunteers(self, sums: dict[str, np.ndarray]) -> dict:
        """By question, the number of volunteers whose votes predict another vote as well as the model does (`volunteers_worth`)."""
        names = ("lead (Q, n)", "compared (Q, n)", "lead (R, Q, n)", "compared (R, Q, n)")
        lead, compared, replicates, counted = (sums[name] for name in names)
        return {
            q.name: volunteers_worth(lead[i], compared[i], replicates[:, i], counted[:, i])
            for i, q in enumerate(self.tree.questions)
        }

    def _bootstrap(self, sums: dict[str, np.ndarray]) -> dict:
        """The model's figures in each replicate, rounded to six digits; None where no galaxy counts."""

        def figures(total: np.ndarray, count: np.ndarray, root: bool = False) -> list[float | None]:
            return six_digits(np.sqrt(ratios(total, count)) if root else ratios(total, count))

        asked, enough = sums["asked (R, Q)"], sums["enough (R, Q)"]
        of_all = ("model", "saturated", *(("oracle",) if "oracle nll" in sums else ()))
        errors = {"rmse": "squares", **({"true_rmse": "true squares"} if "oracle squares" in sums else {})}

        def question(i: int) -> dict:
            known = [who for who in of_all if who != "oracle" or sums["oracle asked"][i] >= oracle.FEWEST]
            of_model = {
                name: figures(sums[f"model {squares} (R, Q)"][:, i], enough[:, i], root=True)
                for name, squares in errors.items()
            } | {"accuracy": figures(sums["model correct (R, Q)"][:, i], enough[:, i])}
            return {
                "nll": {who: figures(sums[f"{who} nll (R, Q)"][:, i], asked[:, i]) for who in known},
                **{name: {"model": values} for name, values in of_model.items()},
            }

        def campaign(i: int, questions: Sequence[int]) -> dict:
            counted = [q for q in questions if sums["enough"][q]]
            galaxies = sums["in_campaign (R, campaigns)"][:, i]
            means = {
                name: mean_of_counted(np.sqrt(ratios(sums[f"model {squares} (R, Q)"], enough))[:, counted])
                for name, squares in errors.items()
            } | {"accuracy": mean_of_counted(ratios(sums["model correct (R, Q)"], enough)[:, counted])}
            return {
                "nll": {
                    who: figures(sums[f"{who} nll (R, Q)"][:, questions].sum(1), galaxies)
                    for who in of_all
                    if who != "saturated"
                },
                **{name: {"model": six_digits(values)} for name, values in means.items()},
            }

        return {
            "loss": {who: figures(sums[f"{who} nll (R, Q)"].sum(1), sums["galaxies (R)"]) for who in of_all},
            "questions": {q.name: question(i) for i, q in enumerate(self.tree.questions)},
            "campaigns": {name: campaign(i, qs) for i, (name, qs) in enumerate(self.tree.campaigns.items())},
        }


def _true_squares(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sums of squared errors against the true fractions: those against the observed ones above the oracle's."""
    return {
        f"{who} true {of}": np.maximum(sums[f"{who} {of}"] - sums[f"oracle {of}"], 0)
        for of in ("squares", "squares (R, Q)")
        for who in ("model", "baseline")
        if f"oracle {of}" in sums and f"{who} {of}" in sums
    }
