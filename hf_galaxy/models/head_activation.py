"""How the outputs of the head of a votes model become concentrations of Dirichlet distributions, and back."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

FLOOR = 0.01  # of softplus: so unlikely an answer has a finite likelihood, and a gradient
HIGHEST = 100.0  # start: votes that vary no more than by counting are described by any higher concentration as well


class HeadActivation(NamedTuple):
    """A function from outputs of any sign to concentrations, element by element, and its inverse.

    Attributes:
        concentrations: of outputs.
        outputs: with which concentrations are about these; those that it cannot reach are clamped.
    """

    concentrations: Callable[[torch.Tensor], torch.Tensor]
    outputs: Callable[[torch.Tensor], torch.Tensor]


def _softplus_outputs(concentrations: torch.Tensor) -> torch.Tensor:
    above = (concentrations - FLOOR).clamp(FLOOR, HIGHEST)  # below the clamp, softplus has next to no gradient
    return above + torch.log(-torch.expm1(-above))


HEAD_ACTIVATIONS = {
    # Any concentration above the floor: volunteers who agree, or who are of two minds (concentrations below 1).
    "softplus": HeadActivation(lambda outputs: F.softplus(outputs) + FLOOR, _softplus_outputs),
    # In (1, 101), as in Zoobot (`CustomTop`, huggingface.co/papers/2102.08414): never a peak at the corners, never more certain
    # than about a hundred volunteers.
    "sigmoid": HeadActivation(
        lambda outputs: 1 + 100 * outputs.sigmoid(),
        lambda concentrations: ((concentrations - 1) / 100).clamp(0.005, 0.995).logit(),
    ),
}
