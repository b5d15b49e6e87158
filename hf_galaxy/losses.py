"""How unlikely the volunteers' votes are, given what a model says. Legend: B galaxies, A answers, Q questions.

All questions of all campaigns are computed at once, in float32 or better whatever the autocast. Where a question has no
votes (never reached, or a campaign that did not see the galaxy) every term cancels exactly: the loss is 0 and so is its
gradient. The absence of votes is the mask; there is no other.
"""

import torch

from hf_galaxy.decision_tree import DecisionTree


def dirichlet_multinomial_nll(votes: torch.Tensor, concentrations: torch.Tensor, tree: DecisionTree) -> torch.Tensor:
    """Negative log-likelihood of votes drawn with fractions that are themselves drawn from a Dirichlet.

    Per question with votes k_i, N = sum k_i, concentrations a_i and a_0 = sum a_i:

        -log p = -lnG(N + 1) - lnG(a_0) + lnG(N + a_0) - sum_i [lnG(k_i + a_i) - lnG(k_i + 1) - lnG(a_i)]

    with lnG the log-gamma function, as Galaxy Zoo DECaLS uses it (huggingface.co/papers/2102.08414); the multinomial
    coefficient is included, as in the test losses that Zoobot publishes.

    Args:
        votes: (B, A) counts, columns in the tree's order.
        concentrations: (B, A) positive.

    Returns:
        (B, Q) in nats, float32 (float64 if the concentrations are). The training loss is its sum over Q, mean over B.
    """
    with torch.autocast(votes.device.type, enabled=False):
        concentrations = _at_least_float32(concentrations)
        votes = votes.to(concentrations.dtype)
        # The difference is taken per answer, before any sum: for k = 0 it is exactly 0.
        rise = torch.lgamma(votes + concentrations) - torch.lgamma(concentrations)
        totals, total_concentrations, rises = (sum_per_question(each, tree) for each in (votes, concentrations, rise))
        total_rise = torch.lgamma(totals + total_concentrations) - torch.lgamma(total_concentrations)
        return total_rise - rises - _log_coefficient(votes, totals, tree)


def multinomial_nll(votes: torch.Tensor, logits: torch.Tensor, tree: DecisionTree) -> torch.Tensor:
    """Negative log-likelihood of votes drawn with the fractions softmax(logits), question by question.

        -log p = -lnG(N + 1) + sum_i lnG(k_i + 1) - sum_i k_i log f_i

    The alternative of GZ Evo (huggingface.co/papers/2512.23691): no uncertainty beyond that of counting.

    Args:
        votes: (B, A) counts, columns in the tree's order.
        logits: (B, A) of any sign.

    Returns:
        (B, Q) in nats, float32 (float64 if the logits are).
    """
    with torch.autocast(votes.device.type, enabled=False):
        logits = _at_least_float32(logits)
        votes = votes.to(logits.dtype)
        totals = sum_per_question(votes, tree)
        cross_entropy = -sum_per_question(votes * question_log_softmax(logits, tree), tree)
        return cross_entropy - _log_coefficient(votes, totals, tree)


def expected_fractions(concentrations: torch.Tensor, tree: DecisionTree) -> torch.Tensor:
    """(B, A) mean vote fractions of the Dirichlet: a_i / a_0, adding up to 1 within each question."""
    concentrations = _at_least_float32(concentrations)
    return concentrations / sum_per_question(concentrations, tree)[..., _question_of_answer(concentrations, tree)]


def question_log_softmax(logits: torch.Tensor, tree: DecisionTree) -> torch.Tensor:
    """(B, A) log fractions, normalised within each question."""
    groups = _question_of_answer(logits, tree).expand_as(logits)
    # The largest logit of each question is taken off first, so that exp cannot overflow; it cancels in the gradient.
    peaks = logits.detach().new_full((*logits.shape[:-1], len(tree.questions)), -torch.inf)
    peaks = peaks.scatter_reduce(-1, groups, logits.detach(), "amax").gather(-1, groups)
    shifted = logits - peaks
    return shifted - sum_per_question(shifted.exp(), tree).log().gather(-1, groups)


def sum_per_question(values: torch.Tensor, tree: DecisionTree) -> torch.Tensor:
    """(..., A) -> (..., Q): the sum over the answers of each question."""
    sums = values.new_zeros(*values.shape[:-1], len(tree.questions))
    return sums.index_add(-1, _question_of_answer(values, tree), values)


def _log_coefficient(votes, totals, tree):
    return torch.lgamma(totals + 1) - sum_per_question(torch.lgamma(votes + 1), tree)


def _at_least_float32(values):
    return values if values.dtype == torch.float64 else values.float()


def _question_of_answer(like, tree):
    return torch.tensor(tree.question_of_answer, device=like.device)
