"""The one training loop, and the one evaluation loop. They know processes, precision and resuming, and nothing of votes:
a model is called with a batch and answers with `loss`.
"""

import contextlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast, gather_object
from timm.utils import ModelEmaV3
from torch import nn
from torch.distributed.tensor import DTensor

from hf_galaxy.errors import Interrupted
from hf_galaxy.progress import progress
from hf_galaxy.training import checkpoints
from hf_galaxy.training.recipe import Recipe

STEPS_PER_LOG = 10

Batch = dict[str, torch.Tensor]


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    galaxies: int,
    accumulate: int,
    batches: Callable[[range], Iterator[Batch]],
    to_inputs: Callable[[Batch], Batch],
    validate: Callable[[nn.Module], float],
    accelerator: Accelerator,
    folder: Path,
    checkpoint_minutes: float = 10,
    keep_checkpoints: int = 2,
    keep_at: tuple[float, ...] = (),
) -> dict:
    """Train `model` in place; it ends with the weights that did best on validation.

    Killed and called again with the same arguments, it goes on from the last checkpoint in `folder` and ends with the
    same weights, to the bit if the number of processes and micro-batches is the same.

    Args:
        optimizer: its groups say by `lr_scale` how they share in the learning rate.
        galaxies: that make up an epoch.
        accumulate: micro-batches a step.
        batches: given the steps to go, this process's micro-batches, `accumulate` of them for each step.
        to_inputs: a batch on the device -> the keyword arguments of the model.
        validate: a model -> its loss on the validation split, the same number in every process.
        folder: for checkpoints, removed by `checkpoints.discard`.
        checkpoint_minutes: at least so often; after each validation always, and on SIGTERM.
        keep_checkpoints: of which the newest so many are kept.
        keep_at: and those after so many epochs, under names of their own, for runs that branch off there.

    Returns:
        `history`, one entry a validation; `losses`, [galaxies seen, mean training loss] every few steps; `best_epoch`, the
        passes over the galaxies up to the best validation; `seconds` in this loop, interruptions left out.

    Raises:
        FloatingPointError: the loss or its gradient is not finite; names the step. What is on disk is older, and finite.
        Interrupted: on SIGTERM, within ten steps, after a checkpoint.
        BadInput: a checkpoint cannot be written or read.
    """
    steps_per_epoch = galaxies / recipe.batch_size
    length, steps = recipe.length(galaxies), recipe.steps(galaxies)
    # After the steps that come nearest to them, and at the end.
    rounds = range(1, math.ceil(recipe.epochs / recipe.validate_every))
    ends = (max(1, round(n * recipe.validate_every * steps_per_epoch)) for n in rounds)
    validated_steps = {end for end in ends if end < steps} | {steps}
    kept_steps = {max(1, round(epochs * steps_per_epoch)) for epochs in keep_at}
    saved_steps = validated_steps | kept_steps
    if accelerator.distributed_type != DistributedType.FSDP:  # which takes only contiguous parameters
        model.to(memory_format=torch.channels_last)  # in which convolutions are faster
    average = _average_of(model, recipe, accelerator.device)
    model, optimizer = accelerator.prepare(model, optimizer)
    state, best_weights = _State(), {}
    if (remembered := checkpoints.load(folder, model, optimizer.optimizer, accelerator)) is not None:
        vars(state).update(remembered["loop"])
        best_weights = remembered.get("best_weights", {})  # in the first process
        if average is not None:
            checkpoints.load_weights(average.module, remembered.get("average", {}), accelerator)
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(remembered["scaler"])
        accelerator.print(f"going on at step {state.step} of {steps}")
    saved = state.seconds
    state.start_clock()

    bar = progress(
        total=steps * recipe.batch_size, initial=state.step * recipe.batch_size, unit=" galaxies", unit_scale=True,
        desc="training", disable=not accelerator.is_main_process,
    )  # fmt: skip
    pending: list[torch.Tensor] = []  # losses still on the device: reading one each step would wait for it
    coming = batches(range(state.step, steps))
    with _told_to_stop() as stop, bar, warnings.catch_warnings():
        # It costs a copy of each depthwise filter's gradient, which is nothing beside the gain of channels last.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        while state.step < steps and state.stale < recipe.patience:
            rate = recipe.learning_rate_at(state.step, length)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            # Dropout draws from here, so that a resumed run draws what an uninterrupted one would have.
            torch.manual_seed(_seed_of(recipe.seed, state.step, accelerator.process_index))
            model.train()
            step_loss = 0.0
            for part in range(accumulate):
                inputs = to_inputs(_to_device(next(coming), accelerator.device))
                with _sync_if(part == accumulate - 1, accelerator, model):
                    with accelerator.autocast():  # which Accelerate does for DDP, but not for FSDP
                        loss = model(**inputs).loss / accumulate
                    accelerator.backward(loss)
                step_loss += loss.detach()
            norm = accelerator.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            if average is not None:
                average.update(accelerator.unwrap_model(model), state.step)
            pending.append(step_loss)
            bar.update(recipe.batch_size)
            state.step += 1
            if state.step % STEPS_PER_LOG and state.step not in saved_steps:
                continue

            # 1. The losses since the last time, and what any process wants, in one message to all.
            state.training_seconds += state.lap()
            wishes = torch.tensor(
                [stop.is_set(), state.seconds - saved >= 60 * checkpoint_minutes], dtype=torch.float32
            )
            norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
            told = torch.cat([torch.stack([*pending, norm]), wishes.to(accelerator.device)])
            *losses, norm, stopping, saving = accelerator.reduce(told, "mean").tolist()
            numbers = [("training loss", loss, step) for step, loss in enumerate(losses, state.step - len(losses))]
            if accelerator.scaler is None:  # which leaves out a step with such a gradient
                numbers.append(("gradient's norm", norm, state.step - 1))
            for what, value, step in numbers:
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the {what} is {value} at step {step} (learning rate {rate:.2g}); "
                        "a lower --learning-rate or full precision may help"
                    )
            pending.clear()
            seen = state.step * recipe.batch_size
            state.add_losses(losses, seen)
            accelerator.log({"training loss": state.losses[-1][1], "learning rate": rate}, step=seen)
            bar.set_postfix(loss=f"{state.losses[-1][1]:.4g}", refresh=False)

            # 2. Validation: by default after each epoch.
            if state.step in validated_steps:
                judged = model if average is None else average.module
                _share_buffers(model, accelerator)
                if average is not None:
                    _share_buffers(average.module, accelerator)
                validation_loss = validate(judged)
                if not math.isfinite(validation_loss):
                    raise FloatingPointError(f"the validation loss is {validation_loss} after step {state.step - 1}")
                if state.end_round(validation_loss, recipe, length):
                    weights = accelerator.get_state_dict(judged)
                    if accelerator.is_main_process:
                        best_weights = {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}
                accelerator.log({"validation loss": validation_loss}, step=seen)
                if accelerator.is_main_process:
                    bar.write(
                        f"epoch {state.step / steps_per_epoch:.3g}: training loss {state.history[-1]['training_loss']:.4f}, "
                        f"validation loss {validation_loss:.4f}"
                    )

            # 3. Saving.
            if stopping or saving or state.step in saved_steps:
                others = {"loop": state.to_dict(), "best_weights": best_weights}
                if average is not None:
                    others["average"] = average.module.state_dict()
                if accelerator.scaler is not None:
                    others["scaler"] = accelerator.scaler.state_dict()
                kept = state.step in kept_steps
                checkpoints.save(
                    folder, state.step, model, optimizer.optimizer, others, accelerator, keep_checkpoints, kept
                )
                state.lap()
                saved = state.seconds
            if stopping and state.step < steps:
                raise Interrupted(f"stopped after step {state.step} of {steps}; the same command goes on from there")
    checkpoints.load_weights(model, best_weights, accelerator)
    best = min(range(len(state.history)), key=lambda i: state.history[i]["validation_loss"])
    return {
        "history": state.history,
        "losses": state.losses,
        "best_epoch": round(state.history[best]["galaxies"] / galaxies, 2),
        "seconds": state.seconds,
    }


class _State:
    """Where the loop is, in plain numbers."""

    def __init__(self):
        self.step, self.best, self.stale = 0, math.inf, 0
        self.seconds = self.training_seconds = 0.0  # in the loop; in steps since the last validation
        self.round_losses: list[float] = []  # of each step since the last validation
        self.losses: list[list[float]] = []  # [galaxies seen, mean training loss since the entry before]
        self.history: list[dict] = []  # one entry a validation

    def start_clock(self) -> None:
        self.clock = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the lap before."""
        before, self.clock = self.clock, time.perf_counter()
        self.seconds += self.clock - before
        return self.clock - before

    def add_losses(self, losses: list[float], seen: int) -> None:
        self.round_losses += losses
        self.losses.append([seen, sum(losses) / len(losses)])

    def end_round(self, validation_loss: float, recipe: Recipe, length: float) -> bool:
        """Note how it went; whether it is the best one so far."""
        galaxies = len(self.round_losses) * recipe.batch_size
        self.history.append(
            {
                "galaxies": self.step * recipe.batch_size,
                "training_loss": sum(self.round_losses) / len(self.round_losses),
                "validation_loss": validation_loss,
                "galaxies_per_second": galaxies / self.training_seconds,
                "validation_seconds": self.lap(),
            }
        )
        self.round_losses, self.training_seconds = [], 0.0
        if better := validation_loss < self.best:
            self.best = validation_loss
        self.stale = 0 if better or self.step <= recipe.cooldown_start(length) else self.stale + 1
        return better

    def to_dict(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "clock"}


def evaluate(
    model: nn.Module, batches: Iterable[Batch], to_inputs: Callable[[Batch], Batch], metrics, accelerator: Accelerator
):
    """Run the model over this process's batches and add up `metrics` over all processes.

    Args:
        metrics: `update(batch, outputs)` takes a batch; `a + b` joins two.

    Returns:
        The metrics of all galaxies, the same in every process.
    """
    model = accelerator.unwrap_model(model)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), accelerator.autocast():
        for batch in batches:
            batch = _to_device(batch, accelerator.device)
            metrics.update(batch, model(**to_inputs(batch)))
    model.train(was_training)
    first, *others = gather_object([metrics.cpu()])
    return sum(others, start=first)


def _average_of(model, recipe, device):
    """The moving average of the weights, before Accelerate wraps the model, or a copy would call the original's forward."""
    if not recipe.ema_galaxies:
        return None
    decay = 1 - recipe.batch_size / recipe.ema_galaxies
    return ModelEmaV3(model.to(device), decay=decay, use_warmup=True)


@contextlib.contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, as Slurm and other schedulers send it before they kill."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield told
        return
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


def _seed_of(*key):
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def _to_device(batch, device):
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def _sync_if(last, accelerator, model):
    return contextlib.nullcontext() if last else accelerator.no_sync(model)


def _share_buffers(model, accelerator):
    # Each process has seen other galaxies, so its batch norms have other running statistics; those of the first are saved.
    if accelerator.num_processes > 1:
        broadcast(list(accelerator.unwrap_model(model).buffers()))
