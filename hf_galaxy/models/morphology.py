"""The prediction of a votes model for one galaxy, in numbers and in words. Legend: A answers, Q questions, N volunteers.

A model predicts for each question a Dirichlet over the fractions of votes, or a mixture of two; those of different questions are independent.
With the multinomial likelihood it predicts only the fractions, without intervals.
"""

from collections.abc import Sequence

import numpy as np

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.models.vote_intervals import credible_intervals, vote_intervals

MAX_VOLUNTEERS = 1_000  # for more, computing the distribution of votes takes longer than seconds


def morphology(
    fractions: np.ndarray, concentrations: np.ndarray | None, tree: DecisionTree, asked: float = 0.5, credible: float = 0.9,
    campaign: str | None = None, volunteers: int | None = None, weights: np.ndarray | None = None,
) -> list[dict]:  # fmt: skip
    """The votes that volunteers are expected to give for one galaxy, for each campaign of the tree.

    Args:
        fractions: (A,) expected vote fractions.
        concentrations: (A,) of the Dirichlets, or (2, A) of two that are mixed; None: without intervals.
        asked: include only questions that a volunteer is asked with at least this probability; 0: all of them.
        credible: probability of the equal-tailed credible intervals.
        campaign: only this campaign.
        volunteers: N; also predict the number of votes for each answer if N volunteers classify the galaxy.
        weights: (2, Q) of the two; None: there is one.

    Returns:
        For each campaign plain data: `campaign`; `description`, the likely path in words; `path`, its questions and answers
        with their expected `fraction`; and `questions`, each with the probability that it is `asked`, and its `answers` with
        the expected `fraction` of votes and its credible `interval`, and with `volunteers` the expected number of `votes`
        and its `votes_interval`. Intervals are [low, high], or None.

    Raises:
        BadInput: as `check_options`, and as `vote_intervals`.
    """
    check_options(tree, asked, credible, campaign, volunteers)
    fractions = np.asarray(fractions, np.float64)
    probabilities = tree.asked_probability(fractions)
    intervals: list[list[float] | None] = [None] * len(fractions)
    votes: list[list[int] | None] = [None] * len(fractions)
    if concentrations is not None:
        intervals = credible_intervals(concentrations, tree, credible, weights).tolist()
        if volunteers is not None:
            votes = vote_intervals(concentrations, tree, volunteers, credible, weights).tolist()

    def answer(q: int, a: int, name: str) -> dict:
        numbers = {"answer": name, "fraction": float(fractions[a]), "interval": intervals[a]}
        if volunteers is not None:
            numbers |= {"votes": float(volunteers * probabilities[q] * fractions[a]), "votes_interval": votes[a]}
        return numbers

    def question(q: int) -> dict:
        columns = range(tree.slices[q].start, tree.slices[q].stop)
        answers = [answer(q, a, name) for a, name in zip(columns, tree.questions[q].answers, strict=True)]
        return {"question": tree.questions[q].name, "asked": float(probabilities[q]), "answers": answers}

    path = likely_path(fractions, tree)
    result = []
    for name, questions in tree.campaigns.items():
        if campaign not in (None, name):
            continue
        steps = [(tree.question_of_answer[a], a) for a in path if tree.question_of_answer[a] in questions]
        names = [(tree.questions[q].name, tree.questions[q].answers[a - tree.slices[q].start]) for q, a in steps]
        result.append(
            {
                "campaign": name,
                "description": in_words(names),
                "path": [
                    {"question": of_question, "answer": of_answer, "fraction": float(fractions[a])}
                    for (of_question, of_answer), (_, a) in zip(names, steps, strict=True)
                ],
                "questions": [question(q) for q in questions if probabilities[q] >= asked],
            }
        )
    return result


def check_options(
    tree: DecisionTree, asked: float = 0.5, credible: float = 0.9, campaign: str | None = None,
    volunteers: int | None = None,
) -> None:  # fmt: skip
    """Check the options of `morphology`, before anything is computed.

    Raises:
        BadInput: names the invalid option.
    """
    for wrong, reason in [
        (not 0 <= asked <= 1, f"asked {asked}: must be a probability, from 0 to 1"),
        (not 0 < credible < 1, f"credible {credible}: must be a probability, between 0 and 1"),
        (
            campaign is not None and campaign not in tree.campaigns,
            f"campaign {campaign!r}: is not a campaign of the model, which has {', '.join(tree.campaigns)}",
        ),
        (
            volunteers is not None and volunteers not in range(1, MAX_VOLUNTEERS + 1),
            f"volunteers {volunteers}: must be a whole number from 1 to {MAX_VOLUNTEERS:,}",
        ),
    ]:
        if wrong:
            raise BadInput(reason)


def likely_path(fractions: np.ndarray, tree: DecisionTree) -> list[int]:
    """The path through the tree that takes the answer with the highest expected fraction at each question.

    An answer may lead to several questions: then all of them are on the path.

    Args:
        fractions: (A,)

    Returns:
        The indices of the answers in `tree.columns`, increasing.
    """
    chosen: set[int] = set()
    for q in tree.order:
        if not tree.parents[q] or chosen & set(tree.parents[q]):
            where = tree.slices[q]
            chosen.add(where.start + int(np.argmax(fractions[where])))
    return sorted(chosen)


# Descriptions of the galaxy by answer. Questions are without their campaign's suffix, answers as in the trees.
WORDS = {
    "smooth-or-featured": {
        "smooth": "smooth",
        "featured-or-disk": "featured",
        "features": "featured",
        "artifact": "a star or an artifact",
        "problem": "a problem of the picture",
        "star-artifact-zoom": "a star, an artifact or a bad zoom",
    },
    "disk-edge-on": {"yes": "edge-on", "no": "not edge-on"},
    "has-spiral-arms": {"yes": "spiral arms", "no": "no spiral arms"},
    "bar": {"yes": "a bar", "strong": "a strong bar", "weak": "a weak bar", "no": "no bar"},
    "bulge-size": {
        "dominant": "a dominant bulge",
        "large": "a large bulge",
        "obvious": "an obvious bulge",
        "moderate": "a moderate bulge",
        "small": "a small bulge",
        "just-noticeable": "a just noticeable bulge",
        "none": "no bulge",
        "no": "no bulge",
    },
    "how-rounded": {
        "round": "round",
        "completely": "round",
        "in-between": "in between round and cigar-shaped",
        "cigar-shaped": "cigar-shaped",
        "cigar": "cigar-shaped",
    },
    "edge-on-bulge": {
        "boxy": "a boxy bulge",
        "rounded": "a rounded bulge",
        "none": "no bulge",
        "yes": "a bulge",
        "no": "no bulge",
    },
    "bulge-shape": {
        "round": "a rounded bulge",
        "rounded": "a rounded bulge",
        "boxy": "a boxy bulge",
        "no-bulge": "no bulge",
        "none": "no bulge",
    },
    "something-odd": {"yes": "something odd", "no": "nothing odd"},
    "merging": {
        "none": "not merging",
        "neither": "not merging",
        "minor-disturbance": "a minor disturbance",
        "major-disturbance": "a major disturbance",
        "tidal-debris": "tidal debris",
        "merger": "merging",
        "both": "merging, tidal debris",
    },
    "clumps": {"yes": "clumps", "no": "no clumps"},
    "clumpy-appearance": {"yes": "clumpy", "no": "not clumpy"},
    "clump-count": {
        "1": "one clump",
        "2": "two clumps",
        "3": "three clumps",
        "4": "four clumps",
        "5-plus": "five or more clumps",
        "cant-tell": "clumps of unclear number",
    },
    "galaxy-symmetrical": {"yes": "symmetrical", "no": "not symmetrical"},
    "clumps-embedded-larger-object": {
        "yes": "clumps within a larger object",
        "no": "clumps not within a larger object",
    },
    "problem": {"star": "a star", "artifact": "an artifact", "zoom": "a bad zoom", "bad-zoom": "a bad zoom"},
    "artifact": {
        "satellite": "the trail of a satellite",
        "scattered": "scattered light",
        "diffraction": "diffraction spikes",
        "ray": "a cosmic ray",
        "saturation": "saturated pixels",
        "ghost": "a ghost",
        "other": "another artifact",
    },
    "ring": {"yes": "a ring", "no": "no ring"},
}
# Both describe the spiral arms, and are combined with them.
ARMS = {
    "spiral-arm-count": {
        "1": "one",
        "2": "two",
        "3": "three",
        "4": "four",
        "more-than-4": "more than four",
        "5-plus": "five or more",
        "cant-tell": "an unclear number of",
    },
    "spiral-winding": {"tight": "tight", "medium": "medium-tight", "loose": "loose"},
}


def in_words(path: Sequence[tuple[str, str]]) -> str:
    """Plain English of a path, such as "featured, not edge-on, two loose spiral arms, no bar".

    Args:
        path: full names of questions, and the answers to them. Others than in WORDS and ARMS are described by their names.
    """
    answers = {_described(*each): each[1] for each in path}
    arms = [words[answers[question]] for question, words in ARMS.items() if question in answers]
    phrases = []
    for name, answer in path:
        question = _described(name, answer)
        if question is None:
            phrases.append(f"{name}: {answer}".replace("-", " "))
        elif question == "has-spiral-arms" and arms:
            phrases.append(" ".join([*arms, "spiral arm" if arms[0] == "one" else "spiral arms"]))
        elif question in WORDS:
            phrases.append(WORDS[question][answer])
    return ", ".join(phrases)


def _described(name: str, answer: str) -> str | None:
    """The question in WORDS or ARMS, without its suffix, if there are words for this answer."""
    matches = [q for q, words in (WORDS | ARMS).items() if answer in words and f"{name}-".startswith(f"{q}-")]
    return max(matches, key=len, default=None)
