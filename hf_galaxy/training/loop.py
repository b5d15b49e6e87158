"""The one training loop. It handles processes, precision and resuming; targets are none of its business: a model is called with a
batch and returns `loss`.
"""

import contextlib
import logging
import math
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast
from timm.utils import ModelEmaV3
from torch import nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from hf_galaxy.errors import BadInput, Interrupted
from hf_galaxy.progress import progress
from hf_galaxy.training import checkpoints
from hf_galaxy.training.checkpoint_files import list_checkpoints
from hf_galaxy.training.lengths import Lengths
from hf_galaxy.training.loop_state import State, best_of
from hf_galaxy.training.recipe import Recipe

Batch = dict[str, torch.Tensor]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpointing:
    """Where checkpoints are written and how often: after each validation and on SIGTERM always.

    Attributes:
        folder: `checkpoints.discard` removes them from there.
        minutes: the longest time between two checkpoints.
        keep: the number of checkpoints that are kept, the newest.
    """

    folder: Path
    minutes: float = 10
    keep: int = 2


class TrainingData(Protocol):
    """What a `Trainer` trains and validates on."""

    @property
    def accumulate(self) -> int:
        """Micro-batches per optimiser step."""

    def batches(self, steps: range) -> Iterator[Batch]:
        """The micro-batches of this process, `accumulate` for each step."""

    def to_inputs(self, batch: Batch) -> Batch:
        """The keyword arguments of the model, from a batch on the device."""

    def validate(self, model: nn.Module) -> float:
        """The model's loss on the validation split, the same number in every process."""


class Flags(NamedTuple):
    """Requests of any process, known to all."""

    stop: bool
    save: bool


class Trainer:
    """Trains a model in place; it ends with the weights that validated best.

    Interrupted and run again with the same arguments, it resumes from the newest checkpoint and ends with the same weights, to the
    bit if the number of processes and micro-batches is the same.

    Args:
        optimizer: "lr_scale" of each of its groups is multiplied with the learning rate.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        lengths: Lengths,
        data: TrainingData,
        accelerator: Accelerator,
        checkpointing: Checkpointing,
    ) -> None:
        if accelerator.distributed_type != DistributedType.FSDP:  # which takes only contiguous parameters
            model.to(memory_format=torch.channels_last)  # in which convolutions are faster
        self.lengths, self.data = lengths, data
        self.recipe, self.schedule = lengths.recipe, lengths.schedule_of(0)
        self.accelerator, self.checkpointing = accelerator, checkpointing
        self.average = _average_of(model, self.recipe, accelerator.device)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.state = State()
        self.best_weights: dict[str, torch.Tensor] = {}  # in the first process only
        self.pending: list[torch.Tensor] = []  # losses still on the device: reading one each step would wait for it
        self.saved_at = 0.0  # seconds in this loop at the last checkpoint

    def run(self) -> dict:
        """Train from the newest checkpoint, or from the beginning, to the end.

        Returns:
            `history`, one entry for each validation; `losses`, [galaxies seen, mean training loss] every few steps; `best_epoch`, the
            passes over the galaxies up to the best validation; `seconds` in this loop, without interruptions and without the steps of a run
            that it has branched off from; of several lengths also `Lengths.in_record`, history and losses are then those of the length whose weights are kept.

        Raises:
            FloatingPointError: the loss or its gradient is not finite; names the step. Checkpoints are older, and finite.
            Interrupted: on SIGTERM, within ten steps, after a checkpoint.
            BadInput: a checkpoint cannot be written or read.
        """
        self._resume()
        if self.recipe.until_converged and not self.state.step:
            self.state.start_loss = self.data.validate(self.model)
        with _sigterm_event() as sigterm:
            while True:
                stop = self._train_length(sigterm)
                doublings = len(self.state.lengths)
                shared = self.lengths.branch_step(doublings) if self.recipe.until_converged else 0
                tried = [*self.state.lengths, self.state.length_of(self.recipe, shared)]
                if self.recipe.until_converged:
                    logger.info("%s", self.lengths.in_words(tried, self.state.start_loss))
                if self.lengths.ends_after(tried, self.state.start_loss):
                    return self._finish(tried)
                if stop:
                    raise Interrupted("stopped between two lengths; the same command resumes from there")
                self._go_on(tried)

    def _train_length(self, sigterm: threading.Event) -> bool:
        """Train to the end of the present length, or until it is stopped early; whether SIGTERM came with its last steps."""
        state, schedule, stop = self.state, self.schedule, False
        batches = self.data.batches(range(state.step, schedule.steps))
        with self._progress_bar() as bar, warnings.catch_warnings():
            # It costs a copy of each depthwise filter's gradient, which is nothing beside the gain of channels last.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            while state.step < schedule.steps and state.stale < self.recipe.patience:
                norm = self._optimizer_step(batches)
                bar.update(self.recipe.batch_size)
                if not schedule.pauses_after(state.step):
                    continue
                flags = self._exchange(norm, sigterm.is_set())
                stop = flags.stop
                bar.set_postfix(loss=f"{state.losses[-1][1]:.4g}", refresh=False)
                if state.step in schedule.validate_after:
                    self._validate()
                if flags.stop or flags.save or schedule.saves_after(state.step):
                    self._save()
                if flags.stop and state.step < schedule.steps:
                    raise Interrupted(
                        f"stopped after step {state.step} of {schedule.steps}; the same command resumes from there"
                    )
        return stop

    def _resume(self) -> None:
        """Bring everything to where the newest checkpoint was written, if there is one; start the clock."""
        if (loaded := self._load()) is not None:
            vars(self.state).update(loaded["loop"])
            self.best_weights = loaded.get("best_weights", {})
            self._choose_length()
            logger.info("resuming at step %d of %d", self.state.step, self.schedule.steps)
        self.saved_at = self.state.seconds
        self.state.start_clock()

    def _load(self, kept_at: int | None = None) -> dict | None:
        """Load the newest checkpoint, or the one that was kept at a step, into everything but the state of the loop."""
        accelerator, folder = self.accelerator, self.checkpointing.folder
        loaded = checkpoints.load(folder, self.model, self.optimizer.optimizer, accelerator, kept_at)
        if loaded is not None:
            if self.average is not None:
                checkpoints.load_weights(self.average.module, loaded.get("average", {}), accelerator)
            if accelerator.scaler is not None:
                accelerator.scaler.load_state_dict(loaded["scaler"])
        return loaded

    def _choose_length(self) -> None:
        doublings = len(self.state.lengths)
        self.recipe, self.schedule = self.lengths.recipe_of(doublings), self.lengths.schedule_of(doublings)

    def _go_on(self, tried: list[dict]) -> None:
        """Return to where the present length began to cool down, and make the next length of it.

        A kill at any moment leaves a newest checkpoint that leads here again: that of the end of the present length, or the new one.
        """
        step = self.lengths.branch_step(len(self.state.lengths))
        loaded = self._load(kept_at=step)
        assert loaded is not None, "each length keeps a checkpoint before it cools down"
        self.state.go_on_from(loaded["loop"], tried)
        self._choose_length()
        folder = self.checkpointing.folder
        self._save(keep=len(list_checkpoints(folder)) + 1)
        checkpoints.remove_after(folder, step, self.accelerator)

    def _optimizer_step(self, batches: Iterator[Batch]) -> torch.Tensor:
        """One step of the optimiser, on `accumulate` micro-batches; returns the norm of its gradient."""
        state, accelerator = self.state, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(state.step) * group["lr_scale"]
        # Dropout draws from here, so that a resumed run draws what an uninterrupted one would have.
        torch.manual_seed(_seed_of(self.recipe.seed, state.step, accelerator.process_index))
        self.model.train()
        step_loss, parts = torch.zeros(()), self.data.accumulate
        for part in range(parts):
            inputs = self.data.to_inputs(to_device(next(batches), accelerator.device))
            with _sync_if(part == parts - 1, accelerator, self.model), _batch_norms_in_words():
                with accelerator.autocast():  # which Accelerate does for DDP, but not for FSDP
                    loss = self.model(**inputs).loss / parts
                accelerator.backward(loss)
            step_loss = step_loss + loss.detach()
        norm = accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(accelerator.unwrap_model(self.model), state.step)
        self.pending.append(step_loss)
        state.step += 1
        state.trained += 1
        return norm

    def _exchange(self, norm: torch.Tensor, stop: bool) -> Flags:
        """Read the losses since the last time and what any process requests, in one message to all; check and log the losses."""
        state, accelerator = self.state, self.accelerator
        state.training_seconds += state.lap()
        save = state.seconds - self.saved_at >= 60 * self.checkpointing.minutes
        flags = torch.tensor([stop, save], dtype=torch.float32)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        own = torch.cat([torch.stack([*self.pending, norm]), flags.to(accelerator.device)])
        *losses, norm, stop, save = accelerator.reduce(own, "mean").tolist()
        self.pending.clear()
        self._check_finite(losses, norm)
        seen = state.step * self.recipe.batch_size
        state.add_losses(losses, seen)
        rate = self._learning_rate(state.step - 1)
        accelerator.log({"training loss": state.losses[-1][1], "learning rate": rate}, step=seen)
        return Flags(bool(stop), bool(save))

    def _check_finite(self, losses: list[float], norm: float) -> None:
        step = self.state.step
        numbers = [("training loss", loss, number) for number, loss in enumerate(losses, step - len(losses))]
        if self.accelerator.scaler is None:  # which skips a step with such a gradient
            numbers.append(("gradient's norm", norm, step - 1))
        for name, value, number in numbers:
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the {name} is {value} at step {number} (learning rate {self._learning_rate(step - 1):.2g}); "
                    "a lower --learning-rate or full precision may help"
                )

    def _validate(self) -> None:
        """Measure the model, or its moving average, on the validation split; remember the weights if they are the best."""
        state, accelerator = self.state, self.accelerator
        model = self.model if self.average is None else self.average.module
        _share_buffers(self.model, accelerator)
        if self.average is not None:
            _share_buffers(self.average.module, accelerator)
        loss = self.data.validate(model)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the validation loss is {loss} after step {state.step - 1}")
        if state.end_round(loss, self.recipe, self.schedule.length) and state.is_best_of_all():
            weights = accelerator.get_state_dict(model)
            if accelerator.is_main_process:
                self.best_weights = {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}
        seen = state.step * self.recipe.batch_size
        accelerator.log({"validation loss": loss}, step=seen)
        with tqdm.external_write_mode(file=sys.stderr):
            logger.info(
                "epoch %.3g: training loss %.4f, validation loss %.4f",
                seen / self.schedule.galaxies, state.history[-1]["training_loss"], loss,
            )  # fmt: skip

    def _save(self, keep: int | None = None) -> None:
        """Write a checkpoint.

        Args:
            keep: the number of checkpoints that are kept, if it is another one than that of the run.
        """
        others = {"loop": self.state.to_dict(), "best_weights": self.best_weights}
        if self.average is not None:
            others["average"] = self.average.module.state_dict()
        if self.accelerator.scaler is not None:
            others["scaler"] = self.accelerator.scaler.state_dict()
        step, to = self.state.step, self.checkpointing
        kept = {"loop": self.state.to_dict(times=False)} if step in self.schedule.keep_after else None
        checkpoints.save(
            to.folder, step, self.model, self.optimizer.optimizer, others, self.accelerator, keep or to.keep, kept
        )
        self.state.lap()
        self.saved_at = self.state.seconds

    def _finish(self, tried: list[dict]) -> dict:
        checkpoints.load_weights(self.model, self.best_weights, self.accelerator)
        if self.recipe.until_converged:
            checkpoints.remove_after(self.checkpointing.folder, self.state.step, self.accelerator)
        best = min(tried, key=lambda length: best_of(length["history"])["validation_loss"])
        best_epoch = round(best_of(best["history"])["galaxies"] / self.schedule.galaxies, 2)
        early = self.state.step < self.schedule.steps
        stopped = f"stopped early, after {self.state.stale} validations without a lower loss; " if early else ""
        logger.info("%sthe weights are those of epoch %g, with the lowest validation loss", stopped, best_epoch)
        return {
            "history": best["history"],
            "losses": best["losses"],
            "best_epoch": best_epoch,
            "seconds": self.state.seconds,
            **self.lengths.in_record(tried, self.state.start_loss, self.state.trained),
        }

    def _learning_rate(self, step: int) -> float:
        return self.recipe.learning_rate_at(step, self.schedule.length)

    def _progress_bar(self) -> tqdm:
        size = self.recipe.batch_size
        return progress(
            total=self.schedule.steps * size, initial=self.state.step * size, unit=" galaxies", unit_scale=True,
            desc="training", disable=not self.accelerator.is_main_process,
        )  # fmt: skip


def _average_of(model: nn.Module, recipe: Recipe, device: torch.device) -> ModelEmaV3 | None:
    """The moving average of the weights, before Accelerate wraps the model, or a copy would call the original's forward."""
    if not recipe.ema_galaxies:
        return None
    decay = 1 - recipe.batch_size / recipe.ema_galaxies
    return ModelEmaV3(model.to(device), decay=decay, use_warmup=True)


@contextlib.contextmanager
def _sigterm_event() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, as Slurm and other schedulers send it before they kill."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def _seed_of(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def _sync_if(last: bool, accelerator: Accelerator, model: nn.Module) -> AbstractContextManager[None]:
    return contextlib.nullcontext() if last else accelerator.no_sync(model)


@contextlib.contextmanager
def _batch_norms_in_words() -> Iterator[None]:
    """Refuse a batch that has one value in each channel, of which batch norms cannot take a variance."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise BadInput(
            "the batch norms of the backbone need more than one value for each channel: use a larger --batch-size (with "
            "--device-batch of at least 2), or a larger --image-size"
        ) from error


def _share_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    # Each process has seen other galaxies, so its batch norms have other running statistics; those of the first are saved.
    if accelerator.num_processes > 1:
        broadcast(list(accelerator.unwrap_model(model).buffers()))
