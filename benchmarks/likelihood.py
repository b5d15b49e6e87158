"""What the likelihood of a batch of votes costs: hf_galaxy, Zoobot, and the special functions that it is made of.

    python benchmarks/likelihood.py [--rounds 100] [--threads 2] [--galaxies 256]

All in one process, one after another in every round, on the same votes and concentrations; see benchmarks/README.md.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from material import machine, spread

from hf_galaxy.command_line import Command
from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.losses import dirichlet_multinomial_nll, sum_per_question

CAMPAIGNS = ["gz_decals_dr12", "gz_decals_dr5", "gz_desi_dr8", "gz2", "gz_candels", "gz_hubble"]
NOT_IN_ZOOBOT = {"clump-count-candels", "clump-count-hubble"}  # its gz_evo_v1_public_schema has the 63 others
INSTALL_PEER = "pip install --no-deps zoobot==2.9.0"
PACKAGES = ["hf_galaxy", "zoobot", "torch", "numpy"]
SWEPT = 16_000_000  # floats gone through before each measurement: in training the backbone has emptied the caches

ZOOBOT, OURS, BARE = "Zoobot", "hf_galaxy", "bare lgamma and digamma"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure the likelihood of a batch and its gradient, each way in turn, over and over."""

    rounds: int = 100
    """In each, every way is taken once."""
    galaxies: int = 256
    """In the batch."""
    threads: int = torch.get_num_threads()
    """Of torch. With one, times are CPU times; with more they are wall times, and other work on the machine shows."""


def tree_of_both() -> DecisionTree:
    """The 63 questions and 194 answers of Zoobot's gz_evo_v1_public_schema."""
    whole = load_tree(CAMPAIGNS)
    return whole.held_by([c for q in whole.questions if q.name not in NOT_IN_ZOOBOT for c in q.columns])


def survey_votes(tree: DecisionTree, galaxies: int, rng: np.random.Generator) -> np.ndarray:
    """Each galaxy was in one campaign, where 10 to 40 volunteers walked the tree."""
    votes = np.zeros((galaxies, len(tree.columns)), np.int32)
    campaign = rng.integers(len(tree.campaigns), size=galaxies)
    volunteers = rng.integers(10, 41, galaxies)
    for c, questions in enumerate(tree.campaigns.values()):
        own = np.flatnonzero(campaign == c)
        for q in (q for q in tree.order if q in questions):
            where, parents = tree.slices[q], tree.parents[q]
            asked = votes[np.ix_(own, parents)].sum(axis=1) if parents else volunteers[own]
            votes[own, where] = rng.multinomial(asked, rng.dirichlet(np.ones(where.stop - where.start), len(own)))
    return votes


def dense_votes(tree: DecisionTree, galaxies: int, rng: np.random.Generator) -> np.ndarray:
    """Every answer of every question of every campaign has votes in every galaxy: more than any survey."""
    return rng.integers(1, 15, (galaxies, len(tree.columns)), dtype=np.int32)


def ways(votes: torch.Tensor, tree: DecisionTree) -> dict[str, Callable]:
    """Name -> the loss as a function of the concentrations. Without Zoobot, ours and its limit alone."""
    functions = {
        OURS: lambda concentrations: dirichlet_multinomial_nll(votes, concentrations, tree).sum(1).mean(),
        BARE: bare(votes, tree),
    }
    try:
        from zoobot.pytorch.training import losses
    except ImportError:
        return functions
    pairs = {question.name: [f"_{answer}" for answer in question.answers] for question in tree.questions}
    peer = losses.CustomMultiQuestionLoss(pairs, losses.get_dirichlet_neg_log_prob)
    targets = {column: votes[:, a].clone() for a, column in enumerate(tree.columns)}  # as its loader gives them
    return {ZOOBOT: lambda concentrations: peer(concentrations, targets).sum(1).mean()} | functions


def bare(votes: torch.Tensor, tree: DecisionTree) -> Callable:
    """Only lgamma, and digamma by autograd, of as many numbers as there are answers and questions with votes.

    The numbers are copied out beforehand: it finds nothing, adds nothing up and puts nothing in its place.
    """
    counts = torch.cat([votes, sum_per_question(votes, tree)], dim=1).float()
    voted, made = counts > 0, {}

    def loss(concentrations):
        if id(concentrations) not in made:  # once, before anything is measured
            all_ = torch.cat([concentrations.detach(), sum_per_question(concentrations.detach(), tree)], dim=1)
            made[id(concentrations)] = (
                all_[voted].requires_grad_(),
                (counts + all_)[voted].requires_grad_(),
                counts[voted],
            )
        a, raised, k = made[id(concentrations)]
        return torch.lgamma(raised).sum() - torch.lgamma(a).sum() - torch.lgamma(k + 1).sum()

    return loss


def forward(loss: Callable, concentrations: torch.Tensor) -> torch.Tensor:
    """As in evaluation."""
    with torch.no_grad():
        return loss(concentrations)


def forward_and_backward(loss: Callable, concentrations: torch.Tensor) -> torch.Tensor:
    """As in training: with the gradient in the concentrations."""
    concentrations.grad = None
    value = loss(concentrations)
    value.backward()
    return value.detach()


def check_agreement(functions: dict[str, Callable], concentrations: torch.Tensor) -> None:
    """Refuse to compare what does not compute the same."""
    results = {}
    for name in {ZOOBOT, OURS} & functions.keys():
        value = forward_and_backward(functions[name], concentrations)
        results[name] = value, concentrations.grad.clone()
    if len(results) == 2:
        torch.testing.assert_close(results[ZOOBOT], results[OURS], rtol=1e-4, atol=1e-6)


def measure(functions: dict[str, Callable], concentrations: torch.Tensor, do: Callable, settings: Settings) -> dict:
    """Milliseconds of each way in each round, after a few rounds that do not count."""
    clock = time.thread_time if settings.threads == 1 else time.perf_counter
    swept, times = torch.zeros(SWEPT), {name: [] for name in functions}
    for _ in range(settings.rounds + 5):
        for name, loss in functions.items():
            do(loss, concentrations)  # so that it tidies up no memory that the one before has freed
            swept.add_(1)
            start = clock()
            do(loss, concentrations)
            times[name].append(1000 * (clock() - start))
    return {name: each[5:] for name, each in times.items()}


def main(settings: Settings) -> None:
    if min(settings.rounds, settings.galaxies, settings.threads) < 1:
        raise BadInput("--rounds, --galaxies and --threads must be at least 1")
    torch.set_num_threads(settings.threads)
    tree, rng = tree_of_both(), np.random.default_rng(0)
    # As many between 1 and 10 as between 10 and 101.
    spread_out = rng.uniform(0, np.log(101), (settings.galaxies, len(tree.columns)))
    concentrations = torch.from_numpy(np.exp(spread_out)).float().requires_grad_()
    clock = "CPU" if settings.threads == 1 else "wall"
    print(
        f"{settings.galaxies} galaxies, {len(tree.questions)} questions, {len(tree.columns)} answers; "
        f"median (least to most) of {settings.rounds} rounds.\n\n{clock} time, {settings.threads} thread(s); {machine(*PACKAGES)}\n"
    )
    for case, draw in (("survey", survey_votes), ("dense", dense_votes)):
        votes = torch.from_numpy(draw(tree, settings.galaxies, rng))
        functions = ways(votes, tree)
        if ZOOBOT not in functions and case == "survey":
            print(f"Zoobot is left out, as it is not installed; to include it: {INSTALL_PEER}\n")
        check_agreement(functions, concentrations)
        taken = {}
        for do in (forward_and_backward, forward):
            print(f"measuring {case}, {do.__name__} ...", file=sys.stderr)
            taken[do.__name__.replace("_", " ")] = measure(functions, concentrations, do, settings)
        report(f"{case}, {(votes > 0).float().mean():.0%} of the counts are not 0", taken)


def report(case: str, taken: dict[str, dict]) -> None:
    """Print the tables of one set of votes."""
    print(f"| {case}: ms | {' | '.join(taken)} |\n|---|{'---:|' * len(taken)}")
    names = list(next(iter(taken.values())))
    for name in names:
        print(f"| {name} | {' | '.join(spread(times[name], 2) for times in taken.values())} |")
    print(f"\n| {case}: ratio | {' | '.join(taken)} |\n|---|{'---:|' * len(taken)}")
    for above, below in ((ZOOBOT, OURS), (OURS, BARE), (ZOOBOT, BARE)):
        if {above, below} <= set(names):
            rounds = [[a / b for a, b in zip(t[above], t[below], strict=True)] for t in taken.values()]
            print(f"| {above} / {below} | {' | '.join(spread(each, 1) for each in rounds)} |")
    print()


if __name__ == "__main__":
    Command(Settings, main)()
