"""Several predictions for each galaxy, by several runs or of several views of it, as one.

Legend of shapes: M predictions for each galaxy, B galaxies, N numbers of a model, A answers, Q questions, K values, S side of a view.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch

from hf_galaxy.data.pictures import Rendering
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.models.model import (
    GalaxyForImageClassification,
    GalaxyForVotes,
    GalaxyPreTrainedModel,
)
from hf_galaxy.models.regression import GalaxyForRegression
from hf_galaxy.models.vote_intervals import distributions_in

Views = Literal[1, 4, 8]
BISECTIONS = 30  # after which a quantile of a mixture has the precision of float32
LEAST = 1e-3  # precision of a mixture of certainties that contradict one another: any fraction is possible


def turned_views(views: torch.Tensor, number: Views) -> Iterator[torch.Tensor]:
    """The same views (B, 3, S, S) as they are, then turned by quarter turns, and of 8 then mirrored and turned."""
    for mirrored in (views, views.flip(3))[: -(-number // 4)]:
        for turns in range(min(number, 4)):
            yield mirrored.rot90(turns, (2, 3)) if turns else mirrored


def combined(numbers: np.ndarray, model: GalaxyPreTrainedModel) -> np.ndarray:
    """One prediction of several: of fractions, probabilities and values the mean.

    Concentrations are those of `matched_dirichlets`, of mixtures with the mean weights. Standard deviations of values are those of the mixture of the M, by the law of total variance: the mean of
    the variances plus the variance of the values. Values without them are followed by their standard deviations among the M, with M - 1.

    Args:
        numbers: (M, B, N) float32, as the model's `predictions` has them.

    Returns:
        (B, N) float32, or (B, 2 N) of values without standard deviations.
    """
    if len(numbers) == 1:
        return numbers[0]
    exact = numbers.astype(np.float64)
    parts = [exact.mean(axis=0)]
    if isinstance(model, GalaxyForVotes) and numbers.shape[2] > (count := len(model.tree.columns)):
        parts = [parts[0][:, :count], _matched(exact[:, :, count:], model.tree)]
    elif isinstance(model, GalaxyForRegression) and model.has_spread:
        values, stds = np.split(exact, 2, axis=2)
        parts = [values.mean(axis=0), np.sqrt((stds**2).mean(axis=0) + values.var(axis=0))]
    elif isinstance(model, GalaxyForRegression):
        parts.append(exact.std(axis=0, ddof=1))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _matched(numbers: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """The distributions of M predictions as those of one, in the columns of a table (`vote_intervals.distributions_in`).

    Of mixtures of two, those distributions of the M become one that predict alike (`_in_one_order`), and the others the other.
    """
    concentrations, weights = distributions_in(numbers, tree)
    if weights is None:
        return matched_dirichlets(concentrations, tree)
    concentrations, weights = _in_one_order(concentrations, weights, tree)
    parts = [matched_dirichlets(concentrations[:, :, k], tree, weights[:, :, k]) for k in range(2)]
    return np.concatenate([*parts, weights[:, :, 0].mean(axis=0)], axis=1)


def _in_one_order(concentrations: np.ndarray, weights: np.ndarray, tree: DecisionTree) -> list[np.ndarray]:
    """Concentrations (M, B, 2, A) and weights (M, B, 2, Q), with the distributions of a question that are alike in all M at the same place.

    Which of both is the first, each of the M decides for itself, perhaps another one for each galaxy. Alike are those with like means and standard deviations of the
    fractions: the steps from one to the other have the same direction, that of the principal component of all of them. So the order of the M does not matter.

    In simulations of mixtures of 2, 3 and 5 runs whose log-concentrations, and logarithms of the odds of the weights, scatter by 0.2 and 0.5, intervals of 90 % hold 89.9 to 90.7 % of the
    fractions that are drawn; with a scatter of 1, 90.0 to 91.0 %. Of distributions that differ in their means, not in their precision, they hold 90.0 to 90.1 % (in the order of precision: 94.7 to 99.5 %).
    """
    precisions, means, variances = _moments(concentrations, tree)
    steps = np.diff(np.stack([means, np.sqrt(variances)]), axis=3)[:, :, :, 0]
    products = np.stack(
        [np.einsum("imba,inba->bmn", own, own) for own in (steps[..., at] for at in tree.slices)], axis=1
    )
    components = np.linalg.eigh(np.nan_to_num(products)).eigenvectors[..., -1]  # it refuses NaN of a broken model
    turned = np.moveaxis(components < 0, -1, 0)  # (M, B, Q)
    first, second = np.where(turned[:, :, None], precisions[:, :, ::-1], precisions).sum(axis=0).swapaxes(0, 1)
    turned = (turned != (first < second))[:, :, None]  # the more certain one is the first
    swaps = ((concentrations, turned[..., tree.question_of_answer]), (weights, turned))
    return [np.where(swapped, values[:, :, ::-1], values) for values, swapped in swaps]


def _moments(concentrations: np.ndarray, tree: DecisionTree) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The precisions (..., Q) of Dirichlet distributions, and the means and variances (..., A) of their fractions."""
    precisions = np.add.reduceat(concentrations, [where.start for where in tree.slices], axis=-1)
    of_answers = precisions[..., tree.question_of_answer]
    means = concentrations / of_answers
    return precisions, means, means * (1 - means) / (of_answers + 1)


def matched_dirichlets(concentrations: np.ndarray, tree: DecisionTree, weights: np.ndarray | None = None) -> np.ndarray:
    """(M, B, A) -> (B, A) concentrations of one Dirichlet for each question, near the mixture of M, of equal weight or with the weights (M, B, Q).

    Its means are the mean fractions m of the mixture. Its precision s gives the variances the sum that they have in the mixture, by
    the law of total variance,

        v_a = mean of f_a (1 - f_a) / (s_m + 1) + variance of f_a (weighted),    sum of v_a = sum of m_a (1 - m_a) / (s + 1).

    In simulations of 3 and 5 runs whose log-concentrations scatter by 0.2 and 0.5, its intervals of 90 % hold 88.8 to 90.5 % of the
    fractions that the mixture draws; those of the mixture's own quantiles, which take longer, 89.2 to 90.0 %; a Beta for
    each answer 88.7 to 89.8 %. With a scatter of 1 these are 87.4 to 89.4, 89.3 to 89.4 and 86.3 to 88.3 %.
    """
    starts, question = [where.start for where in tree.slices], tree.question_of_answer
    precisions, fractions, variances = _moments(concentrations, tree)
    weights = np.ones_like(precisions) if weights is None else weights
    shares = (weights / weights.sum(axis=0))[..., question]
    mean = (shares * fractions).sum(axis=0)
    variance = (shares * (variances + (fractions - mean) ** 2)).sum(axis=0)
    within, total = (np.add.reduceat(each, starts, axis=-1) for each in (mean * (1 - mean), variance))
    precision = within / np.maximum(total, np.finfo(np.float64).tiny) - 1
    return mean * np.maximum(precision, LEAST)[:, question]


def value_intervals(
    values: np.ndarray, stds: np.ndarray, tails: np.ndarray, credible: float
) -> tuple[np.ndarray, np.ndarray]:
    """The ends (B, K) of equal-tailed intervals of the mixture of M Student's t distributions.

    Args:
        values, stds: (M, B, K) float64, centres and standard deviations.
        tails: (M, K) 1 / degrees of freedom.
        credible: probability of the intervals.
    """
    from scipy.special import stdtr, stdtrit

    freedom = 1 / np.maximum(tails, 1e-6)[:, None]
    scales = stds * np.sqrt(1 - 2 * tails)[:, None]
    ends = []
    for probability in ((1 - credible) / 2, (1 + credible) / 2):
        quantiles = values + scales * stdtrit(freedom, probability)
        low, high = quantiles.min(axis=0), quantiles.max(axis=0)  # between which that of the mixture lies
        for _ in range(BISECTIONS if len(values) > 1 else 0):
            middle = (low + high) / 2
            below = stdtr(freedom, (middle - values) / scales).mean(axis=0) < probability
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        ends.append((low + high) / 2)
    return ends[0], ends[1]


def check_members(
    models: Sequence[GalaxyPreTrainedModel], names: Sequence[str], renderings: Sequence[Rendering]
) -> None:
    """Refuse runs whose predictions cannot be averaged.

    Args:
        names: of the runs, for messages.
        renderings: how files become pictures for each.

    Raises:
        BadInput: a run has other columns than the first, of another meaning, or sees other pictures.
    """
    first = models[0]
    for model, name, rendering in zip(models[1:], names[1:], renderings[1:], strict=True):
        if (difference := _difference(first, model)) is None and rendering != renderings[0]:
            theirs, ours = rendering.to_dict(), renderings[0].to_dict()
            what = next((k for k in theirs if theirs[k] != ours.get(k)), "rendering")
            difference = f"was trained on pictures with another {what}, {theirs.get(what)} in place of {ours.get(what)}"
        if difference:
            raise BadInput(
                f"--run {name}: {difference}, unlike {names[0]}; runs are averaged if they answer the same questions of the same views"
            )


def _of_each_question(model: GalaxyForVotes) -> str:
    if model.config.likelihood == "multinomial":
        return "fractions"
    return "a mixture of two Dirichlet distributions" if model.config.is_mixed else "a Dirichlet distribution"


def _difference(first: GalaxyPreTrainedModel, other: GalaxyPreTrainedModel) -> str | None:
    if type(other) is not type(first):
        return f"is a {type(other).__name__} and no {type(first).__name__}"
    if (
        isinstance(first, GalaxyForImageClassification)
        and isinstance(other, GalaxyForImageClassification)
        and first.multi_label != other.multi_label
    ):
        return f"has {'labels of their own' if other.multi_label else 'exclusive classes'}"
    if isinstance(first, GalaxyForVotes) and isinstance(other, GalaxyForVotes):
        kinds = [_of_each_question(model) for model in (other, first)]
        if kinds[0] != kinds[1]:
            return f"predicts {kinds[0]} for each question, not {kinds[1]}"
    ours, theirs = first.prediction_columns, other.prediction_columns
    for some, others, verb in ((theirs, ours, "predicts"), (ours, theirs, "does not predict")):
        if extra := [name for name in some if name not in others]:
            return f"{verb} {', '.join(extra[:3])}{f' and {len(extra) - 3} more' if len(extra) > 3 else ''}"
    if ours != theirs:
        return f"has its columns in another order, {theirs[0]} first"
    if isinstance(first, GalaxyForVotes) and isinstance(other, GalaxyForVotes):
        for q, (one, two) in enumerate(zip(first.tree.questions, other.tree.questions, strict=True)):
            if first.tree.parents[q] != other.tree.parents[q]:
                return f"asks {two.name} after {' or '.join(two.parents) or 'nothing'}, not after {' or '.join(one.parents) or 'nothing'}"
    for name in ("size", "crop", "bands"):
        if getattr(other.config.framing, name) != getattr(first.config.framing, name):
            what = {"size": "--image-size", "crop": "--crop", "bands": "--bands"}[name]
            return f"sees pictures with another {what}, {getattr(other.config.framing, name)} in place of {getattr(first.config.framing, name)}"
    return None
