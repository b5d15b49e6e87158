"""The state of the process around a call: a notebook goes on as if nothing had been trained in it, and its user sees what happens."""

import logging
import os
import random
import re
import sys
import threading
import typing
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from hf_galaxy.errors import BadInput, Interrupted
from hf_galaxy.training.processes import free_memory
from hf_galaxy.training.waiting import stop_watching

# What Accelerate and we set for a run, and other parts of a program may read.
VARIABLES = ("CUBLAS_WORKSPACE_CONFIG",)
PREFIX = "ACCELERATE_"
ONE_AT_A_TIME = threading.RLock()  # threads share what is kept here
OPTION = re.compile(r"`[^`]*`|(?<![\w-])--([a-z][a-z-]*[a-z])\b")  # what is in backticks is to be typed
NAMES = {"dataset": "data", "run": "model", "push": "repo"}  # those that calls have for fields of commands


@contextmanager
def own_process_state(command: type) -> Iterator[None]:
    """Within the block a run has a process as a command has it; afterwards all is as before. Calls of other threads wait.

    Kept are: threads of torch and how they wait, its precision and determinism; random numbers of torch, numpy and Python; warning filters; the state of
    Accelerate, which else allows one precision per process; and the log, which an interactive session sees (`shown_log`). Messages of
    errors have the names that options have in Python.

    Args:
        command: the dataclass of the command that the call stands for.
    """
    with ExitStack() as stack:
        stack.enter_context(ONE_AT_A_TIME)
        stack.enter_context(python_names(command))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(_random_numbers())
        stack.enter_context(_torch_settings())
        stack.enter_context(_environment())
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:  # the processes of a launcher stay connected
            stack.enter_context(_accelerate_state())
        stack.enter_context(shown_log())
        yield


@contextmanager
def python_names(command: type) -> Iterator[None]:
    """Messages name options of a command as its call has them: --learning-rate is learning_rate, and --no-exact exact=False.

    Whatever else has two dashes stays: options of other commands, and names that a user has given.
    """
    try:
        yield
    except (BadInput, FloatingPointError, Interrupted) as error:
        names = _names_of(command)
        error.args = (OPTION.sub(lambda found: names.get(found[1], found[0]), str(error)),)
        raise


def _names_of(command: type) -> dict[str, str]:
    """The names in Python of the options of a command, by their words without dashes."""
    names = {}
    for field, hint in typing.get_type_hints(command, include_extras=True).items():
        kind, *extras = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else [hint]
        python = NAMES.get(field, field)
        aliases = [alias for extra in extras for alias in getattr(extra, "aliases", None) or ()]
        renamed = [extra.name for extra in extras if getattr(extra, "name", None)]
        for word in (field.replace("_", "-"), *renamed, *(alias.removeprefix("--") for alias in aliases)):
            names[word] = python
        if kind is bool:
            names[f"no-{field.replace('_', '-')}"] = f"{python}=False"
    return names


@contextmanager
def shown_log() -> Iterator[None]:
    """In an interactive session, a terminal or a notebook, show what hf_galaxy logs from INFO on; else leave the log as it is."""
    log = logging.getLogger("hf_galaxy")
    if not hasattr(sys, "ps1") or log.isEnabledFor(logging.INFO):  # its user has set up the log
        yield
        return
    level, propagate, handler = log.level, log.propagate, logging.StreamHandler(sys.stdout)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


@contextmanager
def _random_numbers() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def _torch_settings() -> Iterator[None]:
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fill, efficient = (
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cuda.mem_efficient_sdp_enabled(),
    )
    cudnn = torch.backends.cudnn
    tf32, benchmark = cudnn.allow_tf32, cudnn.benchmark
    try:
        yield
    finally:
        stop_watching()
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.backends.cuda.enable_mem_efficient_sdp(efficient)
        cudnn.allow_tf32, cudnn.benchmark = tf32, benchmark
        free_memory()


@contextmanager
def _environment() -> Iterator[None]:
    def ours() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name in VARIABLES or name.startswith(PREFIX)}

    before = ours()
    try:
        yield
    finally:
        for name in ours().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _accelerate_state() -> Iterator[None]:
    shared = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    before = [dict(state) for state in shared]
    for state in shared:
        state.clear()
    try:
        yield
    finally:
        for state, content in zip(shared, before, strict=True):
            state.clear()
            state.update(content)
