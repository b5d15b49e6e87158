"""Heads of vote models that the study compares: those of the library, and those that it has not.

Legend: B galaxies, A answers, Q questions, D features.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from hf_galaxy.losses import dirichlet_multinomial_nll, expected_fractions, question_of_answer, sum_per_question
from hf_galaxy.models.head_activation import FLOOR, HEAD_ACTIVATIONS, HIGHEST, HeadActivation
from hf_galaxy.models.model import GalaxyConfig, GalaxyForVotes, GalaxyVotesOutput
from hf_galaxy.training.targets import votes

SOFTPLUS = HEAD_ACTIVATIONS["softplus"]


def exp_outputs(concentrations: torch.Tensor) -> torch.Tensor:
    return concentrations.clamp(FLOOR, HIGHEST).log()


class Precision(GalaxyForVotes):
    """The mean and the precision of each Dirichlet apart: a_i = softmax(x)_i (softplus(s) + 0.01), with s an output for each question."""

    def __init__(self, config: GalaxyConfig) -> None:
        super().__init__(config)
        self.head = nn.Linear(self.head.in_features, len(self.tree.columns) + len(self.tree.questions))

    def concentrations(self, outputs: torch.Tensor) -> torch.Tensor:
        shares, precisions = outputs.tensor_split([len(self.tree.columns)], dim=1)
        group = question_of_answer(self.tree, outputs.device)
        means = expected_fractions(shares.clamp(-30, 30).exp(), self.tree)
        return (means * SOFTPLUS.concentrations(precisions).index_select(1, group)).clamp_min(1e-4)

    def forward(self, pixel_values: torch.Tensor, votes: torch.Tensor | None = None, **kwargs) -> GalaxyVotesOutput:
        concentrations = self.concentrations(self.head_outputs(pixel_values))
        nll = None if votes is None else dirichlet_multinomial_nll(votes, concentrations, self.tree)
        fractions = expected_fractions(concentrations, self.tree)
        return GalaxyVotesOutput(None if nll is None else nll.sum(1).mean(), concentrations, fractions, nll)

    @torch.no_grad()
    def start_from_constant(self, concentrations: torch.Tensor, fractions: torch.Tensor) -> None:
        totals = SOFTPLUS.outputs(sum_per_question(concentrations, self.tree))
        self.head.bias.copy_(torch.cat([concentrations.clamp_min(FLOOR).log(), totals]))


class Mixture(GalaxyForVotes):
    """Each question has two Dirichlets, w of the first and 1 - w of the second; both with the activation softplus, w = sigmoid.

    The `concentrations` of its outputs are those of one Dirichlet with the means, and with the sum of the variances, of the
    mixture: only the coverage of the record is of them, the likelihood is that of the mixture.
    """

    def __init__(self, config: GalaxyConfig) -> None:
        super().__init__(config)
        self.head = nn.Linear(self.head.in_features, 2 * len(self.tree.columns) + len(self.tree.questions))

    def forward(self, pixel_values: torch.Tensor, votes: torch.Tensor | None = None, **kwargs) -> GalaxyVotesOutput:
        answers = len(self.tree.columns)
        *parts, weight = self.head_outputs(pixel_values).tensor_split([answers, 2 * answers], dim=1)
        parts = [SOFTPLUS.concentrations(part) for part in parts]
        shares = [F.logsigmoid(weight), F.logsigmoid(-weight)]
        group = question_of_answer(self.tree, weight.device)
        means = [expected_fractions(part, self.tree) for part in parts]
        of_answers = [share.exp().index_select(1, group) for share in shares]
        fractions = sum(share * mean for share, mean in zip(of_answers, means, strict=True))
        nll = None
        if votes is not None:
            terms = [
                share - dirichlet_multinomial_nll(votes, part, self.tree)
                for share, part in zip(shares, parts, strict=True)
            ]
            asked = sum_per_question(votes, self.tree) > 0
            nll = torch.where(asked, -torch.logsumexp(torch.stack(terms), dim=0), 0)
        return GalaxyVotesOutput(
            None if nll is None else nll.sum(1).mean(), self.one(parts, means, of_answers, fractions), fractions, nll
        )

    def one(self, parts: list, means: list, shares: list, fractions: torch.Tensor) -> torch.Tensor:
        """(B, A) of the single Dirichlet: its precision is 1 less than sum f (1 - f) over the sum of the variances."""
        group = question_of_answer(self.tree, fractions.device)
        squares = 0
        for part, mean, share in zip(parts, means, shares, strict=True):
            total = sum_per_question(part, self.tree).index_select(1, group)
            squares = squares + share * (mean**2 + mean * (1 - mean) / (total + 1))
        spread = sum_per_question(squares - fractions**2, self.tree).clamp_min(1e-9)
        precision = (sum_per_question(fractions * (1 - fractions), self.tree) / spread - 1).clamp_min(FLOOR)
        return (fractions * precision.index_select(1, group)).clamp_min(1e-4)

    @torch.no_grad()
    def start_from_constant(self, concentrations: torch.Tensor, fractions: torch.Tensor) -> None:
        """One is more certain than the constant, and one less: two that are equal would stay so."""
        halves = [SOFTPLUS.outputs(concentrations * factor) for factor in (2, 0.5)]
        self.head.bias.copy_(torch.cat([*halves, torch.zeros(len(self.tree.questions))]))


HEAD_ACTIVATIONS["exp"] = HeadActivation(lambda outputs: outputs.clamp_max(10).exp() + 1e-4, exp_outputs)
MODELS: dict[str, Callable[[GalaxyConfig], GalaxyForVotes]] = {"precision": Precision, "mixture": Mixture}
HEADS = ("sigmoid", "softplus", "exp", "precision", "mixture")
for name in MODELS:
    HEAD_ACTIVATIONS[name] = SOFTPLUS  # so that configurations may name it


def model_of(config: GalaxyConfig) -> GalaxyForVotes:
    return MODELS.get(config.head_activation, GalaxyForVotes)(config)


votes.GalaxyForVotes = model_of
