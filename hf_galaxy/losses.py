"""Losses: the negative log-likelihood of votes, and the errors of classes and values. Legend: B galaxies,
A answers, Q questions, C classes, K values.

All questions of all campaigns are computed at once, in float32 or better: autocast changes only matrix products, and there
are none here. If a question has no votes (it was never reached, or its campaign did not include the galaxy), its loss and
gradient are exactly 0. The absence of votes is the only mask. Nothing here waits for a GPU.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from hf_galaxy.decision_tree import DecisionTree


def dirichlet_multinomial_nll(
    votes: torch.Tensor, concentrations: torch.Tensor, tree: DecisionTree, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Negative log-likelihood of votes whose fractions are drawn from a Dirichlet distribution, or from a mixture of several.

    Per question with votes k_i, N = sum k_i, concentrations a_i and a_0 = sum a_i:

        -log p = -lnG(N + 1) - lnG(a_0) + lnG(N + a_0) - sum_i [lnG(k_i + a_i) - lnG(k_i + 1) - lnG(a_i)]

    with lnG the log-gamma function, as Galaxy Zoo DECaLS uses it (huggingface.co/papers/2102.08414); the multinomial
    coefficient is included, as in the test losses that Zoobot publishes. Of a mixture with the weights w_k it is

        -log p = -log sum_k w_k p_k

    Args:
        votes: (B, A) counts, columns in the tree's order.
        concentrations: (B, A) positive; of a mixture (B, K, A).
        weights: of a mixture (B, K, Q), positive, with the sum 1 over K; None: there is one Dirichlet distribution for each question.

    Returns:
        (B, Q) in nats, float32 (float64 if the concentrations are). The training loss is its sum over Q, mean over B.
    """
    if weights is not None:
        mixed = concentrations.shape[1]
        of_each = dirichlet_multinomial_nll(votes.repeat_interleave(mixed, 0), concentrations.flatten(0, 1), tree)
        nll = -torch.logsumexp(weights.log() - of_each.unflatten(0, (-1, mixed)), dim=1)
        return torch.where(sum_per_question(votes, tree) > 0, nll, 0)  # log(w + (1 - w)) is 0 only up to rounding
    concentrations = _at_least_float32(concentrations)
    total_concentrations = sum_per_question(concentrations, tree)
    if votes.device.type != "cpu" or torch.compiler.is_compiling():
        votes = votes.to(concentrations.dtype)
        rises = sum_per_question(_log_rise(votes, concentrations), tree)
        return _log_rise(sum_per_question(votes, tree), total_concentrations) - rises
    # In a survey of several campaigns nine counts of ten are 0, and add nothing: on a CPU it is faster to leave them out. On
    # a GPU, counting the others would force the CPU to wait.
    galaxies, answers = votes.shape
    questions = len(tree.questions)
    votes = votes.reshape(-1)
    answer = votes.nonzero().squeeze(1)
    galaxy = answer // answers
    groups = question_of_answer(tree, votes.device)
    question = galaxy * questions + groups.index_select(0, answer - galaxy * answers)
    voted = votes.index_select(0, answer).to(concentrations.dtype)
    totals = voted.new_zeros(galaxies * questions).index_add_(0, question, voted)
    asked = totals.nonzero().squeeze(1)
    # Totals and answers go through the same functions together: for so few numbers the calls take most of the time.
    k = torch.cat([totals.index_select(0, asked), voted])
    a = [(total_concentrations, asked), (concentrations, answer)]
    rises = _log_rise(k, torch.cat([values.reshape(-1).index_select(0, where) for values, where in a]))
    total_rises, rises = rises.split([len(asked), len(answer)])
    nll = torch.zeros_like(totals).index_copy_(0, asked, total_rises).index_add_(0, question, rises, alpha=-1)
    return nll.view(galaxies, questions)


def _log_rise(k: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """ln [G(k + a) / G(a) / G(k + 1)], combined before any sum: its terms nearly cancel, and exactly for k = 0."""
    return torch.lgamma(k + a) - torch.lgamma(a) - torch.lgamma(k + 1)


def multinomial_nll(votes: torch.Tensor, logits: torch.Tensor, tree: DecisionTree) -> torch.Tensor:
    """Negative log-likelihood of votes drawn with the fractions softmax(logits), question by question.

        -log p = -lnG(N + 1) + sum_i lnG(k_i + 1) - sum_i k_i log f_i

    The alternative of GZ Evo (huggingface.co/papers/2512.23691), without uncertainty of the fractions.

    Args:
        votes: (B, A) counts, columns in the tree's order.
        logits: (B, A) of any sign.

    Returns:
        (B, Q) in nats, float32 (float64 if the logits are).
    """
    logits = _at_least_float32(logits)
    votes = votes.to(logits.dtype)
    coefficients = torch.lgamma(sum_per_question(votes, tree) + 1) - sum_per_question(torch.lgamma(votes + 1), tree)
    return -sum_per_question(votes * question_log_softmax(logits, tree), tree) - coefficients


def class_cross_entropy(
    labels: torch.Tensor, logits: torch.Tensor, smoothing: float = 0.0, weights: Sequence[float] | None = None
) -> torch.Tensor:
    """Cross-entropy of each galaxy, with label smoothing and class weights.

        (1 - s) w_y (-log p_y) + s / C sum_c w_c (-log p_c),    p = softmax(logits)

    Label smoothing s as in huggingface.co/papers/1512.00567, section 7. Losses are not divided by the sum of the weights in
    their batch, so that they do not depend on how galaxies are divided into batches and among processes.

    Args:
        labels: (B,) class indices y; or (B, C) shares of the classes, over which the formula is averaged.
        logits: (B, C).
        smoothing: s in [0, 1).
        weights: (C,) w; None: all 1.

    Returns:
        (B,) in nats, float32. The training loss is its mean.
    """
    weight = None if weights is None else constant(tuple(map(float, weights)), logits.device)
    return F.cross_entropy(logits.float(), labels, weight, reduction="none", label_smoothing=smoothing)


def masked_binary_cross_entropy(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of each galaxy, mean over the labels that it has.

        -1 / n sum_k [y_k log p_k + (1 - y_k) log(1 - p_k)],    p = sigmoid(logits), over its n labels k that are not missing

    A galaxy without any label has exactly 0. The mean is taken galaxy by galaxy, as in `standardised_squared_error`.

    Args:
        labels: (B, K) 1 for yes, 0 for no, NaN where missing.
        logits: (B, K).

    Returns:
        (B,) in nats, float32 (float64 if the logits are). The training loss is its mean.
    """
    logits = _at_least_float32(logits)
    known = labels == labels  # NaN equals nothing
    losses = F.binary_cross_entropy_with_logits(
        logits, torch.where(known, labels, 0).to(logits.dtype), reduction="none"
    )
    return torch.where(known, losses, 0).sum(dim=1) / known.sum(dim=1).clamp_min(1)


def standardised_squared_error(labels: torch.Tensor, values: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Squared error of each galaxy in units of the standard deviations, averaged over its values.

        1 / n sum_k ((v_k - y_k) / s_k)^2,    over its n values k that are not missing

    A galaxy without values has a loss of exactly 0, and missing values have a gradient of exactly 0. The mean is over the values
    of a galaxy, not of a batch, so that it does not depend on how galaxies are divided into batches and among processes.

    Args:
        labels: (B, K) true values y, NaN where missing.
        values: (B, K) predictions v.
        std: (K,) standard deviations s of the values.

    Returns:
        (B,) without unit. The training loss is its mean; about 1 for a prediction that is the mean of every value.
    """
    present = labels == labels  # NaN is not equal to itself
    errors = torch.where(present, (values - labels) / std, 0)
    return (errors**2).sum(dim=1) / present.sum(dim=1).clamp_min(1)


def expected_fractions(
    concentrations: torch.Tensor, tree: DecisionTree, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """(B, A) mean vote fractions, adding up to 1 within each question: a_i / a_0, and of a mixture the weighted mean of these.

    Args:
        concentrations, weights: as of `dirichlet_multinomial_nll`.
    """
    concentrations = _at_least_float32(concentrations)
    groups = question_of_answer(tree, concentrations.device)
    fractions = concentrations / sum_per_question(concentrations, tree).index_select(-1, groups)
    return fractions if weights is None else (weights.index_select(-1, groups) * fractions).sum(dim=-2)


def question_log_softmax(logits: torch.Tensor, tree: DecisionTree) -> torch.Tensor:
    """(B, A) log fractions, normalised within each question."""
    groups = question_of_answer(tree, logits.device).expand_as(logits)
    # The largest logit of each question is subtracted first, so that exp cannot overflow; it cancels in the gradient.
    peaks = logits.detach().new_full((*logits.shape[:-1], len(tree.questions)), -torch.inf)
    peaks = peaks.scatter_reduce(-1, groups, logits.detach(), "amax").gather(-1, groups)
    shifted = logits - peaks
    return shifted - sum_per_question(shifted.exp(), tree).log().gather(-1, groups)


def sum_per_question(values: torch.Tensor, tree: DecisionTree) -> torch.Tensor:
    """(..., A) -> (..., Q): the sum over the answers of each question."""
    sums = values.new_zeros(*values.shape[:-1], len(tree.questions))
    return sums.index_add_(-1, question_of_answer(tree, values.device), values)


def question_of_answer(tree: DecisionTree, device: torch.device) -> torch.Tensor:
    """(A,) index of the question of each answer, created once for each tree and device."""
    return constant(tuple(tree.question_of_answer), device)


_CONSTANTS: dict[tuple, torch.Tensor] = {}  # not functools.cache, of which torch.compile warns


def constant(values: tuple, device: torch.device) -> torch.Tensor:
    """Numbers as a tensor on a device, copied there by the first call only, because copying waits for a GPU."""
    if (values, device) not in _CONSTANTS:
        with torch.inference_mode(False):  # a tensor created during evaluation is also used in training
            _CONSTANTS[values, device] = torch.tensor(values, device=device)
    return _CONSTANTS[values, device]


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()
