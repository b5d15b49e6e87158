"""Vote fractions of a catalogue: conditional fractions, and the whole votes that they stand for.

Legend of shapes: N galaxies, A answers.
"""

import numpy as np

from hf_galaxy.decision_tree import DecisionTree


def conditional_fractions(fractions: np.ndarray, slices: list[slice]) -> np.ndarray:
    """Fractions among the volunteers who were asked a question, from fractions among all volunteers or from weighted sums.

    Within a question f_a -> f_a / sum_b f_b. The joint fractions of the Kaggle Galaxy Zoo challenge are products of the
    conditional ones along the path through the tree (its Class2.1 = "edge-on" among all = Class1.2 times "edge-on" among
    those asked), so that dividing by the question's sum recovers them. Conditional fractions do not change.

    Args:
        fractions: (N, A), not negative.
        slices: the columns of each question.

    Returns:
        (N, A), with sum 1 within a question; NaN where nobody was asked it.
    """
    conditional = np.full(fractions.shape, np.nan)
    for where in slices:
        total = fractions[:, where].sum(axis=1, keepdims=True)
        np.divide(fractions[:, where], total, out=conditional[:, where], where=total > 0)
    return conditional


def votes_of_fractions(conditional: np.ndarray, volunteers: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """Whole votes for conditional fractions, consistent with the tree wherever there are fractions.

    A question that is always asked has as many votes as there were volunteers, each other question as many as the answers
    that lead to it. The votes are in proportion to the fractions, rounded by largest remainders (Hamilton), so that no
    count is further than 1 from its exact value. Where the published fractions are weighted or debiased, these are not the
    original clicks.

    Args:
        conditional: (N, A) in the tree's order, NaN where a question was not asked.
        volunteers: (N,) number of volunteers of each galaxy.

    Returns:
        (N, A) int32.
    """
    votes = np.zeros(conditional.shape, dtype=np.int32)
    for q in tree.order:
        where, parents = tree.slices[q], tree.parents[q]
        asked = votes[:, parents].sum(axis=1) if parents else volunteers
        votes[:, where] = _largest_remainders(conditional[:, where], asked)
    return votes


def _largest_remainders(fractions: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """(N, answers) int32 with row sums `totals`; 0 where the fractions are NaN."""
    exact = np.nan_to_num(fractions) * totals[:, None]
    whole = np.floor(exact)
    left = np.where(np.isnan(fractions).any(axis=1), 0, totals - whole.sum(axis=1)).astype(int)
    # Rank the remainders of each galaxy from the largest; equal ones in the order of the answers.
    rank = np.argsort(np.argsort(-(exact - whole), axis=1, kind="stable"), axis=1, kind="stable")
    return (whole + (rank < left[:, None])).astype(np.int32)
