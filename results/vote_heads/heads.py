"""Heads of vote models that the study compares: those of the library, and two that it has not. Legend: B galaxies, A answers."""

import torch
from torch import nn

from hf_galaxy.losses import dirichlet_multinomial_nll, expected_fractions, question_of_answer, sum_per_question
from hf_galaxy.models.calibration import calibrated_concentrations
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
        if self.config.calibration is not None:
            concentrations = calibrated_concentrations(concentrations, self.config.calibration, self.tree)
        nll = None if votes is None else dirichlet_multinomial_nll(votes, concentrations, self.tree)
        fractions = expected_fractions(concentrations, self.tree)
        return GalaxyVotesOutput(None if nll is None else nll.sum(1).mean(), concentrations, fractions, nll)

    @torch.no_grad()
    def start_from_constant(self, concentrations: torch.Tensor, fractions: torch.Tensor) -> None:
        totals = SOFTPLUS.outputs(sum_per_question(concentrations, self.tree))
        self.head.bias.copy_(torch.cat([concentrations.clamp_min(FLOOR).log(), totals]))


HEAD_ACTIVATIONS["exp"] = HeadActivation(lambda outputs: outputs.clamp_max(10).exp() + 1e-4, exp_outputs)
HEAD_ACTIVATIONS["precision"] = SOFTPLUS  # so that configurations may name it
HEADS = ("sigmoid", "softplus", "exp", "precision", "mixture")


def model_of(config: GalaxyConfig) -> GalaxyForVotes:
    """With the head that the configuration names."""
    return (Precision if config.head_activation == "precision" else GalaxyForVotes)(config)


votes.GalaxyForVotes = model_of
