"""How predicted vote fractions, and the intervals around them, compare with the votes: figures made of the sums of `vote_metrics.VoteMetrics`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.evaluation import bootstrap
from hf_galaxy.evaluation.bootstrap import ratios, six_digits
from hf_galaxy.evaluation.pit import LEVELS, holding_level, placed


def vote_calibration(sums: dict[str, np.ndarray], tree: DecisionTree) -> dict:
    """By question, and of all questions of a campaign; means are None in bins without votes.

    `cast`, `predicted`, `given` (BINS,): over answers whose predicted fraction is in this bin, the votes for their question
    and the mean predicted and observed fractions, both weighted by votes. `error`: the mean distance
    of both in bins of each answer by itself, weighted by votes; of a campaign that of its questions, weighted by votes.
    `places` (PIT_BINS,): the PIT histogram of votes under the beta-binomial that the
    Dirichlet distribution predicts, which is flat if it is true; `coverage`, per cent -> the share in its central interval. Of questions
    also `coverage_interval`, per cent -> the ends of its interval, `holding`, per cent -> the level that holds as many (`holding_level`), and `spread`, the mean standard deviation of the predicted fractions.
    Of a calibrated model, `uncalibrated` has the figures without that.
    """
    parts = [[sums[f"{name} (A, bins)"][where] for where in tree.slices] for name in ("cast", "predicted", "given")]
    distances = [
        abs(predicted - given).sum() / max(cast.sum(), 1) for cast, predicted, given in zip(*parts, strict=True)
    ]
    votes = [given.sum() for given in parts[-1]]

    def over(questions: Sequence[int]) -> dict:
        cast, predicted, given = (sum(each[q].sum(0) for q in questions) for each in parts)
        total = sum(votes[q] for q in questions)
        figures: dict[str, Any] = {
            "cast": six_digits(cast),
            "predicted": six_digits(ratios(predicted, cast)),
            "given": six_digits(ratios(given, cast)),
            "error": float(sum(votes[q] * distances[q] for q in questions) / total) if total else None,
        }
        if "places (Q, places)" in sums:
            figures |= placed(sums["places (Q, places)"][questions].sum(0))
        return figures

    def question(q: int) -> dict:
        if "places (Q, places)" not in sums:
            return over([q])
        covered = ratios(sums["covered (R, Q, L)"][:, q], sums["answers (R, Q, L)"][:, q]).T
        ends = [(1 - bootstrap.LEVEL) / 2, (1 + bootstrap.LEVEL) / 2]
        drawn = {str(level): each[np.isfinite(each)] for level, each in zip(LEVELS, covered, strict=True)}
        asked = int(sums["asked"][q])
        places = sums["places (Q, places)"][q]
        return over([q]) | {
            "holding": {str(level): holding_level(places, level / 100, asked) for level in LEVELS},
            "coverage_interval": {
                level: six_digits(np.quantile(each, ends)) if len(each) else None for level, each in drawn.items()
            },
            "spread": {who: float(sums[f"{who} spread"][q] / asked) if asked else None for who in ("model", "baseline")},
        }  # fmt: skip

    return {
        "questions": {q.name: question(i) for i, q in enumerate(tree.questions)},
        "campaigns": {name: over(questions) for name, questions in tree.campaigns.items()},
        **({"uncalibrated": _before_calibration(sums, tree)} if "uncalibrated nll" in sums else {}),
    }


def _before_calibration(sums: dict[str, np.ndarray], tree: DecisionTree) -> dict:
    """`loss`, and by question `nll`, `places` and `coverage`, without the model's calibration."""
    nll, places = sums["uncalibrated nll"], sums.get("uncalibrated places (Q, places)")
    questions = {
        q.name: {
            "nll": float(nll[i] / sums["asked"][i]) if sums["asked"][i] else None,
            **({} if places is None else placed(places[i])),
        }
        for i, q in enumerate(tree.questions)
    }
    return {"loss": float(nll.sum() / sums["galaxies"][0]), "questions": questions}
