"""What a training needs to go on: one file, whole or not at all, which any number of processes can read.

The weights and the optimiser's state stand under the names of the parameters and not sharded, so a run that began on eight
GPUs goes on on one. Only the first process reads and writes; the others are told.
"""

import shutil
from pathlib import Path

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

from hf_galaxy.errors import BadInput
from hf_galaxy.files import whole_file
from hf_galaxy.training.processes import on_main_process


def list_checkpoints(folder: Path, kept: bool = False) -> list[Path]:
    """The checkpoints in a folder, the oldest first; or those that are kept for runs that branch off."""
    return sorted(folder.glob(f"{'kept-' if kept else ''}checkpoint-*.pt"))


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written after."""
    return int(checkpoint.stem.rsplit("-", 1)[1])


def save(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, others: dict, accelerator: Accelerator,
    limit: int, keep: bool = False,
) -> None:  # fmt: skip
    """Write a checkpoint and remove all but the newest `limit`. Every process must call it.

    Args:
        others: what else to remember: `loop` and `scaler`, plain numbers for all processes, and weights.
        keep: under a second name too, which is not removed.

    Raises:
        BadInput: it cannot be written, such as on a full disk; the ones before are as they were.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    content = {
        "model": _contiguous(get_model_state_dict(model, options=options)),
        "optimizer": _contiguous(get_optimizer_state_dict(model, optimizer, options=options)),
        **others,
    }

    def write():
        path = folder / f"checkpoint-{step:09d}.pt"
        try:
            with whole_file(path) as partial:
                torch.save(content, partial)
                if keep and not (kept := path.with_name(f"kept-{path.name}")).exists():
                    with whole_file(kept) as copy:
                        shutil.copyfile(partial, copy)
            for old in list_checkpoints(folder)[:-limit]:
                old.unlink()
        except (OSError, RuntimeError) as error:  # torch's writer has RuntimeErrors of its own for a full disk
            raise BadInput(
                f"{path}: cannot be written ({' '.join(str(error).split())[:200]}); make room, and the same command goes "
                "on from the checkpoint before"
            ) from error

    on_main_process(accelerator, write)


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> dict | None:
    """Bring model and optimiser to where the newest checkpoint was written. Every process must call it.

    Returns:
        What else was remembered: its tensors in the first process only; None if there is no checkpoint.

    Raises:
        BadInput: it cannot be read, or is one of another model.
    """

    def read():
        for partial in folder.glob(".*checkpoint-*.partial"):  # of a process that was killed
            partial.unlink()
        if not (written := list_checkpoints(folder)):
            return {}
        try:
            return torch.load(written[-1], map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file makes the reader raise anything
            raise BadInput(
                f"{written[-1]}: cannot be read ({type(error).__name__}); remove it to go on from the one before"
            ) from error

    content = on_main_process(accelerator, read) or {}
    plain = [{name: content[name] for name in content.keys() & {"loop", "scaler"}}]
    if accelerator.num_processes > 1:
        broadcast_object_list(plain)
    if not plain[0]:
        return None
    options = _options(accelerator)
    set_model_state_dict(model, content.get("model", {}), options=options)
    set_optimizer_state_dict(model, optimizer, content.get("optimizer", {}), options=options)
    # Fused optimisers go through a parameter and its moments as they lie in memory, which must be in the same way.
    for parameter, moments in optimizer.state.items():
        for name, values in moments.items():
            if isinstance(values, torch.Tensor) and values.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=values.dtype).copy_(values)
    return plain[0] | {name: value for name, value in content.items() if name not in ("model", "optimizer")}


def load_weights(model: nn.Module, weights: dict, accelerator: Accelerator) -> None:
    """Give the model these weights of the first process. Every process must call it."""
    weights = _contiguous(weights) if accelerator.is_main_process else {}
    set_model_state_dict(model, weights, options=_options(accelerator))


def discard(folder: Path) -> None:
    """Remove the checkpoints of a finished run, but for those that are kept for others."""
    for checkpoint in list_checkpoints(folder):
        checkpoint.unlink(missing_ok=True)


def _contiguous(content):
    # A tensor with its channels last would be broadcast as it lies in memory, into one that lies otherwise.
    return tree_map_only(torch.Tensor, torch.Tensor.contiguous, content)


def _options(accelerator):
    return StateDictOptions(full_state_dict=True, broadcast_from_rank0=accelerator.num_processes > 1)
