"""The metric for `evaluate.load` says what `hf_galaxy.evaluation.vote_metrics` says, without hf_galaxy, on one process and on two."""

import doctest
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import evaluate
import numpy as np
import pytest
import torch
from huggingface_hub import RepoCard

from hf_galaxy import load_tree
from hf_galaxy.evaluation.constant_votes import ConstantVotes
from hf_galaxy.evaluation.vote_metrics import VoteMetrics
from hf_galaxy.losses import dirichlet_multinomial_nll, expected_fractions, multinomial_nll
from tests.conftest import ROOT

FOLDER = ROOT / "metrics" / "galaxy_votes"
TREE = load_tree(["gz2", "gz_hubble"])
RINGS = {"name": "rings", "questions": [{"name": "ring", "answers": ["yes", "no"], "campaign": "rings"}]}


@pytest.fixture
def metric(tmp_path):
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path))


@pytest.fixture(scope="module")
def case():
    """Votes of 150 galaxies in two campaigns, many questions unasked or with few votes, one never asked; concentrations."""
    rng = np.random.default_rng(0)
    votes = np.zeros((150, len(TREE.columns)), np.int32)
    for q, where in enumerate(TREE.slices):
        size = where.stop - where.start
        totals = rng.integers(0, 45, 150) * (rng.random(150) < 0.7) * (q != 3)
        votes[:, where] = np.stack([rng.multinomial(total, np.full(size, 1 / size)) for total in totals])
    for campaign, questions in enumerate(TREE.campaigns.values()):
        for q in questions:
            votes[np.arange(150) % 2 != campaign, TREE.slices[q]] = 0
    concentrations = 1 + 100 * torch.rand(votes.shape, generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(votes), concentrations


def ours(votes, concentrations, likelihood, min_votes, weights=None):
    """The model's figures of VoteMetrics, without those of the baseline."""
    fractions = expected_fractions(concentrations, TREE, weights)
    if likelihood == "multinomial":
        nll = multinomial_nll(votes, fractions.log(), TREE)
    else:
        nll = dirichlet_multinomial_nll(votes, concentrations, TREE, weights)
    metrics = VoteMetrics(TREE, ConstantVotes.of([votes.numpy()], TREE, min_votes), min_votes, likelihood)
    metrics.update({"votes": votes}, SimpleNamespace(fractions=fractions, nll=nll))

    def of_model(figures):
        if isinstance(figures, dict) and "model" in figures:
            return figures["model"]
        return {name: of_model(value) for name, value in figures.items()} if isinstance(figures, dict) else figures

    return of_model(metrics.compute())


def flat(figures, path=()):
    for name, value in figures.items():
        yield from flat(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]


def assert_same(one, other, rel=1e-5):
    one, other = dict(flat(one)), dict(flat(other))
    assert one.keys() == other.keys()
    for path, value in one.items():
        assert value == (None if other[path] is None else pytest.approx(other[path], rel=rel)), path


@pytest.mark.parametrize("likelihood", ["dirichlet_multinomial", "multinomial"])
@pytest.mark.parametrize("min_votes", [1, 20])
def test_figures_are_those_of_vote_metrics(case, likelihood, min_votes, metric):
    votes, concentrations = case
    predictions = concentrations if likelihood == "dirichlet_multinomial" else expected_fractions(concentrations, TREE)
    results = metric.compute(
        predictions=predictions, references=votes, tree=TREE, likelihood=likelihood, min_votes=min_votes
    )
    assert_same(results, ours(votes, concentrations, likelihood, min_votes))
    assert results["questions"][TREE.questions[3].name]["nll"] is None
    assert results["questions"][TREE.questions[3].name]["accuracy"] is None
    json.dumps(results)


def test_figures_of_mixtures_are_those_of_vote_metrics(case, metric):
    votes, first = case
    rng = torch.Generator().manual_seed(1)
    second, shares = 3 * torch.rand(first.shape, generator=rng), torch.rand(150, len(TREE.questions), generator=rng)
    rows = torch.cat([first, second, shares], dim=1)
    results = metric.compute(predictions=rows, references=votes, tree=TREE)
    both = torch.stack([first, second], dim=1), torch.stack([shares, 1 - shares], dim=1)
    assert_same(results, ours(votes, both[0], "dirichlet_multinomial", 20, both[1]), rel=1e-4)


def test_batches_give_what_all_at_once_gives(case, metric):
    votes, concentrations = case
    whole = metric.compute(predictions=concentrations.numpy(), references=votes.numpy(), tree=TREE.to_dict())
    for rows in np.array_split(np.arange(len(votes)), 4):
        metric.add_batch(predictions=concentrations[rows].tolist(), references=votes[rows].tolist())
    assert metric.compute(tree=["gz2", "gz_hubble"]) == whole


# One of two processes of somebody who has evaluate, but neither hf_galaxy nor torch.
PROCESS = """
import json, sys
import numpy as np
folder, cache, process, tree, data = sys.argv[1:]
sys.modules |= {"hf_galaxy": None, "transformers": None}
import evaluate
del sys.modules["transformers"]  # datasets asks whether it was imported
metric = evaluate.load(folder, num_process=2, process_id=int(process), experiment_id="both", cache_dir=cache)
arrays = np.load(data)
metric.add_batch(**{name: arrays[name][int(process)::2] for name in ("predictions", "references")})
results = metric.compute(tree=json.load(open(tree)))
assert (results is None) == (process == "1")
assert "torch" not in sys.modules
if results:
    try:
        metric._compute([[1.0]], [[1]], tree="gz2")
    except ImportError as error:
        results["refusal"] = str(error)
    print(json.dumps(results))
"""


def test_two_processes_without_hf_galaxy_give_what_one_gives(case, tmp_path):
    votes, concentrations = case
    (tmp_path / "tree.json").write_text(json.dumps(TREE.to_dict()))
    np.savez(tmp_path / "data.npz", predictions=concentrations.numpy(), references=votes.numpy())
    command = [sys.executable, "-W", "error", "-c", PROCESS, FOLDER, tmp_path / "cache"]
    paths = [str(tmp_path / "tree.json"), str(tmp_path / "data.npz")]
    processes = [
        subprocess.Popen([*command, str(process), *paths], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for process in (0, 1)
    ]
    (out, err), (_, err_1) = (process.communicate(timeout=300) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], err.decode() + err_1.decode()
    results = json.loads(out)
    assert "give the tree of a model's config.json" in results.pop("refusal")
    assert_same(results, ours(votes, concentrations, "dirichlet_multinomial", 20))


@pytest.mark.parametrize(
    ("predictions", "references", "options", "message"),
    [
        (
            [[3, 1], [3, 1, 2]],
            [[3, 1], [3, 1]],
            {},
            "predictions: galaxy 1 has 3 numbers, but tree rings has 2 answers: one number for each, or 5 for a mixture",
        ),
        (
            [[3, 1, 2, 4, 0.5], [3, 1]],
            [[3, 1], [3, 1]],
            {},
            "galaxy 1 has 2 numbers, .* or 5 for a mixture; galaxy 0 has 5, and all must have as many",
        ),
        ([[3, 1, 2, 2, 1.5]], [[3, 1]], {}, "galaxy 0 has 1.5 for question 0, which is no weight"),
        ([[3, 1]], [[3, 1, 0]], {}, "references: galaxy 0 has 3 numbers"),
        ([[3, 1]], [[0.75, 0.25]], {}, r"galaxy 0 has 0.75 votes for answer 0; give counts"),
        ([[3, 1]], [[3, -1]], {}, r"galaxy 0 has -1.0 votes for answer 1"),
        ([[3, 1]], [[3, None]], {}, r"galaxy 0 has nan votes for answer 1"),
        ([[3, 0]], [[3, 1]], {}, "galaxy 0 has 0.0 for answer 1, which is no concentration"),
        ([[3, float("nan")]], [[3, 1]], {}, "galaxy 0 has nan for answer 1"),
        ([[0.5, 0.5]], [[3, 1]], {}, "are fractions, not concentrations"),
        ([[0.5, 0.4]], [[3, 1]], {"likelihood": "multinomial"}, "question 0 in galaxy 0 add up to 0.9, not 1"),
        ([[3, 1]], [[3, 1]], {"likelihood": "normal"}, "choose dirichlet_multinomial or multinomial"),
        ([[3, 1]], [[3, 1]], {"min_votes": 0}, "min_votes 0: must be at least 1"),
        ([[3, 1]], [[3, 1]], {"tree": None}, "the tree of a model's config.json"),
        ([[3, 1]], [[3, 1]], {"tree": {"questions": []}}, "needs a name and questions"),
        ([[3, 1]], [[3, 1]], {"tree": "gz3"}, "no decision tree gz3"),
    ],
)
def test_what_does_not_fit_is_refused(predictions, references, options, message, metric):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=predictions, references=references, **{"tree": RINGS} | options)


def test_what_was_refused_is_not_counted_later(metric):
    with pytest.raises(ValueError, match="tree rings has 2 answers"):
        metric.compute(predictions=[[3, 1, 1]], references=[[3, 1, 1]], tree=RINGS)
    assert metric.compute(predictions=[[3, 1]], references=[[3, 1]], tree=RINGS)["galaxies"] == 1


def test_a_fraction_of_0_costs_nothing_where_nobody_voted_and_everything_where_somebody_did(metric):
    options = {"tree": RINGS, "likelihood": "multinomial"}
    assert metric.compute(predictions=[[1, 0]], references=[[9, 0]], **options)["loss"] == 0
    assert metric.compute(predictions=[[1, 0]], references=[[9, 1]], **options)["loss"] == float("inf")


def test_the_card_is_that_of_a_metric_and_its_examples_run(metric, monkeypatch):
    card = RepoCard.load(FOLDER / "README.md", repo_type="space", ignore_metadata_errors=False)
    assert {"evaluate", "metric"} <= set(card.data.tags)
    assert (card.data.sdk, card.data.app_file) == ("gradio", "app.py")
    assert metric.citation.strip() in card.text
    monkeypatch.chdir(ROOT)
    for text in (card.text, metric.inputs_description):
        test = doctest.DocTestParser().get_doctest(text, {"evaluate": evaluate}, "card", None, None)
        assert len(test.examples) > 3
        assert doctest.DocTestRunner().run(test).failed == 0
    assert {"evaluate", "scipy", "datasets"} <= set(
        re.findall(r"^\w+", (FOLDER / "requirements.txt").read_text(), re.M)
    )
