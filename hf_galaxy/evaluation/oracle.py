"""What a model would score that knew the true vote fractions of every galaxy, but not the votes that were drawn with them: the oracle.

The votes k for a question are a multinomial draw with fractions p, so that no prediction scores better than p on average. (The saturated
likelihood, of the observed fractions, is lower still, but it knows the votes.) Nobody knows p; its distribution over galaxies is estimated from the votes
of all of them, and that of one galaxy then follows from its own votes (`dirichlet_mixture`). With the weights w_c and concentrations a_c of
its components, and N = sum k_i, the expected loss of the oracle is

    E[-log p(k)] = -lnG(N + 1) + sum_i lnG(k_i + 1) + sum_c w_c sum_i k_i [psi(sum_j a_cj) - psi(a_ci)]

Legend: B galaxies, A answers, Q questions.
"""

import numpy as np
from scipy.special import digamma, gammaln

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.evaluation.dirichlet_mixture import DirichletMixture

MOST = 20_000  # galaxies from whose votes it is estimated


def oracle_loss(votes: np.ndarray, tree: DecisionTree) -> float:
    """The expected loss of the oracle, comparable with `VoteMetrics.loss` of the same galaxies: the sum over questions, mean over galaxies.

    Of more than MOST galaxies, that of as many at equal distances.

    Args:
        votes: (B, A) counts, columns in the tree's order; at least one galaxy.

    Returns:
        nats per galaxy.
    """
    return float(oracle_nll(votes[:: -(-len(votes) // MOST)], tree).sum(axis=1).mean())


def oracle_nll(votes: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """The expected negative log-likelihood of the votes for each question, given the true fractions.

    With few galaxies, or few votes, it depends on how fractions are assumed to be distributed. In the extreme, if no galaxy has a second vote for a
    question, votes do not show whether the galaxies differ or the volunteers.

    Args:
        votes: (B, A) counts, columns in the tree's order.

    Returns:
        (B, Q) in nats, the multinomial coefficient included (`losses.multinomial_nll`); 0 where the galaxy has no votes for the question.
    """
    nll = np.zeros((len(votes), len(tree.questions)))
    for q, where in enumerate(tree.slices):
        asked = votes[:, where].any(axis=1)
        if asked.any():
            kinds, kind, times = np.unique(votes[asked, where], axis=0, return_inverse=True, return_counts=True)
            nll[asked, q] = _expected_nll(kinds, DirichletMixture.fit(kinds, times))[kind.reshape(-1)]
    return nll


def _expected_nll(votes: np.ndarray, mixture: DirichletMixture) -> np.ndarray:
    """(M,) of different vote vectors (M, answers of a question)."""
    weights, a = mixture.posterior(votes)
    log_fractions = digamma(a) - digamma(a.sum(axis=2, keepdims=True))
    coefficients = gammaln(votes.sum(axis=1) + 1) - gammaln(votes + 1).sum(axis=1)
    return -np.einsum("mk,mka,ma->m", weights, log_fractions, votes) - coefficients
