"""What a model would score that knew the true vote fractions of every galaxy, but not the votes that were drawn with them: the oracle.

The votes k for a question are a multinomial draw with fractions p, so that no prediction scores better than p on average. (The saturated
likelihood, of the observed fractions, is lower still, but it knows the votes.) Nobody knows p; its distribution over galaxies is estimated from the votes
of all of them, and that of one galaxy then follows from its own votes (`dirichlet_mixture`). With the weights w_c and concentrations a_c of
its components, and N = sum k_i, the expected loss of the oracle is

    E[-log p(k)] = -lnG(N + 1) + sum_i lnG(k_i + 1) + sum_c w_c sum_i k_i [psi(sum_j a_cj) - psi(a_ci)]

Its squared error, the scatter of the volunteers, needs no such distribution: the expected value over k of k_i (N - k_i) / (N^2 (N - 1)) is that of (k_i / N - p_i)^2.

Legend: B galaxies, A answers, Q questions; of one question M different vote vectors, K components, P parameters.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import digamma, gammaln, polygamma

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.evaluation import bootstrap
from hf_galaxy.evaluation.dirichlet_mixture import DirichletMixture
from hf_galaxy.evaluation.vote_sample import VoteSample
from hf_galaxy.losses import multinomial_nll

MOST = 20_000  # galaxies from whose votes it is estimated
FEWEST = 50  # of them asked: with 20, simulated intervals of 90 % hold 77 to 87 % (docs/methods.md)
PRIOR_DEVIATION = 3.0  # of a parameter of the mixture, a logarithm: what votes do not determine is within that


class OracleNll(NamedTuple):
    """The oracle's expected negative log-likelihood of the votes of each galaxy for each question.

    Attributes:
        nll: (B, Q) in nats, the multinomial coefficient included (`losses.multinomial_nll`); 0 where the galaxy has no votes for the question.
        influence: (B, Q) by how much the sum of `nll` over galaxies changes because the distribution of fractions does, if this galaxy counts once more.
            In a replicate of a bootstrap over galaxies the sum is that of `nll + influence`, each counted as often as its galaxy.
    """

    nll: np.ndarray
    influence: np.ndarray


def oracle_loss(batches: Iterable[np.ndarray], tree: DecisionTree) -> float:
    """The expected loss of the oracle, comparable with `VoteMetrics.loss` of the same galaxies: the sum over questions, mean over galaxies.

    Of more than MOST galaxies a random sample says how far the oracle is above the saturated likelihood, which is that of all, as in `oracle_sums`.

    Args:
        batches: (B, A) counts, columns in the tree's order; of all at least one galaxy.

    Returns:
        nats per galaxy.
    """
    sample, rng = VoteSample(MOST), np.random.default_rng(0)
    galaxies, saturated, asked = 0, np.zeros(len(tree.questions)), np.zeros(len(tree.questions))
    for votes in batches:
        sample.add(rng.integers(2**63, size=len(votes)), votes)
        galaxies += len(votes)
        saturated += _saturated_nll(votes, tree).sum(axis=0)
        asked += _asked(votes, tree).sum(axis=0)
    votes = sample.galaxies()[1]
    above = (oracle_nll(votes, tree).nll - _saturated_nll(votes, tree)).sum(axis=0)
    return float((saturated + asked * above / np.maximum(_asked(votes, tree).sum(axis=0), 1)).sum() / galaxies)


def oracle_nll(votes: np.ndarray, tree: DecisionTree) -> OracleNll:
    """The expected negative log-likelihood of the votes, given the true fractions.

    With few galaxies, or few votes, it depends on how fractions are assumed to be distributed. In the extreme, if no galaxy has a second vote for a
    question, votes do not show whether the galaxies differ or the volunteers.

    Args:
        votes: (B, A) counts, columns in the tree's order.
    """
    shape = len(votes), len(tree.questions)
    result = OracleNll(np.zeros(shape), np.zeros(shape))
    for q, where in enumerate(tree.slices):
        asked = votes[:, where].any(axis=1)
        if asked.any():
            kinds, kind, times = np.unique(votes[asked, where], axis=0, return_inverse=True, return_counts=True)
            for values, of_kinds in zip(result, _of_question(kinds, times), strict=True):
                values[asked, q] = of_kinds[kind.reshape(-1)]
    return result


def oracle_sums(sums: Mapping[str, np.ndarray], sample: VoteSample, tree: DecisionTree) -> dict[str, np.ndarray]:
    """The sums of the oracle's nll over galaxies, (Q,), and in the replicates of a bootstrap, (R, Q), named as those of `VoteMetrics`; none with few galaxies.

    Of more than MOST galaxies only a sample is known. It says how far the oracle is above the saturated likelihood, which differs little from galaxy to galaxy;
    `oracle asked` (Q,) is how many of it were asked, of whom less than FEWEST say too little of a question.

    Args:
        sums: those of the saturated nll, and of how many galaxies were `asked`.
    """
    keys, votes = sample.galaxies()
    if len(keys) < FEWEST:
        return {}
    times, asked = bootstrap.counts(keys).T, _asked(votes, tree)
    oracle = oracle_nll(votes, tree)
    above = oracle.nll - _saturated_nll(votes, tree)
    of_sample = {
        "": (above.sum(axis=0), asked.sum(axis=0)),
        " (R, Q)": (times @ (above + oracle.influence), times @ asked),
    }
    return {
        f"oracle nll{which}": sums[f"saturated nll{which}"] + sums[f"asked{which}"] * total / np.maximum(count, 1e-9)
        for which, (total, count) in of_sample.items()
    } | {"oracle asked": asked.sum(axis=0)}


def _saturated_nll(votes: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """(B, Q) of the observed fractions of (B, A) votes."""
    counts = torch.from_numpy(votes)
    return multinomial_nll(counts, counts.double().clamp_min(1e-30).log(), tree).numpy()


def _asked(votes: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """(B, Q) whether galaxies with (B, A) votes were asked the questions."""
    return np.add.reduceat(votes, [where.start for where in tree.slices], axis=1) > 0


def _of_question(votes: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) nll and (M,) influence of vote vectors (M, answers), each of `times` galaxies."""
    mixture = DirichletMixture.fit(votes, times)
    weights, a = mixture.posterior(votes)
    a0, k = a.sum(axis=2, keepdims=True), votes[:, None]
    in_component = ((digamma(a0) - digamma(a)) * k).sum(axis=2)
    expected = (weights * in_component).sum(axis=1)
    coefficients = gammaln(votes.sum(axis=1) + 1) - gammaln(votes + 1).sum(axis=1)
    # With the parameters, what is expected in each component changes, and its weight. The parameters of a replicate are those of one step of Fisher's scoring.
    own = (
        weights[:, :, None]
        * mixture.concentrations
        * (polygamma(1, a0) * votes.sum(axis=1)[:, None, None] - polygamma(1, a) * k)
    )
    gradient = times @ mixture.derivatives(votes, weights * (in_component - expected[:, None]))
    gradient[: own[0].size] += np.tensordot(times, own, 1).ravel()
    scores = mixture.derivatives(votes, weights)
    information = (scores.T * times) @ scores + np.eye(len(gradient)) / PRIOR_DEVIATION**2
    influence = scores @ np.linalg.solve(information, gradient)
    return expected - coefficients, influence - times @ influence / times.sum()
