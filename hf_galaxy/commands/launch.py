"""Start a command in several processes, or on GPUs, by `accelerate launch` with a configuration for this machine.

    hf-galaxy launch finetune --start runs/survey --dataset data/rings --label ring --out runs/rings
    hf-galaxy launch --num-processes 2 pretrain --dataset data/ceers --backbone convnext_atto --out runs/ceers
    hf-galaxy launch --config-file nodes2 --machine-rank 0 --main-process-ip HOST pretrain ...

Without --config-file it takes that of `accelerate config`, if there is one; else one process for each GPU, or one on a machine without.
The same run: `accelerate launch -m hf_galaxy.commands.finetune ...`.
"""

import difflib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hf_galaxy.command_line import Command
from hf_galaxy.errors import BadInput

LAUNCHED = ("pretrain", "finetune", "evaluate", "predict", "embed", "familiarity")
CONFIGURATIONS = Path(__file__).parents[1] / "training/launch"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Start a command (pretrain, finetune, evaluate, predict, embed, familiarity), which follows with its own options, by accelerate launch."""

    config_file: str | None = None
    """Configuration of the launcher: cpu2, gpu1, gpu8, fsdp2 or nodes2, which come with the package, or a file of `accelerate config`."""
    num_processes: int | None = None
    """Number of processes, on all machines together; by default one for each GPU, and 1 without GPUs."""
    machine_rank: int | None = None
    """With several machines: the number of this one, from 0."""
    main_process_ip: str | None = None
    """With several machines: the address of the first one."""
    main_process_port: int | None = None
    """The port that processes meet at."""


def main(settings: Launch, rest: list[str]) -> None:
    """Start it, in this process; it ends with the exit status of the launcher."""
    if not rest:
        raise BadInput(f"name the command to start: {', '.join(LAUNCHED)}")
    if rest[0] not in LAUNCHED:
        near = difflib.get_close_matches(rest[0], LAUNCHED, 1)
        meant = f"did you mean {near[0]}?" if near else "it is one of"
        raise BadInput(f"{rest[0]}: no command that is launched; {meant} ({', '.join(LAUNCHED)})")
    import torch
    from accelerate.commands import launch
    from accelerate.commands.config.config_args import load_config_from_file
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    path, given = configuration(settings), asdict(settings)
    given["config_file"] = path
    if path == CONFIGURATIONS / "gpu8.yaml" and settings.num_processes is None:
        given["num_processes"] = torch.cuda.device_count()
        if not given["num_processes"]:
            raise BadInput("--config-file gpu8: this machine has no GPU")
    if path is not None and load_config_from_file(str(path)).use_cpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"  # Accelerate itself tells this to a single process only
    options = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    sys.argv = ["accelerate launch", *options, "-m", f"hf_galaxy.commands.{rest[0]}", *rest[1:]]
    try:
        launch.main()
    except subprocess.CalledProcessError as error:  # whose reason the command itself has said
        sys.exit(error.returncode)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        sys.exit(first.exitcode if first.exitcode > 0 else 1)


def configuration(settings: Launch) -> Path | None:
    """The file of the launcher's configuration; None for that of `accelerate config`.

    Raises:
        BadInput: there is no such file, or not this number of processes.
    """
    names = sorted(path.stem for path in CONFIGURATIONS.glob("*.yaml"))
    if settings.config_file in names:
        return CONFIGURATIONS / f"{settings.config_file}.yaml"
    if settings.config_file is not None:
        if not (path := Path(settings.config_file)).is_file():
            raise BadInput(f"--config-file {path}: there is no such file; those of the package are {', '.join(names)}")
        return path
    import torch
    from accelerate.commands.config.config_args import default_config_file

    gpus, processes = torch.cuda.device_count(), settings.num_processes
    if processes is not None and processes < 1:
        raise BadInput(f"--num-processes {processes}: must be at least 1")
    if processes is None and Path(default_config_file).is_file():
        return None
    processes = processes or max(1, gpus)
    if gpus and processes > gpus:
        raise BadInput(
            f"--num-processes {processes}: this machine has {gpus} GPUs; name a configuration with --config-file"
        )
    if gpus:
        return CONFIGURATIONS / ("gpu1.yaml" if processes == 1 else "gpu8.yaml")
    return CONFIGURATIONS / ("cpu1.yaml" if processes == 1 else "cpu2.yaml")


def command_name(words: Sequence[str]) -> int:
    """The place of the command to start, the first word that is neither an option of the launcher nor its value."""
    place = 0
    while place < len(words) and words[place].startswith("-"):
        if words[place] in ("-h", "--help"):
            return len(words)
        place += 1 if "=" in words[place] else 2
    return min(place, len(words))


command = Command(Launch, main, rest_at=command_name)

if __name__ == "__main__":
    command()
