"""How the outputs of the head of a votes model become concentrations of Dirichlet distributions, and back.

Legend of shapes: B galaxies, Q questions.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

FLOOR = 0.01  # of softplus: so unlikely an answer has a finite likelihood, and a gradient
LEAST_WEIGHT = 1e-3  # of a distribution in a mixture, for the same reasons
HIGHEST = 100.0  # start: votes that vary no more than by counting are described by any higher concentration as well


class HeadActivation(NamedTuple):
    """A function from outputs of any sign to concentrations, element by element, and its inverse.

    Attributes:
        concentrations: of outputs.
        outputs: with which concentrations are about these; those that it cannot reach are clamped.
        mixed: each question has a mixture of two Dirichlet distributions: two concentrations for each answer, and a weight (`weights_of`).
    """

    concentrations: Callable[[torch.Tensor], torch.Tensor]
    outputs: Callable[[torch.Tensor], torch.Tensor]
    mixed: bool = False


def _softplus_outputs(concentrations: torch.Tensor) -> torch.Tensor:
    above = (concentrations - FLOOR).clamp(FLOOR, HIGHEST)  # below the clamp, softplus has next to no gradient
    return above + torch.log(-torch.expm1(-above))


def _softplus(outputs: torch.Tensor) -> torch.Tensor:
    return F.softplus(outputs) + FLOOR


def weights_of(outputs: torch.Tensor) -> torch.Tensor:
    """(B, Q) of any sign -> (B, 2, Q): the weights of two distributions, in [LEAST_WEIGHT, 1 - LEAST_WEIGHT], which add up to 1."""
    first = LEAST_WEIGHT + (1 - 2 * LEAST_WEIGHT) * outputs.sigmoid()
    return torch.stack([first, 1 - first], dim=1)


HEAD_ACTIVATIONS = {
    # Two of the next, mixed: volunteers may agree on one answer or on another, and the model knows only how likely each is.
    "mixture": HeadActivation(_softplus, _softplus_outputs, mixed=True),
    # Any concentration above the floor: volunteers who agree, or who are of two minds (concentrations below 1).
    "softplus": HeadActivation(_softplus, _softplus_outputs),
    # In (1, 101), as in Zoobot (`CustomTop`, huggingface.co/papers/2102.08414): never a peak at the corners, never more certain
    # than about a hundred volunteers.
    "sigmoid": HeadActivation(
        lambda outputs: 1 + 100 * outputs.sigmoid(),
        lambda concentrations: ((concentrations - 1) / 100).clamp(0.005, 0.995).logit(),
    ),
}
