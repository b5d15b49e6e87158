"""Training runs in processes of their own, from a server that has imported everything once: each costs a fork, not a start."""

import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.checkpoints import list_checkpoints

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["hf_galaxy.training.run"])


def _rank(environment, log, settings):
    os.environ.update(environment)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    multiprocessing.set_start_method(None, force=True)  # loaders start workers in the platform's own way
    if environment.get("ACCELERATE_USE_FSDP"):
        # On CPUs Accelerate takes DDP without a word, though FSDP2 itself works there: make it believe that these are GPUs.
        PartialState(cpu=True)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    from hf_galaxy.errors import BadInput
    from hf_galaxy.training.run import run_training
    from hf_galaxy.training.settings import Settings

    try:
        run_training(Settings(**settings))
    except BadInput as error:
        sys.exit(f"error: {error}")


def start(out, processes=1, environment=None, **settings):
    """The processes of a run, started."""
    environment = {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"} | (environment or {})
    if processes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            environment |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    started = []
    for rank in range(processes):
        of_rank = {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
        of_world = {name: str(processes) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
        own = environment | (of_rank | of_world if processes > 1 else {})
        options = dict(
            out=out, backbone="test_convnext", image_size=32, batch_size=16, min_votes=3, workers=1, cpu=True, epochs=4,
            checkpoint_minutes=0, precision="no",
        )  # fmt: skip
        started.append(SERVER.Process(target=_rank, args=(own, f"{out}.log", options | settings)))
        started[-1].start()
    return started


def wait_for_checkpoints(number, out, started):
    while len(list_checkpoints(out)) < number and all(process.is_alive() for process in started):
        time.sleep(0.005)


def finish(started, out):
    for process in started:
        process.join(300)
    assert [process.exitcode for process in started] == [0] * len(started), Path(f"{out}.log").read_text()


def run(out, **settings):
    """The record of a run that nobody disturbs."""
    finish(start(out, **settings), out)
    return RunRecord.load(out)


def assert_bit_equal(ours, theirs):
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert torch.equal(values, theirs[name]), name
