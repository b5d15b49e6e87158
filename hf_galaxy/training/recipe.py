"""How a model is trained: the settings that matter, the schedule of the learning rate, and recipes known by name."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from hf_galaxy.errors import BadInput

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained.

    Optimiser, learning rate, weight decay, clipping, patience and seed are the defaults of Zoobot 2's training from scratch; the
    number of epochs and the schedule are our choice.
    """

    recipe: str | None = None
    """Take defaults from a recipe by name (zoobot2, gz_evo, gz_evo_finetune); hf_galaxy/training/recipes/ says what is known of each."""
    epochs: float = 20
    """Passes over the training galaxies."""
    batch_size: int = 128
    """Galaxies per optimiser step, over all processes and micro-batches."""
    optimizer: str = "adamw"
    """adamw, or another of timm's, such as muon, lion or nadamw."""
    learning_rate: float = 1e-3
    """At its highest."""
    weight_decay: float = 0.01
    """Of weight matrices and filters; biases, norms and position embeddings have none."""
    layer_decay: float = 1.0
    """The learning rate of a layer is this times that of the layer above it; the head has the full one."""
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """After the warm-up: a cosine to 0 (our choice); or constant, and to 0 at the end (wsd: warm-up, stable, decay); or constant."""
    warmup: float = 0.05
    """Share of the training in which the learning rate rises linearly from 0."""
    cooldown: float = 0.2
    """Share of the training, its last part, in which the learning rate of the schedule wsd falls to 0."""
    clip_norm: float = 0.3
    """Largest norm of the gradient; longer ones are shortened to it."""
    ema_galaxies: float = 0
    """Validate and keep the moving average of the weights over about so many galaxies, instead of the last weights; 0: do not."""
    validate_every: float = 1
    """Epochs between two validations."""
    patience: int = 8
    """Validations in a row without a better loss after which training stops (the schedule wsd: only once its cool-down has begun)."""
    seed: int = 42
    """Of initialisation, subset, order of galaxies, views and dropout."""

    def check(self) -> None:
        """Refuse what no training can be made of.

        Raises:
            BadInput: names the setting.
        """
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm", "validate_every", "patience"):
            if getattr(self, name) <= 0:
                raise BadInput(f"--{name.replace('_', '-')} {getattr(self, name)}: must be more than 0")
        for name in ("weight_decay", "ema_galaxies", "seed"):
            if getattr(self, name) < 0:
                raise BadInput(f"--{name.replace('_', '-')} {getattr(self, name)}: must not be negative")
        if 0 < self.ema_galaxies < self.batch_size:
            raise BadInput(f"--ema-galaxies {self.ema_galaxies}: must be at least --batch-size {self.batch_size}")
        if not 0 < self.layer_decay <= 1:
            raise BadInput(f"--layer-decay {self.layer_decay}: is a factor, in (0, 1]")
        if not 0 <= self.warmup < 1:
            raise BadInput(f"--warmup {self.warmup}: is a share of the training, in [0, 1)")
        if self.schedule == "wsd" and not 0 < self.cooldown <= 1 - self.warmup:
            raise BadInput(f"--cooldown {self.cooldown}: is the last part of the training, in (0, 1 - warm-up]")

    def length(self, galaxies: int) -> float:
        """The whole training, on so many galaxies, in batches; not rounded."""
        return self.epochs * galaxies / self.batch_size

    def steps(self, galaxies: int) -> int:
        """The whole training in optimiser steps."""
        return max(1, round(self.length(galaxies)))

    def cooldown_start(self, length: float) -> float:
        """The step from which on early stopping is allowed: with wsd the beginning of its cool-down."""
        return (1 - self.cooldown) * length if self.schedule == "wsd" else 0

    def learning_rate_at(self, step: int, length: float) -> float:
        """The learning rate of a step of a training: a function of the share of its galaxies already seen.

        cosine: r (1 + cos(pi x)) / 2, with x from 0 at the end of the warm-up to 1 at that of the training;
        wsd: r (1 - sqrt(x)), with x from 0 to 1 in the cool-down (huggingface.co/papers/2405.18392, section 4).
        """
        # Batches, not shares, and rounded in the last digits only: two trainings of different length whose warm-ups see
        # equally many galaxies have equal learning rates, to the bit.
        warmup, cooldown = round(self.warmup * length, 6), self.cooldown_start(length)
        if step < warmup:
            return self.learning_rate * step / warmup
        if self.schedule == "cosine":
            share = min(1.0, (step - warmup) / (length - warmup))
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
        if self.schedule == "wsd" and step > cooldown:
            return self.learning_rate * (1 - math.sqrt(min(1.0, (step - cooldown) / (length - cooldown))))
        return self.learning_rate


def recipe_by_name(name: str) -> dict:
    """What is known of a recipe: `about`, `source`, `settings`, settings for some `backbones`, `not_known`, `differs`.

    Raises:
        BadInput: there is no such recipe.
    """
    names = sorted(path.stem for path in RECIPES.glob("*.json"))
    if name not in names:
        raise BadInput(f"--recipe {name}: there are {', '.join(names)}")
    return json.loads((RECIPES / f"{name}.json").read_text())


def with_recipe(settings: type[Recipe], arguments: list[str]) -> Recipe:
    """Defaults for the settings of a script: those of the recipe that its arguments name, where it says something else.

    Raises:
        BadInput: there is no such recipe.
    """
    parsed = dict(zip(arguments, [*arguments[1:], ""], strict=True))
    parsed |= dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    name = parsed.get("--recipe")
    backbone = parsed.get("--backbone", parsed.get("--start", "").split(".")[0])
    chosen = {}
    if name is not None:
        recipe = recipe_by_name(name)
        chosen = recipe["settings"] | recipe.get("backbones", {}).get(backbone, {}) | {"recipe": name}
    required = {
        field.name: tyro.MISSING
        for field in dataclasses.fields(settings)
        if field.default is field.default_factory is dataclasses.MISSING
    }
    return settings(**required | {name: tuple(v) if isinstance(v, list) else v for name, v in chosen.items()})
