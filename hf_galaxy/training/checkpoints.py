"""Checkpoints: all that a training needs to resume, in one file, complete or absent, for any number of processes.

The weights and the optimiser's state are stored by parameter name and not sharded, so a run that started on eight GPUs resumes on
one. Only the first process reads and writes, and sends the others what they need.
"""

import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.utils._pytree import tree_map_only

from hf_galaxy.errors import BadInput, unwritable
from hf_galaxy.files import whole_file
from hf_galaxy.training.checkpoint_files import list_checkpoints, step_of
from hf_galaxy.training.processes import on_main_process


def save(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, others: dict, accelerator: Accelerator,
    limit: int, kept: dict | None = None,
) -> None:  # fmt: skip
    """Write a checkpoint and remove all but the newest `limit`. Every process must call it.

    Args:
        others: the rest of the checkpoint: `loop` and `scaler`, plain numbers for all processes, and weights.
        limit: number of checkpoints to keep.
        kept: what differs from `others` in a second copy that is not removed, for runs that branch off; None: no such copy. Equal
            content gives equal bytes.

    Raises:
        BadInput: it cannot be written, such as on a full disk; earlier checkpoints are unchanged.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    content = {
        "model": _contiguous(get_model_state_dict(model, options=options)),
        "optimizer": _contiguous(get_optimizer_state_dict(model, optimizer, options=options)),
        **others,
    }

    def write() -> None:
        path = folder / f"checkpoint-{step:09d}.pt"
        try:
            if kept is not None and not (copy := _kept(folder, step)).exists():
                _write(copy, content | kept)  # first: a run that resumes from the other does not come here again
            _write(path, content)
            for old in list_checkpoints(folder)[:-limit]:
                old.unlink()
        except (OSError, RuntimeError) as error:  # torch's writer has one of its own, after that of the system
            raise unwritable(path, error.__context__ if isinstance(error.__context__, OSError) else error) from error

    on_main_process(accelerator, write)


def load(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator, kept_at: int | None = None
) -> dict | None:  # fmt: skip
    """Load the newest checkpoint into model and optimiser. Every process must call it.

    Args:
        kept_at: the step of a kept checkpoint that is loaded instead.

    Returns:
        The rest of the checkpoint (`others` of `save`), its tensors in the first process only; None if there is no checkpoint.

    Raises:
        BadInput: it cannot be read, or belongs to another model.
    """

    def read() -> dict:
        for partial in folder.glob(".*checkpoint-*.partial"):  # of a process that was killed
            partial.unlink()
        existing = list_checkpoints(folder) if kept_at is None else [_kept(folder, kept_at)]
        if not existing:
            return {}
        try:
            with zipfile.ZipFile(existing[-1]) as archive:
                if damaged := archive.testzip():  # torch writes checksums, and does not look at them
                    raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
            return torch.load(existing[-1], map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file makes the reader raise anything
            what = "remove it to resume from the one before" if kept_at is None else "train again from the beginning"
            raise BadInput(f"{existing[-1]}: cannot be read ({type(error).__name__}); {what}") from error

    content = on_main_process(accelerator, read) or {}
    plain = [{name: content[name] for name in content.keys() & {"loop", "scaler"}}]
    if accelerator.num_processes > 1:
        broadcast_object_list(plain)
    if not plain[0]:
        return None
    options = _options(accelerator)
    set_model_state_dict(model, content.get("model", {}), options=options)
    set_optimizer_state_dict(model, optimizer, content.get("optimizer", {}), options=options)
    # Fused optimisers read a parameter and its moments in memory order, so both need the same layout.
    for parameter, moments in optimizer.state.items():
        for name, values in moments.items():
            if isinstance(values, torch.Tensor) and values.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=values.dtype).copy_(values)
    return plain[0] | {name: value for name, value in content.items() if name not in ("model", "optimizer")}


def _write(path: Path, content: dict) -> None:
    """Write a checkpoint whose bytes depend on the values in it only.

    Given a path, torch would write its name, a temporary one, into the file; and pickle writes a text again that is equal to an
    earlier one but not the same object, as those of a resumed run are.
    """
    with whole_file(path) as partial, open(partial, "wb") as file:
        torch.save(_plain(content), file)


def _plain(content: Any) -> Any:
    """The same content, in which no two containers and all equal texts are the same object."""
    if isinstance(content, dict):
        return {_plain(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(_plain, content))
    return sys.intern(content) if type(content) is str else content


def load_weights(model: nn.Module, weights: dict, accelerator: Accelerator) -> None:
    """Load the weights of the first process into the model in all processes. Every process must call it."""
    weights = _contiguous(weights) if accelerator.is_main_process else {}
    set_model_state_dict(model, weights, options=_options(accelerator))


def remove_after(folder: Path, step: int, accelerator: Accelerator) -> None:
    """Remove the checkpoints of later steps, the newest first, and those that are kept. Every process must call it."""

    def remove() -> None:
        for checkpoint in [*reversed(list_checkpoints(folder)), *list_checkpoints(folder, kept=True)]:
            if step_of(checkpoint) > step or checkpoint.name.startswith("kept-"):
                checkpoint.unlink()

    on_main_process(accelerator, remove)


def _kept(folder: Path, step: int) -> Path:
    return folder / f"kept-checkpoint-{step:09d}.pt"


def discard(folder: Path) -> None:
    """Remove the checkpoints of a finished run, except those for runs that branch off."""
    for checkpoint in list_checkpoints(folder):
        checkpoint.unlink(missing_ok=True)


def _contiguous(content: dict) -> dict:
    # A tensor with channels last would be broadcast in memory order, into one with another order.
    return tree_map_only(torch.Tensor, torch.Tensor.contiguous, content)


def _options(accelerator: Accelerator) -> StateDictOptions:
    return StateDictOptions(full_state_dict=True, broadcast_from_rank0=accelerator.num_processes > 1)
