"""The one training loop, and the one evaluation loop. They know processes, precision and resuming, and nothing of votes:
a model is called with a batch and answers with `loss`.
"""

import contextlib
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from safetensors.torch import load_file, save_file
from torch import nn

from hf_galaxy.errors import BadInput
from hf_galaxy.progress import progress

BEST = "best.safetensors"
STEPS_PER_LOG = 10

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained. Where nothing else is said, the values are the defaults of Zoobot 2's training from scratch."""

    epochs: float = 20
    """Passes over the training galaxies; the learning rate reaches 0 at the end of the last."""
    batch_size: int = 128
    """Galaxies per optimiser step, over all processes and accumulation steps."""
    accumulate: int = 1
    """Micro-batches per step, for a batch that does not fit into memory at once."""
    learning_rate: float = 1e-3
    """Of AdamW, at its highest."""
    weight_decay: float = 0.01
    """Of weight matrices and filters; biases and norms have none."""
    warmup: float = 0.05
    """Share of the training in which the learning rate rises linearly from 0; a cosine to 0 follows (our choice)."""
    clip_norm: float = 0.3
    """Largest norm of the gradient; longer ones are shortened to it."""
    patience: int = 8
    """Epochs without a better validation loss after which training stops."""
    seed: int = 42
    """Of initialisation, order of galaxies, views and dropout."""

    def check(self) -> None:
        """Refuse what no training can be made of.

        Raises:
            BadInput: names the setting.
        """
        for name in ("epochs", "batch_size", "accumulate", "learning_rate", "clip_norm", "patience"):
            if getattr(self, name) <= 0:
                raise BadInput(f"--{name.replace('_', '-')} {getattr(self, name)}: must be more than 0")
        if self.weight_decay < 0:
            raise BadInput(f"--weight-decay {self.weight_decay}: must not be negative")
        if not 0 <= self.warmup < 1:
            raise BadInput(f"--warmup {self.warmup}: is a share of the training, in [0, 1)")


def start_accelerator(precision: Literal["no", "bf16", "fp16"] | None, cpu: bool = False) -> Accelerator:
    """The processes that `accelerate launch` started, as one; with the precision it was given, if None is asked for.

    Raises:
        BadInput: several processes were started but each would train alone.
    """
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu)
    expected = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != expected:
        raise BadInput(
            f"{expected} processes were started but {accelerator.num_processes} work together; without a GPU, "
            "add --cpu, and launch with `ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N`"
        )
    if accelerator.device.type == "cpu":
        # `accelerate launch` allows a process one thread on a CPU, whatever the machine has.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if os.environ.get("OMP_NUM_THREADS", "1") == "1":
            torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    logging.getLogger("accelerate.checkpointing").setLevel(logging.WARNING)
    return accelerator


def learning_rate_at(progress: float, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to 0. `progress` is the share of the training's galaxies already seen, in [0, 1]."""
    if progress < recipe.warmup:
        return recipe.learning_rate * progress / recipe.warmup
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Every trainable parameter once: matrices and filters with weight decay; biases, norms and other vectors without."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


class _State:
    """What a checkpoint remembers besides weights and optimiser."""

    def __init__(self):
        self.step, self.best, self.stale, self.seconds = 0, math.inf, 0, 0.0
        self.losses: list[list[float]] = []  # [galaxies seen, mean training loss since the entry before]
        self.history: list[dict] = []  # one entry an epoch

    def state_dict(self):
        return vars(self).copy()

    def load_state_dict(self, state):
        vars(self).update(state)


def fit(
    model: nn.Module,
    recipe: Recipe,
    galaxies: int,
    batches: Callable[[range], Iterator[Batch]],
    to_inputs: Callable[[Batch], Batch],
    validate: Callable[[], float],
    accelerator: Accelerator,
    folder: Path,
) -> dict:
    """Train `model` in place; it ends with the weights that did best on validation.

    Killed and called again with the same arguments, it goes on from the last epoch's checkpoint in `folder`.

    Args:
        galaxies: in the training split.
        batches: given the steps to go, this process's micro-batches, `recipe.accumulate` for each step.
        to_inputs: a batch on the device -> the keyword arguments of the model.
        validate: gives the model's loss on the validation split, the same number in every process.
        folder: for checkpoint and best weights, removed by `discard_checkpoints`.

    Returns:
        `history`, one entry an epoch; `losses`, [galaxies seen, mean training loss] every few steps; `best_epoch`;
        `seconds` in this loop, interruptions left out.

    Raises:
        FloatingPointError: the loss is not finite; names the step. What is on disk is older and finite.
    """
    steps_per_epoch = galaxies / recipe.batch_size
    steps = max(1, round(recipe.epochs * steps_per_epoch))
    # After the steps that come nearest to whole epochs, and at the end.
    ends = (max(1, round(epoch * steps_per_epoch)) for epoch in range(1, math.ceil(recipe.epochs)))
    epoch_ends = {end for end in ends if end < steps} | {steps}
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe.weight_decay), lr=0.0)
    model, optimizer = accelerator.prepare(model, optimizer)
    state = _State()
    accelerator.register_for_checkpointing(state)
    if checkpoints := _checkpoints(folder):
        accelerator.load_state(checkpoints[-1])
        accelerator.print(f"going on at step {state.step} of {steps}")

    bar = progress(
        total=steps * recipe.batch_size, initial=state.step * recipe.batch_size, unit=" galaxies", unit_scale=True,
        desc="training", disable=not accelerator.is_main_process,
    )  # fmt: skip
    pending: list[torch.Tensor] = []  # losses still on the device: reading one each step would wait for it
    epoch_start, epoch_first_step, epoch_losses = time.perf_counter(), state.step, []
    coming = batches(range(state.step, steps))
    for step in range(state.step, steps):
        if state.stale >= recipe.patience:
            break
        rate = learning_rate_at(step / steps, recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Dropout draws from here, so that a resumed run draws what an uninterrupted one would have.
        torch.manual_seed(hash((recipe.seed, step, accelerator.process_index)))
        model.train()
        step_loss = 0.0
        for part in range(recipe.accumulate):
            inputs = to_inputs(_to_device(next(coming), accelerator.device))
            with _sync_if(part == recipe.accumulate - 1, accelerator, model):
                loss = model(**inputs).loss / recipe.accumulate
                accelerator.backward(loss)
            step_loss += loss.detach()
        accelerator.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        pending.append(step_loss)
        bar.update(recipe.batch_size)

        done = step + 1
        if done % STEPS_PER_LOG == 0 or done in epoch_ends:
            losses = accelerator.reduce(torch.stack(pending), "mean").tolist()
            for offset, value in enumerate(losses, done - len(losses)):
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the training loss is {value} at step {offset} (learning rate {rate:.2g}); "
                        "a lower --learning-rate or full precision may help"
                    )
            epoch_losses += losses
            state.losses.append([done * recipe.batch_size, sum(losses) / len(losses)])
            pending.clear()
            bar.set_postfix(loss=f"{state.losses[-1][1]:.4g}", refresh=False)

        if done in epoch_ends:
            seconds = time.perf_counter() - epoch_start
            _share_buffers(model, accelerator)
            validation_loss = validate()
            if not math.isfinite(validation_loss):
                raise FloatingPointError(f"the validation loss is {validation_loss} after step {step}")
            state.history.append(
                {
                    "galaxies": done * recipe.batch_size,
                    "training_loss": sum(epoch_losses) / len(epoch_losses),
                    "validation_loss": validation_loss,
                    "galaxies_per_second": (done - epoch_first_step) * recipe.batch_size / seconds,
                }
            )
            if accelerator.is_main_process:
                bar.write(
                    f"epoch {len(state.history)}: training loss {state.history[-1]['training_loss']:.4f}, "
                    f"validation loss {validation_loss:.4f}"
                )
            state.stale = 0 if validation_loss < state.best else state.stale + 1
            if validation_loss < state.best:
                state.best = validation_loss
                _save_best(model, accelerator, folder)
            state.step = done
            state.seconds += time.perf_counter() - epoch_start
            _save_checkpoint(accelerator, folder, done)
            epoch_start, epoch_first_step, epoch_losses = time.perf_counter(), done, []
    bar.close()
    accelerator.unwrap_model(model).load_state_dict(load_file(folder / BEST))
    best = min(range(len(state.history)), key=lambda i: state.history[i]["validation_loss"])
    return {
        "history": state.history, "losses": state.losses, "best_epoch": best + 1, "seconds": state.seconds
    }  # fmt: skip


def evaluate(
    model: nn.Module, batches: Iterable[Batch], to_inputs: Callable[[Batch], Batch], metrics, accelerator: Accelerator
):
    """Run the model over this process's batches and add up `metrics` over all processes.

    Args:
        metrics: `update(inputs, outputs)` takes a batch; `a + b` joins two.

    Returns:
        The metrics of all galaxies, the same in every process.
    """
    model = accelerator.unwrap_model(model)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), accelerator.autocast():
        for batch in batches:
            inputs = to_inputs(_to_device(batch, accelerator.device))
            metrics.update(inputs, model(**inputs))
    model.train(was_training)
    first, *others = gather_object([metrics.cpu()])
    return sum(others, start=first)


def discard_checkpoints(folder: Path) -> None:
    """Remove what `fit` kept for going on, once the run is finished and saved."""
    for checkpoint in _checkpoints(folder):
        shutil.rmtree(checkpoint)
    (folder / BEST).unlink(missing_ok=True)


def _checkpoints(folder):
    return sorted(folder.glob("checkpoint-*"))


def _to_device(batch, device):
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def _sync_if(last, accelerator, model):
    return contextlib.nullcontext() if last else accelerator.no_sync(model)


def _share_buffers(model, accelerator):
    # Each process has seen other galaxies, so its batch norms have other running statistics; those of the first are saved.
    if accelerator.num_processes > 1:
        broadcast(list(accelerator.unwrap_model(model).buffers()))


def _save_best(model, accelerator, folder):
    if accelerator.is_main_process:
        partial = folder / f".{BEST}.partial"
        save_file({k: v.contiguous() for k, v in accelerator.unwrap_model(model).state_dict().items()}, partial)
        os.replace(partial, folder / BEST)
    accelerator.wait_for_everyone()


def _save_checkpoint(accelerator, folder, step):
    # Written aside and renamed when whole; the older ones go only after that.
    partial, older = folder / ".checkpoint.partial", _checkpoints(folder)
    accelerator.save_state(partial)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        os.replace(partial, folder / f"checkpoint-{step:09d}")
        for checkpoint in older:
            shutil.rmtree(checkpoint)
    accelerator.wait_for_everyone()
