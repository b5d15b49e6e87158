"""Families of measures: what stands for the error of a task, whatever its target is. An average over tasks is of one family.

The headline is the error: of classes their error rate, or the balanced one where a class is rare, as else a start that never
finds that class has hardly any error; of votes and values the RMSE, of votes against the true fractions. The tasks of a
benchmark may have other measures, which then are its headline (`tasks.Task.measure`).
"""

from collections.abc import Collection

RARE = 0.05  # of the galaxies: a class with a smaller share than this is rare
HEADLINE = "headline"
# For each family the measures (`reports.measures.MEASURES`) that stand for it; of these a task has the first that its target has.
FAMILIES = {
    HEADLINE: ("the measure of each task", ()),
    "error": ("error rate, RMSE", ("error", "true_rmse", "rmse")),
    "balanced": ("balanced error rate, RMSE", ("balanced_error", "error", "true_rmse", "rmse")),
    "likelihood": (
        "cross-entropy, likelihood loss of votes",
        ("nll", "above_oracle", "excess"),
    ),
    "auc": ("1 - area under the ROC curve, RMSE", ("missed_auc", "missed_precision", "true_rmse", "rmse")),
    "precision": ("1 - average precision, RMSE", ("missed_precision", "true_rmse", "rmse")),
}


def measure_in(family: str, measures: Collection[str], headline: str) -> str | None:
    """The measure of a task that stands for a family; None if it has none.

    Args:
        measures: that the task has; headline: the one that it is compared by.
    """
    if family == HEADLINE:
        return headline
    return next((measure for measure in FAMILIES[family][1] if measure in measures), None)


def headline_measure(measures: Collection[str], rarest: float | None = None) -> str:
    """The measure that a task is compared by, if it names none: the rule above.

    Args:
        measures: that its target has, the default first.
        rarest: the share of the rarest class; None: there are none.
    """
    family = "balanced" if rarest is not None and rarest < RARE else "error"
    return measure_in(family, measures, "") or next(iter(measures))
