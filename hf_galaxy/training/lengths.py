"""The lengths that a training tries: one, or lengths that double until a longer one brings little more.

With the schedule wsd all lengths take the same steps up to the cool-down of the shortest. So each goes on from the checkpoint that the
one before has kept there, and at its end the weights are, to the bit, those of a training of that length alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hf_galaxy.errors import BadInput
from hf_galaxy.training.recipe import Recipe
from hf_galaxy.training.schedule import Schedule

PLATEAU = 3  # doublings without a gain, after which a training that is no better than at its start has converged, too
GAIN = 0.005  # share of the loss above the least that twice the length must bring, for four times to be tried


@dataclass(frozen=True)
class Lengths:
    """What a `loop.Trainer` trains: a recipe on a number of galaxies, and with `until_converged` twice as long, four times and so on.

    Attributes:
        recipe: of the shortest.
        galaxies: the training galaxies, one epoch.
        keep_at: epochs after which checkpoints are kept for runs that branch off.
        least: the validation loss of predictions that no training can improve, such as of an oracle that knows the true vote fractions.
    """

    recipe: Recipe
    galaxies: int
    keep_at: tuple[float, ...] = ()
    least: float = 0.0

    def check(self) -> None:
        """Refuse a first length without a step of its own: what twice the length brings would be no gain of training.

        Raises:
            BadInput: says how long it must be.
        """
        steps = self.schedule_of(0).steps
        own = self.branch_step(0) < steps < self.schedule_of(1).steps and self.branch_step(0) < self.branch_step(1)
        if self.recipe.until_converged and not own:
            raise BadInput(
                f"--epochs {self.recipe.epochs:g}: is {steps} step{'s' if steps > 1 else ''} of {self.recipe.batch_size} galaxies, of which none "
                "is left for the cool-down; --until-converged needs more --epochs to begin with, or a smaller --batch-size"
            )

    def recipe_of(self, doublings: int) -> Recipe:
        """The recipe of a longer training: it warms up on as many galaxies, and validates as many times."""
        times = 2**doublings
        return replace(
            self.recipe,
            epochs=self.recipe.epochs * times,
            warmup=self.recipe.warmup / times,
            validate_every=self.recipe.validate_every * times,
        )

    def schedule_of(self, doublings: int) -> Schedule:
        """Its schedule, which keeps a checkpoint for the next length."""
        recipe = self.recipe_of(doublings)
        schedule = Schedule.of(recipe, self.galaxies, self.keep_at)
        if not self.recipe.until_converged:
            return schedule
        return replace(schedule, keep_after=schedule.keep_after | {self.branch_step(doublings)})

    def branch_step(self, doublings: int) -> int:
        """The last step before the cool-down of a length, at which the next one goes on."""
        recipe = self.recipe_of(doublings)
        return max(1, math.floor(recipe.cooldown_start(recipe.length(self.galaxies))))

    def is_converged(self, tried: Sequence[Mapping[str, Any]], start: float = math.inf) -> bool:
        """Whether the last of these lengths brought less than `GAIN` of the loss above the least.

        Not while the training has hardly begun: on the plateau where it starts, twice the length often brings nothing. So there it takes `PLATEAU` doublings
        to say that no length brings anything, as with very few galaxies.

        Args:
            tried: each with its `validation_loss`, the lowest one in its own cool-down, from the shortest.
            start: the validation loss before the first step.
        """
        if len(tried) < 2:
            return False
        shorter, longer = (each["validation_loss"] for each in tried[-2:])
        begun = start - min(each["validation_loss"] for each in tried) >= GAIN * (start - self.least)
        return (begun or len(tried) > PLATEAU) and (
            shorter - longer < GAIN * (shorter - self.least) or shorter <= self.least
        )

    def ends_after(self, tried: Sequence[Mapping[str, Any]], start: float = math.inf) -> bool:
        """Whether no longer training is tried after these lengths; arguments as of `is_converged`."""
        return (
            len(tried) > self.recipe.max_doublings or not self.recipe.until_converged or self.is_converged(tried, start)
        )

    def in_record(self, tried: Sequence[Mapping[str, Any]], start: float, steps: int) -> dict[str, Any]:
        """What a run record holds of the rule, and of each length; nothing of a training of one length.

        Args:
            tried, start: as of `is_converged`.
            steps: of all lengths together, those that they share once.
        """
        if not self.recipe.until_converged:
            return {}
        lengths = [{name: value for name, value in each.items() if name not in ("history", "losses")} for each in tried]
        rule = {"gain": GAIN, "least": self.least, "start": start, "converged": self.is_converged(tried, start)}
        return {"convergence": rule | {"lengths": lengths, "pictures": steps * self.recipe.batch_size}}

    def in_words(self, tried: Sequence[Mapping[str, Any]], start: float) -> str:
        """What the last of these lengths brought, and what follows; arguments as of `is_converged`."""
        last = tried[-1]
        text = f"{last['epochs']:g} epochs: validation loss {last['validation_loss']:.4f}"
        if len(tried) > 1:
            gain = tried[-2]["validation_loss"] - last["validation_loss"]
            above = tried[-2]["validation_loss"] - self.least
            share = f"{100 * abs(gain) / above:.2g} % of what" if above > 0 else "a part of what"
            text += f", {'less' if gain >= 0 else 'more'} by {share} the shorter one left above {self.least:.4f}"
        if not self.ends_after(tried, start):
            return f"{text}; going on to {2 * last['epochs']:g}"
        if self.is_converged(tried, start):
            return f"{text}; converged"
        return (
            f"{text}; not converged, and no more doublings: a larger --max-doublings, from the beginning, may show more"
        )
