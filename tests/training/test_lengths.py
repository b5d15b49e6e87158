"""Lengths that double until a longer one brings little more: the rule, and that each ends as a training of that length alone."""

import dataclasses

import pytest

from hf_galaxy.errors import BadInput
from hf_galaxy.training import checkpoints
from hf_galaxy.training.checkpoint_files import list_checkpoints
from hf_galaxy.training.estimate import Estimate
from hf_galaxy.training.lengths import Lengths
from hf_galaxy.training.recipe import Recipe
from tests.training.test_loop import CutOff, assert_equal, train, whole_and_cut_off

# 8 steps, of which the last 3 cool down, then 16 and 32.
SHORT = Recipe(
    epochs=1, batch_size=8, learning_rate=0.05, seed=1, schedule="wsd", warmup=0.25, cooldown=0.4, validate_every=0.5
)
DOUBLING = dataclasses.replace(SHORT, until_converged=True, max_doublings=2)


def losses_of(*losses):
    return [{"epochs": 2.0**n, "validation_loss": loss} for n, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "least", "converged"),
    [
        ((3.0,), 0.0, False),
        ((3.0, 2.984), 0.0, False),  # .53 %
        ((3.0, 2.986), 0.0, True),  # .47 %
        ((3.0, 2.986), 2.0, False),  # 1.4 % of what is left above the least
        ((3.0, 2.996), 2.0, True),
        ((3.0, 3.1), 0.0, True),
        ((2.0, 1.5), 2.0, True),  # the least is an estimate: a training may end below
        ((3.0, 2.5, 2.499), 0.0, True),
        ((3.0, 2.999, 2.5), 0.0, False),  # of the last doubling alone
    ],
)
def test_a_training_has_converged_when_twice_the_length_brings_less_than_half_a_percent_of_what_is_left(
    losses, least, converged
):
    assert Lengths(DOUBLING, 64, least=least).is_converged(losses_of(*losses)) == converged


def test_a_training_on_the_plateau_where_it_starts_has_not_converged():
    lengths = Lengths(DOUBLING, 64, least=2.0)
    assert not lengths.is_converged(losses_of(2.999, 2.998), start=3.0)
    assert not lengths.is_converged(losses_of(3.1, 3.2), start=3.0), "nor one that is worse"
    assert lengths.is_converged(losses_of(2.9, 2.899), start=3.0)
    assert not lengths.is_converged(losses_of(3.1, 3.2, 3.3), start=3.0)
    assert lengths.is_converged(losses_of(3.1, 3.2, 3.3, 3.4), start=3.0), "as nothing helps"


def test_all_lengths_share_their_learning_rates_until_the_shorter_one_cools_down():
    lengths = Lengths(DOUBLING, 84)
    for doublings in range(4):
        shorter, longer = lengths.recipe_of(doublings), lengths.recipe_of(doublings + 1)
        step = lengths.branch_step(doublings)
        rates = [
            [recipe.learning_rate_at(n, recipe.length(84)) for n in range(step + 2)] for recipe in (shorter, longer)
        ]
        assert rates[0][:step] == rates[1][:step]
        assert rates[0][-1] < rates[1][-1]
        assert step in lengths.schedule_of(doublings).keep_after
        assert len(lengths.schedule_of(doublings).validate_after) == 2


def test_the_longest_ends_as_a_training_of_that_length_alone(tmp_path):
    alone = dataclasses.replace(SHORT, epochs=4, warmup=0.25 / 4, validate_every=2)
    expected, training = train(tmp_path / "alone", alone)
    doubled, again = train(tmp_path / "doubled", DOUBLING)
    convergence = again["convergence"]
    assert [each["epochs"] for each in convergence["lengths"]] == [1, 2, 4]
    assert min(convergence["lengths"], key=lambda each: each["validation_loss"])["epochs"] == 4, (
        "else other weights are kept"
    )
    assert_equal(expected, doubled)
    assert [entry["validation_loss"] for entry in again["history"][-2:]] == [
        e["validation_loss"] for e in training["history"]
    ]
    assert again["best_epoch"] == training["best_epoch"]
    assert again["convergence"]["pictures"] == (8 + (16 - 4) + (32 - 9)) * 8  # steps before a cool-down count once
    assert again["losses"][-1] == training["losses"][-1]
    assert not list_checkpoints(tmp_path / "doubled", kept=True)


def test_it_stops_where_it_has_converged_and_ends_with_the_best_weights_of_all_lengths(tmp_path):
    values = iter([9.0, 5.0, 3.0, 4.0, 3.5, 2.0])
    weights = []

    def validate(model):
        weights.append({name: values.clone() for name, values in model.state_dict().items()})
        return next(values)

    model, training = train(tmp_path / "run", DOUBLING, validate=validate)
    convergence = training["convergence"]
    assert convergence["converged"]
    assert convergence["gain"] == 0.005
    assert [each["validation_loss"] for each in convergence["lengths"]] == [3.0, 3.5]
    assert training["best_epoch"] == 1
    assert [entry["validation_loss"] for entry in training["history"]] == [5.0, 3.0]
    assert all((values == weights[2][name]).all() for name, values in model.state_dict().items())
    assert next(values) == 2.0


def test_a_best_validation_that_two_lengths_share_is_no_sign_of_convergence(tmp_path):
    """With more validations than one before each cool-down: the second is the best of all, but the ends of the lengths still fall."""
    recipe = dataclasses.replace(DOUBLING, validate_every=0.25)
    values = iter([9.5, 9.0, 1.0, 6.0, 5.5, 4.0, 3.0, 2.0, 1.9, 1.8, 1.7])
    _, training = train(tmp_path / "run", recipe, validate=lambda model: next(values))
    convergence = training["convergence"]
    assert next(each["validation_loss"] for each in convergence["lengths"]) == 5.5
    assert len(convergence["lengths"]) == 3
    assert not convergence["converged"]
    assert training["best_epoch"] == 0.5, "whose weights are kept"


def test_a_training_that_may_not_be_doubled_again_has_not_converged(tmp_path):
    values = iter([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0])
    _, training = train(tmp_path / "run", DOUBLING, validate=lambda model: next(values))
    assert not training["convergence"]["converged"]
    assert len(training["convergence"]["lengths"]) == 3


@pytest.mark.parametrize("options", [{}, {"ema_galaxies": 32}])
@pytest.mark.parametrize("stop_at", [(3, 6), (9,), (14, 15), (10, 20, 31)])
def test_one_that_was_cut_off_ends_with_the_same_weights(tmp_path, stop_at, options):
    training, again = whole_and_cut_off(tmp_path, dataclasses.replace(DOUBLING, **options), stop_at)
    assert again["convergence"] == training["convergence"]


@pytest.mark.parametrize("killed_before", ["save", "remove_after"])
def test_one_that_was_killed_between_two_lengths_ends_with_the_same_weights(tmp_path, monkeypatch, killed_before):
    expected, training = train(tmp_path / "whole", DOUBLING)
    whole = getattr(checkpoints, killed_before)
    calls = []

    def killed(*args):
        calls.append(args)
        going_on = killed_before == "remove_after" or (args[1] == 4 and len(list_checkpoints(tmp_path / "cut")) > 1)
        if going_on and calls.count("killed") == 0:
            calls.append("killed")
            raise CutOff
        whole(*args)

    monkeypatch.setattr(checkpoints, killed_before, killed)
    with pytest.raises(CutOff):
        train(tmp_path / "cut", DOUBLING)
    resumed, again = train(tmp_path / "cut", DOUBLING)
    assert "killed" in calls
    assert_equal(expected, resumed)
    assert again["convergence"] == training["convergence"]


def test_training_of_one_length_has_no_word_on_convergence(tmp_path):
    _, training = train(tmp_path / "run", SHORT)
    assert "convergence" not in training


def test_lengths_that_share_no_steps_are_refused():
    with pytest.raises(BadInput, match="--until-converged: needs --schedule wsd"):
        Recipe(until_converged=True).check()
    with pytest.raises(BadInput, match="--max-doublings 0"):
        Recipe(max_doublings=0).check()
    DOUBLING.check()
    with pytest.raises(BadInput, match=r"--epochs 0\.01: is 1 step of 8 galaxies, of which none"):
        Lengths(dataclasses.replace(DOUBLING, epochs=0.01), 64).check()
    Lengths(dataclasses.replace(SHORT, epochs=0.01), 64).check()
    with pytest.raises(BadInput, match="none is left"):  # the cool-downs of two lengths would begin at the same step
        Lengths(dataclasses.replace(DOUBLING, epochs=1.8, batch_size=10, warmup=0, cooldown=0.5), 10).check()
    Lengths(DOUBLING, 64).check()


def test_an_estimate_until_converged_is_of_all_lengths_that_may_be_tried():
    known = dict(
        subset=1, validate_every=1, batch_size=8, cooldown=0.4, galaxies={"train": 64, "validation": 8, "test": 8},
        galaxies_per_second=8, evaluated_per_second=1, features_seconds=0, saving_seconds=0, tried_seconds=0, weights_bytes=0,
        checkpoint_bytes=1, checkpoints=2, kept=0, memory_bytes=0,
    )  # fmt: skip
    one, three = (Estimate(epochs=1, doublings=doublings, **known) for doublings in (0, 2))
    assert (one.steps, three.steps) == (8, 8 * 4 + round(0.4 * 8 * 3))
    assert one.seconds == 8 + 8
    assert three.seconds == three.steps + 3 * 8
    assert str(three).startswith("at most ")
