"""Where the training loop is, in plain numbers."""

import math
import time

from hf_galaxy.training.recipe import Recipe

# In the history of a run, but for the part before it branched off from another.
TIMES = ("galaxies_per_second", "validation_seconds")


def best_of(history: list[dict]) -> dict:
    """The entry with the lowest validation loss."""
    return min(history, key=lambda entry: entry["validation_loss"])


class State:
    """Where the loop is, in plain numbers: what a checkpoint holds of it besides weights."""

    def __init__(self) -> None:
        self.step, self.best, self.stale = 0, math.inf, 0
        self.seconds = self.training_seconds = 0.0  # in the loop; in steps since the last validation
        self.round_losses: list[float] = []  # of each step since the last validation
        self.untimed = 0  # of these steps, those of the run that this one has branched off from
        self.losses: list[list[float]] = []  # [galaxies seen, mean training loss since the entry before]
        self.history: list[dict] = []  # one entry for each validation
        self.lengths: list[dict] = []  # that are trained already, as `length_of`
        self.trained = 0  # steps, of all lengths
        self.start_loss = (
            math.inf
        )  # on the validation split, before the first step of a training that ends when it has converged

    def start_clock(self) -> None:
        """Begin the first lap."""
        self.clock = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the lap before."""
        before, self.clock = self.clock, time.perf_counter()
        self.seconds += self.clock - before
        return self.clock - before

    def add_losses(self, losses: list[float], seen: int) -> None:
        """Add the training losses of the last steps, up to this number of galaxies."""
        self.round_losses += losses
        self.losses.append([seen, sum(losses) / len(losses)])

    def end_round(self, validation_loss: float, recipe: Recipe, length: float) -> bool:
        """Add a validation to the history; True if it is the best one so far."""
        galaxies = (len(self.round_losses) - self.untimed) * recipe.batch_size
        self.history.append(
            {
                "galaxies": self.step * recipe.batch_size,
                "training_loss": sum(self.round_losses) / len(self.round_losses),
                "validation_loss": validation_loss,
                "galaxies_per_second": galaxies / self.training_seconds,
                "validation_seconds": self.lap(),
            }
        )
        self.round_losses, self.untimed, self.training_seconds = [], 0, 0.0
        if better := validation_loss < self.best:
            self.best = validation_loss
        self.stale = 0 if better or self.step <= recipe.cooldown_start(length) else self.stale + 1
        return better

    def is_best_of_all(self) -> bool:
        """Whether the best validation of this length is better than those of the lengths before."""
        return self.best < min((best_of(each["history"])["validation_loss"] for each in self.lengths), default=math.inf)

    def length_of(self, recipe: Recipe, shared: int) -> dict:
        """The present length, for `lengths`: its best validation and the way to it.

        Only validations of its own cool-down count. A better one before belongs to the next length as well, which would seem to bring nothing.

        Args:
            shared: steps before the cool-down.
        """
        best = best_of([entry for entry in self.history if entry["galaxies"] > shared * recipe.batch_size])
        figures = {name: best[name] for name in ("galaxies", "training_loss", "validation_loss")}
        return {"epochs": recipe.epochs, **figures, "history": self.history, "losses": self.losses}

    def go_on_from(self, kept: dict, lengths: list[dict]) -> None:
        """Become the state that was kept before a length cooled down.

        Args:
            lengths: all that are trained, with this one.
        """
        vars(self).update(kept | {"seconds": self.seconds, "trained": self.trained, "lengths": lengths})

    def to_dict(self, times: bool = True) -> dict:
        """For a checkpoint.

        Args:
            times: False: without the times that it took, which are different each time.
        """
        state = {name: value for name, value in vars(self).items() if name != "clock"}
        if times:
            return state
        history = [{name: value for name, value in entry.items() if name not in TIMES} for entry in self.history]
        return state | {"history": history, "untimed": len(self.round_losses), "seconds": 0.0, "training_seconds": 0.0}
