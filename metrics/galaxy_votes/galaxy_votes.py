"""How well a model foretells the votes of Galaxy Zoo volunteers, as a metric of the `evaluate` library.

It needs neither hf_galaxy nor torch: what is in this file is computed by itself, and equals `hf_galaxy.evaluation.vote_metrics.VoteMetrics`
to rounding. Legend: N galaxies, A answers, Q questions, K distributions in a mixture.
"""

import datasets
import evaluate
import numpy as np
from scipy.special import gammaln, logsumexp, xlogy

_DESCRIPTION = """
Galaxy Zoo volunteers answer the questions of a decision tree about pictures of galaxies. This metric says how well a model
foretells how many of them choose each answer: likelihood of the votes, errors of the vote fractions, and how often the most
popular answer is found; for each question and each campaign.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `list` of `float`): for each galaxy the concentration of the Dirichlet over vote fractions of each
        answer, in the order of the tree's answers; or of a mixture of two Dirichlets the concentrations in the first, those in the second, and the
        weight of the first for each question, as predictions of hf_galaxy have them; with `likelihood="multinomial"` the fraction of each answer.
    references (`list` of `list` of `int`): for each galaxy the votes for each answer; none for a question that was not asked.
    tree (`dict`, `str` or `list` of `str`): the questions: the `tree` of a model's config.json, or a dict with its `name` and
        `questions`, each with `name`, `answers` and `campaign`; where hf_galaxy is installed, also its name for a campaign
        such as "gz2", or several.
    likelihood (`str`): of the votes, "dirichlet_multinomial" (default) or "multinomial".
    min_votes (`int`): fractions are compared only in galaxies with so many votes for the question. Defaults to 20, as in GZ Evo.
Returns:
    galaxies (`int`): how many there were.
    min_votes (`int`): as given.
    loss (`float`): mean over galaxies of the negative log-likelihood of all their votes, in nats.
    questions (`dict`): of each question `galaxies_asked`, `galaxies_with_enough_votes`, `nll` (nats per galaxy that was
        asked), and of those with enough votes `rmse` and `mae` of fractions in [0, 1] and `accuracy`; None without galaxies.
    campaigns (`dict`): of each campaign `galaxies`, `nll` (of all its questions, nats per galaxy), and `rmse`, `mae` and
        `accuracy` as means over its questions.
Examples:
    >>> tree = {"name": "rings", "questions": [{"name": "ring", "answers": ["yes", "no"], "campaign": "rings"}]}
    >>> metric = evaluate.load("metrics/galaxy_votes")
    >>> results = metric.compute(predictions=[[3.0, 1.0], [1.0, 3.0]], references=[[30, 10], [0, 8]], tree=tree)
    >>> {name: round(value, 3) for name, value in results["questions"]["ring"].items()}
    {'galaxies_asked': 2, 'nll': 2.257, 'galaxies_with_enough_votes': 1, 'rmse': 0.0, 'mae': 0.0, 'accuracy': 1.0}
"""

_CITATION = """
@article{walmsley2022decals,
    title = {Galaxy Zoo DECaLS: Detailed visual morphology measurements from volunteers and deep learning for 314 000 galaxies},
    author = {Walmsley, Mike and others},
    journal = {Monthly Notices of the Royal Astronomical Society},
    volume = {509},
    pages = {3966--3988},
    year = {2022},
    doi = {10.1093/mnras/stab2093}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class GalaxyVotes(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            # Votes, too, are floats: as integers, fractions that were given for them would be cut off in silence.
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Sequence(datasets.Value("float32")),
                }
            ),
            license="Apache-2.0",
            reference_urls=["https://huggingface.co/papers/2102.08414", "https://huggingface.co/papers/2512.23691"],
        )

    def _compute(self, predictions, references, tree=None, likelihood="dirichlet_multinomial", min_votes=20):
        if likelihood not in ("dirichlet_multinomial", "multinomial"):
            raise ValueError(f"likelihood {likelihood!r}: choose dirichlet_multinomial or multinomial")
        if min_votes < 1:
            raise ValueError(f"min_votes {min_votes}: must be at least 1, as there are no fractions without votes")
        tree = _tree(tree)
        slices, end = [], 0
        for question in tree["questions"]:
            slices.append(slice(end, end + len(question["answers"])))
            end = slices[-1].stop
        mixture = 2 * end + len(slices) if likelihood == "dirichlet_multinomial" else end
        predictions = _table("predictions", predictions, tree["name"], end, mixture)
        votes = _table("references", references, tree["name"], end)
        concentrations, weights = _distributions(predictions, end, len(slices))
        _check_values(concentrations, weights, votes, slices, likelihood)

        asked = np.stack([votes[:, where].any(axis=1) for where in slices], axis=1)
        nll, expected = [], []
        for q, where in enumerate(slices):
            a, w, k = concentrations[:, :, where], weights[:, :, q], votes[:, where]
            of_each = np.stack([_nll(k, of_one, likelihood) for of_one in a.swapaxes(0, 1)], axis=1)
            nll.append(np.where(asked[:, q], -logsumexp(-of_each, axis=1, b=w), 0))
            expected.append((w[..., None] * a / a.sum(axis=2, keepdims=True)).sum(axis=1))
        nll = np.stack(nll, axis=1)
        questions, campaigns = {}, {}
        for q, (question, where) in enumerate(zip(tree["questions"], slices, strict=True)):
            fractions = _fraction_figures(votes[:, where], expected[q], min_votes)
            figures = {"galaxies_asked": int(asked[:, q].sum()), "nll": _mean(nll[asked[:, q], q]), **fractions}
            questions[question["name"]] = figures
            campaigns.setdefault(question["campaign"], []).append(q)

        def campaign(own):
            galaxies = int(asked[:, own].any(axis=1).sum())
            counted = [
                figures for q, figures in enumerate(questions.values()) if q in own and figures["rmse"] is not None
            ]
            return {
                "galaxies": galaxies,
                "nll": float(nll[:, own].sum() / galaxies) if galaxies else None,
                **{name: _mean([figures[name] for figures in counted]) for name in ("rmse", "mae", "accuracy")},
            }

        return {
            "galaxies": len(votes),
            "min_votes": min_votes,
            "loss": float(nll.sum() / len(votes)),
            "questions": questions,
            "campaigns": {name: campaign(own) for name, own in campaigns.items()},
        }


def _tree(tree):
    """The tree as a dict."""
    if isinstance(tree, dict):
        questions = tree.get("questions")
        if "name" not in tree or not questions or any({"name", "answers", "campaign"} - q.keys() for q in questions):
            raise ValueError("tree: needs a name and questions, each with name, answers and campaign")
        return tree
    if tree is None:
        raise ValueError("say with compute(tree=...) what the numbers stand for: the tree of a model's config.json")
    try:
        from hf_galaxy import DecisionTree, load_tree
    except ImportError as error:
        raise ImportError(
            f"tree {tree!r}: only hf_galaxy knows trees by their names; install it, or give the tree of a model's config.json"
        ) from error
    return (tree if isinstance(tree, DecisionTree) else load_tree(tree)).to_dict()


def _table(name, rows, tree, answers, mixture=None):
    """(N, A) float64 of lists of numbers, or all of them with as many as a mixture has."""
    allowed = mixture if mixture and len(rows) and len(rows[0]) == mixture else answers
    for place, row in enumerate(rows):
        if len(row) != allowed:
            of_mixture = f", or {mixture} for a mixture" if mixture not in (None, answers) else ""
            if len(row) in (answers, mixture):
                of_mixture += f"; galaxy 0 has {allowed}, and all must have as many"
            raise ValueError(
                f"{name}: galaxy {place} has {len(row)} numbers, but tree {tree} has {answers} answers: one number for each{of_mixture}"
            )
    return np.array(rows, dtype=np.float64)


def _distributions(predictions, answers, questions):
    """(N, K, A) concentrations or fractions, and the weights (N, K, Q) of the distributions of a mixture; without one these are 1."""
    if predictions.shape[1] == answers:
        return predictions[:, None], np.ones((len(predictions), 1, questions))
    first = predictions[:, 2 * answers :]
    return predictions[:, : 2 * answers].reshape(-1, 2, answers), np.stack([first, 1 - first], axis=1)


def _check_values(predictions, weights, votes, slices, likelihood):
    """Refuse what are no votes, concentrations, weights or fractions."""
    wrong = ~np.isfinite(votes) | (votes < 0) | (votes != np.round(votes))
    if wrong.any():
        galaxy, answer = np.argwhere(wrong)[0]
        raise ValueError(
            f"references: galaxy {galaxy} has {votes[galaxy, answer]} votes for answer {answer}; give counts"
        )
    what = "fraction" if likelihood == "multinomial" else "concentration"
    wrong = ~np.isfinite(predictions) | (predictions < 0) | ((predictions == 0) & (what == "concentration"))
    if wrong.any():
        galaxy, _, answer = place = tuple(np.argwhere(wrong)[0])
        raise ValueError(
            f"predictions: galaxy {galaxy} has {predictions[place]} for answer {answer}, which is no {what}"
        )
    wrong = ~((weights >= 0) & (weights <= 1))
    if wrong.any():
        galaxy, _, question = place = tuple(np.argwhere(wrong)[0])
        raise ValueError(
            f"predictions: galaxy {galaxy} has {weights[place]} for question {question}, which is no weight"
        )
    sums = np.concatenate([predictions[..., where].sum(axis=2) for where in slices], axis=1)
    ones = abs(sums - 1) < 1e-3
    if likelihood == "dirichlet_multinomial" and ones.all():
        raise ValueError('predictions: are fractions, not concentrations; give likelihood="multinomial" with these')
    if likelihood == "multinomial" and not ones.all():
        galaxy, question = np.argwhere(~ones)[0]
        raise ValueError(
            f"predictions: the fractions of question {question} in galaxy {galaxy} add up to {sums[galaxy, question]:g}, not 1"
        )


def _nll(k, predicted, likelihood):
    """(N,) negative log-likelihoods of the votes (N, answers) for one question, in nats: 0 where there are none.

    The formulas are those of `hf_galaxy.losses`, with the multinomial coefficient.
    """
    total = k.sum(axis=1)
    orders = gammaln(total + 1) - gammaln(k + 1).sum(axis=1)
    if likelihood == "multinomial":
        return -orders - xlogy(k, predicted).sum(axis=1)
    a0 = predicted.sum(axis=1)
    rises = gammaln(k + predicted) - gammaln(predicted)
    return gammaln(total + a0) - gammaln(a0) - rises.sum(axis=1) - orders


def _fraction_figures(k, predicted, min_votes):
    """How far the fractions of one question (N, answers) are off in galaxies with enough votes."""
    enough = k.sum(axis=1) >= min_votes
    k, predicted = k[enough], predicted[enough]
    error = predicted - k / k.sum(axis=1, keepdims=True)
    # Of answers that got equally many votes, either is right.
    chosen = np.take_along_axis(k, predicted.argmax(axis=1)[:, None], axis=1)[:, 0]
    return {
        "galaxies_with_enough_votes": len(k),
        "rmse": _mean(error**2) ** 0.5 if len(k) else None,
        "mae": _mean(abs(error)),
        "accuracy": _mean(chosen == k.max(axis=1)),
    }


def _mean(values):
    return float(np.mean(values)) if len(values) else None
