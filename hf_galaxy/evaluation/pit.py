"""Where votes lie in their predicted distribution: the probability integral transform (PIT), and the coverage of central intervals."""

from typing import Any

import numpy as np
import torch

from hf_galaxy.evaluation.bootstrap import ratios, six_digits

PIT_BINS = 40  # of the histogram of the probability integral transform (PIT): central intervals of 5 %, 10 %, ... end at their edges
LEVELS = (50, 80, 90, 95)  # central intervals, in per cent
OUTSIDE = {level: PIT_BINS * (100 - level) // 200 for level in LEVELS}  # bins on each side of them


def placed(places: np.ndarray) -> dict[str, Any]:
    """A PIT histogram as shares, and the shares in the central intervals."""
    shares = ratios(places, places.sum())
    covered = {str(level): six_digits(shares[n : PIT_BINS - n].sum()[None])[0] for level, n in OUTSIDE.items()}
    return {"places": six_digits(shares), "coverage": covered}


def holding_level(places: np.ndarray, share: float, galaxies: int) -> float | None:
    """The level of the central interval that holds this share of the numbers of votes of further galaxies, whatever the form of their distribution.

    It is of the intervals that the PIT histogram is of, not of those of fractions: the quantile of |2 PIT - 1| that split conformal
    prediction takes (Lei et al. 2018, "Distribution-free predictive inference for regression"), of the share times (n + 1) / n.

    Args:
        places: (PIT_BINS,) sums or shares of the PIT histogram of galaxies that the model was not fitted to.
        galaxies: n.

    Returns:
        A level in (0, 1); None where no interval holds so many, as the galaxies are too few.
    """
    target = share * (galaxies + 1) / galaxies if galaxies else 2.0
    if target >= 1:
        return None
    half = PIT_BINS // 2
    inside = np.concatenate([[0], np.cumsum(places[half:] + places[:half][::-1])]) / places.sum()
    return float(np.interp(target, inside, np.linspace(0, 1, half + 1)))


def pit_histogram(
    k: torch.Tensor, n: torch.Tensor, a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """(..., PIT_BINS) the share of each k of n votes in each bin of the PIT of the beta-binomial distribution with a and b.

    With weights (..., K) it is a mixture of those with a and b (..., K).

    A count has an interval of the distribution, from the probability of fewer votes to that of at most as many, in which it is
    spread evenly. If the distribution is true, all bins get the same share on average (Czado, Gneiting and Held 2009, "Predictive
    model assessment for count data", eq. 2).
    """
    if weights is not None:
        k, n = k.unsqueeze(-1), n.unsqueeze(-1)
    log_p = torch.lgamma(n + b) - torch.lgamma(b) + torch.lgamma(a + b) - torch.lgamma(n + a + b)  # of no vote
    fewer, here = torch.zeros_like(a), log_p.exp()
    for j in range(int(k.max()) if len(k) else 0):
        counted = j < k
        fewer = torch.where(counted, fewer + here, fewer)
        # Only counted ones are used: for the others the logarithms may be of negative numbers.
        log_p = log_p + ((n - j) / (j + 1)).log() + ((a + j) / (n + b - j - 1)).log()
        here = torch.where(counted, log_p.exp(), here)
    if weights is not None:
        fewer, here = ((weights * each).sum(-1) for each in (fewer, here))
    upper = (fewer + here).clamp(1e-9, 1)
    lower = torch.minimum(fewer, upper - 1e-9)  # an almost impossible count has an interval, too
    edges = torch.linspace(0, 1, PIT_BINS + 1, dtype=a.dtype, device=a.device)
    below = (edges.clamp(lower.unsqueeze(-1), upper.unsqueeze(-1)) - lower.unsqueeze(-1)) / (upper - lower).unsqueeze(
        -1
    )
    return below.diff(dim=-1)
