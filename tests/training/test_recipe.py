"""Recipes: what is refused, the learning rate at each step, and the recipes that are known by name."""

import dataclasses
import itertools
import json

import pytest
import tyro

from hf_galaxy.commands import finetune
from hf_galaxy.errors import BadInput
from hf_galaxy.training.recipe import RECIPES, Recipe, recipe_by_name, with_recipe
from hf_galaxy.training.settings import Settings


def rates(recipe, length=1000):
    return [recipe.learning_rate_at(step, length) for step in range(int(length) + 1)]


def test_cosine_warms_up_and_ends_at_zero():
    found = rates(Recipe(warmup=0.1, learning_rate=2.0))
    assert found[0] == 0
    assert found[50] == pytest.approx(1.0)
    assert max(found) == found[100] == 2.0
    assert found[550] == pytest.approx(1.0)
    assert found[1000] == pytest.approx(0)
    assert all(a >= b for a, b in itertools.pairwise(found[100:]))


def test_wsd_is_stable_until_it_decays_with_a_square_root():
    found = rates(Recipe(schedule="wsd", warmup=0.1, cooldown=0.2, learning_rate=2.0))
    assert found[50] == pytest.approx(1.0)
    assert set(found[100:801]) == {2.0}
    assert found[850] == pytest.approx(2.0 * (1 - 0.25**0.5))
    assert found[1000] == pytest.approx(0)
    assert all(a >= b for a, b in itertools.pairwise(found[100:]))


def test_constant_stays():
    assert set(rates(Recipe(schedule="constant", warmup=0.0, learning_rate=2.0))) == {2.0}


def test_trainings_of_two_lengths_with_wsd_have_the_same_learning_rates_until_the_first_cools_down():
    short, long = Recipe(schedule="wsd", epochs=5, warmup=0.2), Recipe(schedule="wsd", epochs=20, warmup=0.05)
    for galaxies in (10_000, 9_973):  # also where an epoch is no whole number of batches
        lengths = short.length(galaxies), long.length(galaxies)
        until = int(short.cooldown_start(lengths[0]))
        assert until > 300
        assert rates(short, lengths[0])[:until] == rates(long, lengths[1])[:until]


def test_the_schedule_counts_galaxies_and_not_batches():
    """The same share of the galaxies has the same learning rate, whatever the batch."""
    small, large = Recipe(batch_size=10), Recipe(batch_size=40)
    assert rates(small, small.length(1000))[::4] == pytest.approx(rates(large, large.length(1000)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(epochs=0), "--epochs 0: must be more than 0"),
        (dict(weight_decay=-1), "--weight-decay -1: must not be negative"),
        (dict(layer_decay=0), "--layer-decay 0: is a factor"),
        (dict(warmup=1), "--warmup 1: is a share"),
        (dict(schedule="wsd", warmup=0.5, cooldown=0.6), "--cooldown 0.6: is the last part"),
        (dict(ema_galaxies=10), "--ema-galaxies 10: must be at least --batch-size 128"),
    ],
)
def test_what_no_training_can_be_made_of_is_refused(wrong, message):
    with pytest.raises(BadInput, match=message):
        Recipe(**wrong).check()


@pytest.mark.parametrize("name", [path.stem for path in RECIPES.glob("*.json")])
def test_recipes_by_name_say_what_is_known_and_hold_settings_that_there_are(name):
    recipe = recipe_by_name(name)
    assert recipe.keys() >= {"about", "source", "settings", "not_known", "differs"}
    fields = {field.name for field in dataclasses.fields(Settings)}
    for settings in (recipe["settings"], *recipe.get("backbones", {}).values()):
        assert settings.keys() <= fields
        arguments = [
            f"--{key.replace('_', '-')}={value}" for key, value in settings.items() if not isinstance(value, list)
        ]
        tyro.cli(Settings, args=[*arguments, "--dataset", "d", "--out", "o"]).check()


def test_a_named_recipe_gives_defaults_that_the_command_line_overrides():
    arguments = ["--recipe", "gz_evo", "--backbone=convnext_large", "--dataset", "d", "--out", "o", "--patience", "7"]
    given = tyro.cli(Settings, default=with_recipe(Settings, arguments), args=arguments)
    known = json.loads((RECIPES / "gz_evo.json").read_text())
    assert given.batch_size == known["settings"]["batch_size"]
    assert given.learning_rate == known["backbones"]["convnext_large"]["learning_rate"]
    assert given.patience == 7
    from_weights = with_recipe(Settings, ["--recipe", "gz_evo", "--start", "convnext_large.fb_in1k"])
    assert from_weights.drop_path == known["backbones"]["convnext_large"]["drop_path"]
    with pytest.raises(BadInput, match="--recipe no: there are gz_evo"):
        with_recipe(Settings, ["--recipe", "no"])


def test_without_any_option_the_command_says_which_it_needs(capsys):
    with pytest.raises(SystemExit):
        finetune.command.read([])
    assert "--start" in capsys.readouterr().err
