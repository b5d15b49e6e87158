"""What a prediction of votes is worth: the number of volunteers whose votes predict those of others as well.

One vote of a galaxy is left out, each in turn. Somebody who has seen n of the other votes for the same question, drawn at random, and
knows how votes are distributed over galaxies, the Dirichlet distribution with the concentrations a, predicts its answer i with the probability

    (a_i + s_i) / (a_0 + n),    s_i of the n votes for it

and a model with its expected fraction. Both are measured by minus the logarithm of that probability. A model is worth n volunteers if both
are equal: they are compared for each n on the galaxies with more than n votes.

Legend: B galaxies, A answers, Q questions, M = MOST + 1 numbers of volunteers, R replicates.
"""

import numpy as np
import torch

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.evaluation.bootstrap import LEVEL
from hf_galaxy.losses import question_of_answer, sum_per_question

MOST = 40  # volunteers
FEWEST = 50  # galaxies on which a number of volunteers is compared


def lead_over_volunteers(
    votes: torch.Tensor, fractions: torch.Tensor, concentrations: torch.Tensor, tree: DecisionTree
) -> torch.Tensor:
    """How much better than n volunteers a model predicts the vote that is left out: the mean over the votes of each galaxy.

    Args:
        votes: (B, A) counts.
        fractions: (B, A) that the model expects, before any vote.
        concentrations: (A,) of the best constant Dirichlet distribution, in the precision of the result.

    Returns:
        (B, Q, M) in nats; n from 0 in the last dimension; 0 where the galaxy has no more than n votes for the question.
    """
    precise, group = concentrations.dtype, question_of_answer(tree, votes.device)
    totals = sum_per_question(votes, tree)
    galaxy, answer = votes.nonzero(as_tuple=True)
    question = group[answer]
    given, total = votes[galaxy, answer], totals[galaxy, question]
    # Most galaxies share their counts with others.
    kinds, kind = torch.unique(torch.stack([answer, given, total]), dim=1, return_inverse=True)
    prior = concentrations[kinds[0]], sum_per_question(concentrations, tree)[group[kinds[0]]]
    scores = _expected_scores(kinds[1].to(precise), kinds[2].to(precise), *prior)[kind]
    own = fractions[galaxy, answer].to(precise).clamp_min(torch.finfo(precise).tiny).log()
    lead = (given.to(precise) / total)[:, None] * (own[:, None] - scores)
    questions = len(tree.questions)
    sums = concentrations.new_zeros(len(votes) * questions, MOST + 1)
    sums = sums.index_add_(0, galaxy * questions + question, lead).view(len(votes), questions, -1)
    return torch.where(seen_by(totals), sums, 0)


def seen_by(totals: torch.Tensor) -> torch.Tensor:
    """(B, Q) votes for questions -> (B, Q, M): whether n volunteers can be compared, as there is one more vote."""
    return totals.unsqueeze(-1) > torch.arange(MOST + 1, device=totals.device)


def _expected_scores(
    given: torch.Tensor, total: torch.Tensor, concentration: torch.Tensor, all_concentrations: torch.Tensor
) -> torch.Tensor:
    """(K, M) mean logarithm of the probability that n others give to a vote for an answer with `given` of `total` votes, (K,) each.

    Of the others `given` - 1 gave the same answer, so that s is hypergeometric: its probabilities follow from those with one volunteer less.
    """
    s = torch.arange(MOST + 1, dtype=given.dtype, device=given.device)
    logs = (concentration[:, None] + s).log()
    p = torch.zeros_like(logs)  # of each s, with n others
    p[:, 0] = 1
    expected = []
    for n in range(MOST + 1):
        expected.append((p * logs).sum(dim=1))
        left = (total - 1 - n).clamp_min(1)  # of whom the next one is drawn
        more = p * ((given[:, None] - 1 - s) / left[:, None]).clamp(0, 1)
        p = p - more
        p[:, 1:] += more[:, :-1]
    return torch.stack(expected, dim=1) - (all_concentrations[:, None] + s).log()


def volunteers_worth(
    lead: np.ndarray, galaxies: np.ndarray, replicates: np.ndarray, counted: np.ndarray
) -> dict[str, float | int | None]:
    """The number of volunteers that a model is worth for one question.

    Args:
        lead: (M,) sum over galaxies of `lead_over_volunteers`.
        galaxies: (M,) that were compared.
        replicates, counted: (R, M) the same in the replicates of a bootstrap.

    Returns:
        `value`, with the ends `low` and `high` of its interval: 0 for a model that is no better than the constant; `most` stands for as
        many or more, the largest number that FEWEST galaxies can be compared with; all None where they have no second vote. `galaxies`: with
        any vote.
    """
    enough = int((galaxies >= FEWEST).sum())
    value = low = high = most = None
    if enough > 1:  # else there is nobody to compare with
        most = enough - 1
        value = _crossing(lead[:enough] / galaxies[:enough])
        with np.errstate(invalid="ignore", divide="ignore"):
            means = replicates[:, :enough] / counted[:, :enough]
        drawn = [_crossing(each) for each in means if np.isfinite(each).all()]
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist() if drawn else (None, None)
    return {"value": value, "low": low, "high": high, "most": most, "galaxies": int(galaxies[0])}


def _crossing(lead: np.ndarray) -> float:
    """Where a mean lead first falls to 0, between whole numbers by a straight line; the last number if it never does."""
    behind = np.flatnonzero(lead <= 0)
    if not len(behind):
        return float(len(lead) - 1)
    n = int(behind[0])
    return float(n - 1 + lead[n - 1] / (lead[n - 1] - lead[n])) if n else 0.0
