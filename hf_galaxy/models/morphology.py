"""What a votes model says of one galaxy, in numbers and in words. Legend: A answers, Q questions, N volunteers.

Of each question a model says a Dirichlet over the fractions of votes; the Dirichlets of different questions are independent.
A model with the multinomial likelihood says only the fractions themselves, so that there are no intervals.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import betaincinv, gammaln

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput

MOST_VOLUNTEERS = 1_000  # whose number of votes has a distribution that takes no more than seconds to compute


def morphology(
    fractions: np.ndarray, concentrations: np.ndarray | None, tree: DecisionTree, asked: float = 0.5, credible: float = 0.9,
    campaign: str | None = None, volunteers: int | None = None,
) -> list[dict]:  # fmt: skip
    """What volunteers are expected to say of one galaxy, for each campaign of the tree.

    Args:
        fractions: (A,) expected vote fractions.
        concentrations: (A,) of the Dirichlets; None: there are no intervals.
        asked: only questions that a volunteer is asked with at least this probability are answered; 0: all of them.
        credible: probability that the number lies in its interval; equally much is left out at both ends.
        campaign: only this one.
        volunteers: also say how many votes each answer gets if so many volunteers look at the galaxy.

    Returns:
        For each campaign plain data: `campaign`; `description`, the likely path in words; `path`, its questions and answers
        with their expected `fraction`; and `questions`, each with the probability that it is `asked`, and of its `answers`
        the expected `fraction` of votes and its credible `interval`, and with `volunteers` the expected number of `votes`
        and its `votes_interval`. Intervals are [low, high], or None.

    Raises:
        BadInput: as `check_options`, and as `vote_intervals`.
    """
    check_options(tree, asked, credible, campaign, volunteers)
    fractions = np.asarray(fractions, np.float64)
    probabilities = tree.asked_probability(fractions)
    intervals = votes = [None] * len(fractions)
    if concentrations is not None:
        intervals = credible_intervals(concentrations, tree, credible).tolist()
        if volunteers is not None:
            votes = vote_intervals(concentrations, tree, volunteers, credible).tolist()

    def answer(q, a, name):
        said = {"answer": name, "fraction": float(fractions[a]), "interval": intervals[a]}
        if volunteers is not None:
            said |= {"votes": float(volunteers * probabilities[q] * fractions[a]), "votes_interval": votes[a]}
        return said

    def question(q):
        columns = range(tree.slices[q].start, tree.slices[q].stop)
        answers = [answer(q, a, name) for a, name in zip(columns, tree.questions[q].answers, strict=True)]
        return {"question": tree.questions[q].name, "asked": float(probabilities[q]), "answers": answers}

    path = likely_path(fractions, tree)
    result = []
    for name, questions in tree.campaigns.items():
        if campaign not in (None, name):
            continue
        way = [(tree.question_of_answer[a], a) for a in path if tree.question_of_answer[a] in questions]
        names = [(tree.questions[q].name, tree.questions[q].answers[a - tree.slices[q].start]) for q, a in way]
        result.append(
            {
                "campaign": name,
                "description": in_words(names),
                "path": [
                    {"question": asked_for, "answer": given, "fraction": float(fractions[a])}
                    for (asked_for, given), (_, a) in zip(names, way, strict=True)
                ],
                "questions": [question(q) for q in questions if probabilities[q] >= asked],
            }
        )
    return result


def check_options(
    tree: DecisionTree, asked: float = 0.5, credible: float = 0.9, campaign: str | None = None,
    volunteers: int | None = None,
) -> None:  # fmt: skip
    """Refuse what `morphology` cannot be asked, before anything is computed.

    Raises:
        BadInput: names the option.
    """
    for wrong, what in [
        (not 0 <= asked <= 1, f"asked {asked}: is a probability, from 0 to 1"),
        (not 0 < credible < 1, f"credible {credible}: is a probability, between 0 and 1"),
        (
            campaign is not None and campaign not in tree.campaigns,
            f"campaign {campaign!r}: is not among those of the model, {', '.join(tree.campaigns)}",
        ),
        (
            volunteers is not None and volunteers not in range(1, MOST_VOLUNTEERS + 1),
            f"volunteers {volunteers}: is a number of people, from 1 to {MOST_VOLUNTEERS:,}",
        ),
    ]:
        if wrong:
            raise BadInput(what)


def likely_path(fractions: np.ndarray, tree: DecisionTree) -> list[int]:
    """The answers given if at each question that comes up the one with the highest expected fraction is.

    An answer may lead to several questions, and all of them are on the path, which ends where no answer leads further.

    Args:
        fractions: (A,)

    Returns:
        Their indices in `tree.columns`, growing.
    """
    chosen = set()
    for q in tree.order:
        if not tree.parents[q] or chosen & set(tree.parents[q]):
            where = tree.slices[q]
            chosen.add(where.start + int(np.argmax(fractions[where])))
    return sorted(chosen)


def credible_intervals(concentrations: np.ndarray, tree: DecisionTree, credible: float = 0.9) -> np.ndarray:
    """(A, 2) equal-tailed intervals of each answer's vote fraction: of Beta(a_i, a_0 - a_i), the Dirichlet's marginal.

    Args:
        concentrations: (A,)
    """
    a, others = _shares(concentrations, tree)
    return np.stack([betaincinv(a, others, tail) for tail in _tails(credible)], axis=-1)


def vote_intervals(
    concentrations: np.ndarray, tree: DecisionTree, volunteers: int, credible: float = 0.9
) -> np.ndarray:
    """(A, 2) equal-tailed intervals of the number of votes for each answer, if N volunteers look at the galaxy.

    Of n volunteers that are asked a question, the number that gives some answer, or one of several, is beta-binomial,

        P(k | n) = C(n, k) B(k + a, n - k + b) / B(a, b),    a of these answers and b of the others,

    and so many are asked the questions behind it: the distribution of n goes down the tree, exactly.

    Args:
        concentrations: (A,)

    Returns:
        The least numbers whose cumulated probability reaches each tail, as `scipy.stats.betabinom.ppf`.

    Raises:
        BadInput: a question is asked after answers of different questions.
    """
    a, others = _shares(concentrations, tree)
    total = (a + others).tolist()
    asked = [np.arange(volunteers + 1.0) == volunteers] * len(tree.questions)  # P(n are asked), n from 0 to N
    intervals = np.empty((len(a), 2), int)
    for q in tree.order:
        if parents := tree.parents[q]:
            above = {tree.question_of_answer[parent] for parent in parents}
            if len(above) > 1:
                names = ", ".join(tree.questions[p].name for p in sorted(above))
                raise BadInput(f"volunteers: {tree.questions[q].name} is asked after several questions, {names}")
            [above] = above
            asked[q] = asked[above]
            if len(parents) < len(tree.questions[above].answers):
                together = a[parents].sum()
                asked[q] = asked[above] @ _beta_binomial(volunteers, together, total[parents[0]] - together)
        for answer in range(tree.slices[q].start, tree.slices[q].stop):
            votes = asked[q] @ _beta_binomial(volunteers, a[answer], others[answer])
            intervals[answer] = np.searchsorted(votes.cumsum(), _tails(credible))
    return intervals


def _tails(credible):
    return (1 - credible) / 2, (1 + credible) / 2


def _shares(concentrations, tree):
    """Concentrations, and those of all other answers to the same question, in float64."""
    a = np.asarray(concentrations, np.float64)
    totals = np.add.reduceat(a, [where.start for where in tree.slices])
    return a, totals[tree.question_of_answer] - a


def _beta_binomial(most, a, b):
    """(N + 1, N + 1): P(k | n), of n from 0 to N in rows."""
    numbers = np.arange(most + 1)
    n, k = numbers[:, None], numbers[None]
    factorials, ways = gammaln(numbers + 1), gammaln(a + numbers) - gammaln(a)
    other_ways, all_ways = gammaln(b + numbers) - gammaln(b), gammaln(a + b + numbers) - gammaln(a + b)
    rest = np.maximum(n - k, 0)
    log = (factorials - all_ways)[n] + (ways - factorials)[k] + (other_ways - factorials)[rest]
    return np.where(k <= n, np.exp(log), 0)


# What an answer means of the galaxy. A question without its campaign's suffix, answers as the trees name them.
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
# Both are said of the spiral arms, together with them.
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
        path: questions, by their full names, and the answers to them. One that is not known is said as it is called.
    """
    known = {**WORDS, **ARMS}
    answers = {_known(*each, known): each[1] for each in path}
    arms = [words[answers[question]] for question, words in ARMS.items() if question in answers]
    phrases = []
    for name, answer in path:
        question = _known(name, answer, known)
        if question is None:
            phrases.append(f"{name}: {answer}".replace("-", " "))
        elif question == "has-spiral-arms" and arms:
            phrases.append(" ".join([*arms, "spiral arm" if arms[0] == "one" else "spiral arms"]))
        elif question in WORDS:
            phrases.append(WORDS[question][answer])
    return ", ".join(phrases)


def _known(name, answer, known):
    """The question without its suffix, if it is one of those that are known with this answer."""
    fitting = [q for q, words in known.items() if answer in words and f"{name}-".startswith(f"{q}-")]
    return max(fitting, key=len, default=None)
