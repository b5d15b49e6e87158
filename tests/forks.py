"""Processes forked from a server that has imported everything once: each costs a fork, not the start of an interpreter."""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import torch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.preloaded"])
multiprocessing.forkserver._forkserver.set_forkserver_preload = lambda modules: None  # the library's are among them
ROOT = Path(__file__).parent.parent
TIMEOUT = 300  # seconds


@contextlib.contextmanager
def fork_server(environment: Mapping[str, str]) -> Iterator[multiprocessing.forkserver.ForkServer]:
    """A server for `run_forked` with what libraries read from the environment when they are imported, such as HF_ENDPOINT."""
    server = multiprocessing.forkserver.ForkServer()
    server.set_forkserver_preload(["hf_galaxy.training.run"])
    with mock.patch.dict(os.environ, environment, clear=True):
        server.ensure_running()
    try:
        yield server
    finally:
        server._stop()


def run_forked(
    path: str | Path,
    *arguments: object,
    environment: Mapping[str, str] = os.environ,
    processes: int = 1,
    server: multiprocessing.forkserver.ForkServer | None = None,
) -> subprocess.CompletedProcess:
    """Run a Python file to its end in forks of a server, in the root of the project; returns it with its output.

    Args:
        processes: what a launcher would tell them is in their environment; the exit status is that of the first that failed.
        server: of `fork_server`; by default one of this process.
    """
    arguments = list(map(str, arguments))
    with tempfile.TemporaryDirectory(prefix="script-") as output:
        out, err = Path(output, "stdout"), Path(output, "stderr")
        started = [
            SERVER.Process(target=run_file, args=({**environment, **own}, out, err, str(path), arguments))
            for own in environments_of(processes)
        ]
        connect = (server or multiprocessing.forkserver._forkserver).connect_to_new_process
        with mock.patch.object(multiprocessing.forkserver, "connect_to_new_process", connect):
            for process in started:
                process.start()
        try:
            for process in started:
                process.join(TIMEOUT)
        finally:
            for process in started:
                process.kill()
                process.join()
        status = next((process.exitcode for process in started if process.exitcode), 0)
        return subprocess.CompletedProcess([path, *arguments], status, out.read_text(), err.read_text())


def environments_of(processes: int) -> list[dict[str, str]]:
    """For each process of a job what a launcher would tell it; nothing if it is the only one."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    job = {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    job |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    return [job | dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)) for rank in range(processes)]


def enter(environment: Mapping[str, str], stdout: str | Path, stderr: str | Path) -> None:
    """Make a fork of the server resemble a process that was started for itself, its output appended to files."""
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, stdout), (2, stderr)):
        with open(path, "a") as file:
            os.dup2(file.fileno(), number)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0)))
    multiprocessing.set_start_method(None, force=True)  # loaders start workers in the platform's own way
    # What it starts afresh comes from the same server: one of its own would import everything again.
    multiprocessing.forkserver._forkserver.ensure_running = lambda: None


def run_file(
    environment: Mapping[str, str], stdout: str | Path, stderr: str | Path, path: str, arguments: Sequence[str]
) -> None:
    """What a fork runs: a Python file as a program, in the root of the project."""
    enter(environment, stdout, stderr)
    os.chdir(ROOT)
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")
