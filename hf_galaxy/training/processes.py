"""The processes of a run: how they start together, their tracker, and work that only the first of them does."""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    AutocastKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    broadcast_object_list,
)
from torch.distributed.fsdp import MixedPrecisionPolicy

from hf_galaxy.cores import available_cores
from hf_galaxy.errors import BadInput
from hf_galaxy.training.waiting import watch_waiting

LAUNCHER_VARIABLES = {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"}  # of accelerate and torchrun
T = TypeVar("T")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # in malloc.h
DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX = 128 * 1024, 65536  # of glibc


def start_accelerator(
    precision: Literal["no", "bf16", "fp16"] | None,
    cpu: bool = False,
    exact: bool = True,
    tracker: str | None = None,
    logs: Path | None = None,
) -> Accelerator:
    """The accelerator of the processes that `accelerate launch` started.

    Args:
        precision: None: that of the launcher's configuration.
        exact: use only algorithms that give the same result each time; else a GPU may use faster ones, and TF32 products.
        tracker: the name of one of Accelerate's, such as tensorboard or trackio.
        logs: folder for the files of the tracker, if it writes any (tensorboard).

    A launcher's configuration may also accumulate gradients and compile. Both are switched off, since `--device-batch` and `--compile`
    do them.

    Raises:
        BadInput: the environment names processes that no launcher started; several were started but each would train alone; they were started for DeepSpeed; or the tracker is
            not installed.
    """
    if tracker is not None and tracker not in available_trackers():
        raise BadInput(
            f"--tracker {tracker}: is not installed, or does not exist; available: {', '.join(available_trackers())}"
        )
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise BadInput("DeepSpeed is not supported; `hf-galaxy launch --config-file fsdp2` shards a model over GPUs")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and "LOCAL_RANK" not in os.environ:
        raise BadInput(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} is in the environment, but no launcher started this process, and it would wait for "
            "the others for ever; start them with `hf-galaxy launch`, accelerate launch or torchrun, or unset WORLD_SIZE"
        )
    # While the first process copies a large dataset, the others wait longer than the default timeout.
    timeout = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=cpu,
        log_with=tracker,
        project_dir=logs,
        kwargs_handlers=[timeout],
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_backend="no",
    )
    if accelerator.distributed_type == DistributedType.FSDP:
        # Else it would cast weights, batch norms and outputs to bf16. As with DDP we autocast, and the likelihood stays float32.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
    expected = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != expected:
        raise BadInput(
            f"{expected} processes were started but {accelerator.num_processes} work together; without a GPU, "
            "add --cpu, and launch with `hf-galaxy launch --num-processes 2`"
        )
    if accelerator.device.type == "cpu":
        keep_freed_memory()
        if "OMP_NUM_THREADS" not in os.environ or _launcher_set_threads():
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
            torch.set_num_threads(max(1, len(available_cores()) // processes))
        watch_waiting()
    elif exact:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA is deterministic only with it
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.backends.cuda.enable_mem_efficient_sdp(False)  # whose backward pass is not deterministic
        torch.backends.cudnn.allow_tf32 = False  # as matrix products are by default
    else:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return accelerator


def _launcher_set_threads() -> bool:
    """Whether OMP_NUM_THREADS is the default of a launcher, one thread on every machine, and not the user's choice.

    Both `accelerate launch` and torchrun leave a number that was set before them, so that 1 could be either; only the environment of
    the launcher itself shows which.
    """
    if os.environ["OMP_NUM_THREADS"] != "1" or not LAUNCHER_VARIABLES & os.environ.keys():
        return False
    try:
        launcher = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:  # not on Linux, or the launcher belongs to another user
        return True
    return not any(variable.startswith(b"OMP_NUM_THREADS=") for variable in launcher.split(b"\0"))


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free, for the next step, which needs as much again.

    Else glibc gives large pieces back to the system, and in every step each page of them is asked for and zeroed anew.
    """
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)


def free_memory() -> None:
    """Give freed memory back to the system again, as the C library does by default."""
    if mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX) and mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD):
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def mallopt(option: int, value: int) -> bool:
    """Set an option of the C library's allocator; False if it has no such option, as on macOS and Windows."""
    try:
        return bool(ctypes.CDLL(None).mallopt(option, value))
    except (AttributeError, OSError, TypeError):  # Windows has no library without a name: TypeError
        return False


@contextlib.contextmanager
def full_precision(accelerator: Accelerator) -> Iterator[None]:
    """Meanwhile `accelerator.autocast` changes nothing: a process has one accelerator, but not all that it computes is mixed."""
    before, accelerator.autocast_handler = accelerator.autocast_handler, AutocastKwargs(enabled=False)
    try:
        yield
    finally:
        accelerator.autocast_handler = before


def available_trackers() -> list[str]:
    """The names of Accelerate's trackers whose library is installed."""
    return sorted(str(tracker) for tracker in get_available_trackers())


def start_tracker(accelerator: Accelerator, tracker: str, run: Path, settings: dict) -> None:
    """Begin to follow a run: by trackio and wandb as a run of the project named like its parent folder, else under its name."""
    plain = {name: value for name, value in settings.items() if isinstance(value, int | float | str)}
    if tracker in ("trackio", "wandb"):
        accelerator.init_trackers(run.resolve().parent.name, plain, {tracker: {"name": run.name}})
    else:
        accelerator.init_trackers(run.name, plain)


def stop_tracker(accelerator: Accelerator) -> None:
    """Stop following a run: what is still to be written is, and the next run of this process has a tracker of its own."""
    while accelerator.trackers:
        accelerator.trackers.pop().finish()


def on_main_process(accelerator: Accelerator, work: Callable[..., T], *arguments: object) -> T | None:
    """What `work` returns in the first process, None in the others. Every process must call it.

    Raises:
        BadInput: in all of them, if the first raises it: else the others would wait for it for ever.
    """
    errors: list[BadInput | None] = [None]
    result = None
    if accelerator.is_main_process:
        try:
            result = work(*arguments)
        except BadInput as error:
            errors = [error]
    if accelerator.num_processes > 1:
        broadcast_object_list(errors)
    if errors[0] is not None:
        raise errors[0]
    return result
