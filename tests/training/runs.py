"""Training runs in processes of their own, from a server that has imported everything once: each costs a fork, not a start."""

import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.training.checkpoint_files import list_checkpoints
from tests.forks import SERVER, enter, environments_of


def _rank(environment, log, draws, settings):
    enter(environment, log, log)
    torch.set_num_threads(1)
    if environment.get("ACCELERATE_USE_FSDP"):
        # On CPUs Accelerate takes DDP without a word, though FSDP2 itself works there: make it believe that these are GPUs.
        PartialState(cpu=True)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    from hf_galaxy.command_line import show_log
    from hf_galaxy.errors import BadInput
    from hf_galaxy.training.run import run_training
    from hf_galaxy.training.settings import Settings

    show_log()
    try:
        with nullcontext() if draws else mock.patch("hf_galaxy.reports.run_figures.figures", return_value={}):
            run_training(Settings(**settings))
    except BadInput as error:
        sys.exit(f"error: {error}")


def start(out, processes=1, environment=None, draws=False, **settings):
    """The processes of a run, started.

    Args:
        draws: the figures of its card, which takes longer than the training.
    """
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"} | (environment or {})
    started = []
    for own in environments_of(processes):
        options = dict(
            out=out, backbone="test_convnext", image_size=32, batch_size=16, min_votes=3, workers=0, cpu=True, epochs=4,
            checkpoint_minutes=0, precision="no",
        )  # fmt: skip
        started.append(SERVER.Process(target=_rank, args=(environment | own, f"{out}.log", draws, options | settings)))
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
