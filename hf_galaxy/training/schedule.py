"""When a training ends, validates and writes checkpoints, in steps of the optimiser."""

import math
from dataclasses import dataclass

from hf_galaxy.training.recipe import Recipe

STEPS_PER_LOG = 10


@dataclass(frozen=True)
class Schedule:
    """How many optimiser steps a training takes, and after which of them it validates and keeps a checkpoint.

    Attributes:
        galaxies: the training galaxies, one epoch.
        steps: the last validation is after this one.
        length: the whole training in batches, not rounded.
        validate_after: steps; by default those nearest to the ends of epochs.
        keep_after: steps whose checkpoints are kept for runs that branch off.
    """

    galaxies: int
    steps: int
    length: float
    validate_after: frozenset[int]
    keep_after: frozenset[int]

    @classmethod
    def of(cls, recipe: Recipe, galaxies: int, keep_at: tuple[float, ...] = ()) -> "Schedule":
        """The schedule of a recipe on this number of galaxies.

        Args:
            keep_at: in epochs.
        """
        steps, steps_per_epoch = recipe.steps(galaxies), galaxies / recipe.batch_size
        validations = range(1, math.ceil(recipe.epochs / recipe.validate_every))
        nearest = (max(1, round(n * recipe.validate_every * steps_per_epoch)) for n in validations)
        return cls(
            galaxies=galaxies,
            steps=steps,
            length=recipe.length(galaxies),
            validate_after=frozenset(step for step in nearest if step < steps) | {steps},
            keep_after=frozenset(max(1, round(epochs * steps_per_epoch)) for epochs in keep_at),
        )

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is written after a step, however short the time since the one before."""
        return step in self.validate_after or step in self.keep_after

    def pauses_after(self, step: int) -> bool:
        """Whether the losses are read after a step, and all processes exchange what they need."""
        return step % STEPS_PER_LOG == 0 or self.saves_after(step)
