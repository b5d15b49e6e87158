"""The recipe of a training: optimizer, schedule and length; and published recipes by name."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from hf_galaxy.errors import BadInput

MOST = 1_000_000  # epochs, validations, and galaxies in a batch: more is a slip, and would fill the memory with plans for it
RECIPES = Path(__file__).parent / "recipes"
Ranges = Sequence[tuple[Sequence[str], Callable[[float], bool], str]]
# Settings, the condition that the value of each must meet, and the message if it does not.
RANGES: Ranges = (
    (
        ("epochs", "batch_size", "learning_rate", "clip_norm", "validate_every", "patience"),
        lambda value: value > 0,
        "must be more than 0",
    ),
    (("weight_decay", "ema_galaxies"), lambda value: value >= 0, "must not be negative"),
    (("max_doublings",), lambda value: 1 <= value <= 20, "is a number of doublings, from 1 to 20"),
    (("seed",), lambda value: 0 <= value < 2**32, "is a whole number from 0 to 4,294,967,295"),
    (("epochs", "batch_size"), lambda value: value <= MOST, f"is more than {MOST:,}"),
    (("layer_decay",), lambda value: 0 < value <= 1, "is a factor, in (0, 1]"),
    (("warmup",), lambda value: 0 <= value < 1, "is a share of the training, in [0, 1)"),
)


def check_ranges(settings: object, ranges: Ranges) -> None:
    """Refuse settings that are not in their range; None is not checked.

    Raises:
        BadInput: names the first one.
    """
    for names, allowed, message in ranges:
        for name in names:
            value = getattr(settings, name)
            if value is not None and not allowed(value):
                raise BadInput(f"--{name.replace('_', '-')} {value}: {message}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained.

    Optimiser, learning rate, weight decay, clipping, patience and seed are the defaults of Zoobot 2's training from scratch; the
    number of epochs and the schedule are our choice.
    """

    recipe: str | None = None
    """Take defaults from a published recipe: zoobot2, gz_evo or gz_evo_finetune. Each is a file in hf_galaxy/training/recipes/, with its source."""
    epochs: float = 20
    """Number of passes over the training set; may be a fraction."""
    until_converged: bool = False
    """Train for --epochs, then twice as long, four times and so on, until twice as long brings less than 0.5 % of the validation loss (for votes: of what is above the loss of an oracle that knows the true fractions). Needs --schedule wsd: only the cool-down is trained for each length. The weights are those that validated best."""
    max_doublings: int = 6
    """With --until-converged: doublings of --epochs after which training stops although it has not converged."""
    batch_size: int = 128
    """Galaxies per optimizer step, over all processes and accumulated micro-batches."""
    optimizer: str = "adamw"
    """Name of the optimizer: adamw, or another one of timm, such as muon, lion or nadamw."""
    learning_rate: float = 1e-3
    """Peak learning rate, after the warm-up."""
    weight_decay: float = 0.01
    """Weight decay of weight matrices and convolution filters; biases, normalization layers and position embeddings have none."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay: the learning rate of a layer is this factor times that of the next layer; the head has the full one."""
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """Learning rate schedule after the warm-up: cosine decay to 0; wsd (warm-up, stable, decay: constant, then to 0 in the cool-down); or constant."""
    warmup: float = 0.05
    """Fraction of the training in which the learning rate rises linearly from 0."""
    cooldown: float = 0.2
    """Fraction of the training, at its end, in which the learning rate of the schedule wsd decays to 0."""
    clip_norm: float = 0.3
    """Maximum norm of the gradient (gradient clipping)."""
    ema_galaxies: float = 0
    """Validate and save an exponential moving average (EMA) of the weights, over about this number of training images; 0: no average."""
    validate_every: float = 1
    """Number of epochs between validations; may be a fraction."""
    patience: int = 8
    """Early stopping: number of validations without a lower loss after which training stops (with the schedule wsd only during the cool-down)."""
    seed: int = 42
    """Random seed for initialization, subset, order of galaxies, augmentation and dropout."""

    def check(self) -> None:
        """Refuse settings that cannot be trained with.

        Raises:
            BadInput: names the setting.
        """
        check_ranges(self, RANGES)
        if self.epochs / self.validate_every > MOST:
            raise BadInput(
                f"--validate-every {self.validate_every}: gives more than {MOST:,} validations; give a larger number of epochs"
            )
        if 0 < self.ema_galaxies < self.batch_size:
            raise BadInput(f"--ema-galaxies {self.ema_galaxies}: must be at least --batch-size {self.batch_size}")
        if self.schedule == "wsd" and not 0 < self.cooldown <= 1 - self.warmup:
            raise BadInput(f"--cooldown {self.cooldown}: is the last part of the training, in (0, 1 - warm-up]")
        if self.until_converged and self.schedule != "wsd":
            raise BadInput(
                f"--until-converged: needs --schedule wsd, with which a longer training goes on from a shorter one; not {self.schedule}"
            )

    def length(self, galaxies: int) -> float:
        """Length of the training in batches, for this number of training galaxies; not rounded."""
        return self.epochs * galaxies / self.batch_size

    def steps(self, galaxies: int) -> int:
        """Length of the training in optimizer steps."""
        return max(1, round(self.length(galaxies)))

    def cooldown_start(self, length: float) -> float:
        """The first step at which early stopping is allowed: with wsd that of the cool-down."""
        return (1 - self.cooldown) * length if self.schedule == "wsd" else 0

    def learning_rate_at(self, step: int, length: float) -> float:
        """The learning rate of a step of a training: a function of the fraction of its images that were seen before.

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
    """The contents of a recipe: `about`, `source`, `settings`, settings for some `backbones`, `not_known`, `differs`.

    Raises:
        BadInput: there is no such recipe.
    """
    names = sorted(path.stem for path in RECIPES.glob("*.json"))
    if name not in names:
        raise BadInput(f"--recipe {name}: there are {', '.join(names)}")
    return json.loads((RECIPES / f"{name}.json").read_text(encoding="utf-8"))


def with_recipe(settings: type[Recipe], arguments: list[str]) -> Recipe:
    """Default settings of a command: those of the recipe that its arguments name, for the settings that the recipe has.

    Raises:
        BadInput: there is no such recipe.
    """
    parsed = dict(zip(arguments, [*arguments, ""][1:], strict=True))
    parsed |= dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    name = parsed.get("--recipe")
    model = parsed.get("--model", "")  # the backbone of pretrain, the start of finetune
    backbone = parsed.get("--backbone", parsed.get("--start", model).split(".")[0])
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
