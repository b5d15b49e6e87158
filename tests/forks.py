"""Processes forked from a server that has imported everything once: each costs a fork, not the start of an interpreter."""

import atexit
import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import random
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import resource_tracker, spawn, util
from pathlib import Path
from unittest import mock

from filelock import FileLock

ROOT = Path(__file__).parent.parent
TIMEOUT = 300  # seconds
ALIVE = "alive"  # a pipe beside a server's socket, which it ends with: when no process has it open for writing any more

# What is made once for all processes of pytest-xdist, which inherit it: these servers, the mock survey, models for ONNX Runtime.
MADE_SHARED = "HF_GALAXY_TESTS" not in os.environ
if MADE_SHARED:
    os.environ["HF_GALAXY_TESTS"] = tempfile.mkdtemp(prefix="hf_galaxy-tests-")
    os.mkfifo(f"{os.environ['HF_GALAXY_TESTS']}/{ALIVE}")
SHARED = Path(os.environ["HF_GALAXY_TESTS"])
if MADE_SHARED:
    os.open(SHARED / ALIVE, os.O_RDWR)  # for as long as this process lives, which outlives those that it starts


class Server(multiprocessing.forkserver.ForkServer):
    """A server for `run_forked`, which the first process that needs it starts.

    Args:
        socket: the path where it listens.
        modules: that it imports.
        origin: the server that it is a fork of; by default it is an interpreter of its own.
        environment: while it imports; by default that of the process that starts it.
    """

    def __init__(
        self, socket: Path, modules: Sequence[str], origin: "Server | None" = None, environment: Mapping | None = None
    ) -> None:
        super().__init__()
        self.socket, self.modules, self.origin, self.environment = socket, list(modules), origin, environment

    def set_forkserver_preload(self, modules_names: list[str]) -> None:
        """Nothing: what the library asks for is among its modules."""

    def ensure_running(self) -> None:
        """Start it, if no process has."""
        with self._lock:
            resource_tracker.ensure_running()
            if self._forkserver_alive_fd is None:
                self._forkserver_alive_fd = os.open(self.socket.with_name(ALIVE), os.O_RDWR)
                self._forkserver_address = str(self.socket)
                with FileLock(f"{self.socket}.lock"):
                    if not self.socket.exists():
                        self._start()

    def _start(self) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.socket))
            listener.listen(64)
            if self.origin is None:
                code = f"from tests.forks import serve; serve({listener.fileno()}, {self.modules})"
                with contextlib.chdir(ROOT):
                    python = spawn.get_executable()
                    util.spawnv_passfds(python, [python, "-c", code], [listener.fileno()])
            else:
                environment = dict(os.environ if self.environment is None else self.environment)
                arguments = (listener, self.modules, str(self.socket.with_name(ALIVE)), environment)
                process = SERVER.Process(target=serve_forked, args=arguments)
                with forks_of(self.origin):
                    process.start()
                multiprocessing.process._children.discard(process)  # nobody waits for it

    def stop(self) -> None:
        """Let it end, if no other process uses it."""
        if self._forkserver_alive_fd is not None:
            os.close(self._forkserver_alive_fd)
            self._forkserver_alive_fd = None


def serve(listener: int, modules: Sequence[str], alive: str = f"{SHARED}/{ALIVE}") -> None:
    """What a server does: import modules, and then fork processes until no process has `alive` open."""
    multiprocessing.forkserver.main(listener, os.open(alive, os.O_RDONLY), modules)


def serve_forked(listener: socket.socket, modules: Sequence[str], alive: str, environment: Mapping[str, str]) -> None:
    """The same in a fork of another server."""
    os.environ.clear()
    os.environ.update(environment)
    os.close(multiprocessing.forkserver._forkserver._forkserver_alive_fd)  # by which it was known to be used
    serve(listener.detach(), modules, alive)


LIBRARIES = Server(SHARED / "libraries", ["tests.libraries"])
EVERYTHING = Server(
    SHARED / "everything", ["tests.preloaded"], LIBRARIES, os.environ | {"HF_HOME": str(SHARED / "home")}
)
SERVER = multiprocessing.get_context("forkserver")  # of which processes are forks, by default of `EVERYTHING`


def use_servers() -> None:
    """From now on this process, and what it forks, has one server, `EVERYTHING`."""
    for name in ("connect_to_new_process", "ensure_running", "set_forkserver_preload"):
        setattr(multiprocessing.forkserver, name, getattr(EVERYTHING, name))


def forks_of(server: Server) -> contextlib.AbstractContextManager:
    """Meanwhile processes of `SERVER` are forks of this one."""
    return mock.patch.object(multiprocessing.forkserver, "connect_to_new_process", server.connect_to_new_process)


@contextlib.contextmanager
def fork_server(environment: Mapping[str, str]) -> Iterator[Server]:
    """A server for `run_forked` with what libraries read from the environment when they are imported, such as HF_ENDPOINT."""
    folder = Path(tempfile.mkdtemp(prefix="server-"))
    os.mkfifo(folder / ALIVE)
    server = Server(folder / "own", ["hf_galaxy.training.run"], LIBRARIES, environment)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def run_forked(
    path: str | Path,
    *arguments: object,
    environment: Mapping[str, str] = os.environ,
    processes: int = 1,
    server: Server = EVERYTHING,
) -> subprocess.CompletedProcess:
    """Run a Python file to its end in forks of a server, in the root of the project; returns it with its output.

    Args:
        processes: what a launcher would tell them is in their environment; the exit status is that of the first that failed.
        server: that they are forks of.
    """
    return _run(run_file, str(path), arguments, environment, processes, server)


def run_code(code: str, *arguments: object, environment: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess:
    """The same for a program as of `python -c`, which finds nothing imported of Hugging Face and of ours."""
    return _run(execute, code, arguments, environment, 1, LIBRARIES)


def _run(
    target: Callable, program: str, arguments: Sequence[object], environment: Mapping[str, str], processes: int,
    server: Server,
) -> subprocess.CompletedProcess:  # fmt: skip
    arguments = list(map(str, arguments))
    with tempfile.TemporaryDirectory(prefix="script-") as output:
        out, err = Path(output, "stdout"), Path(output, "stderr")
        out.touch(), err.touch()
        started = [
            SERVER.Process(target=target, args=({**environment, **own}, out, err, program, arguments))
            for own in environments_of(processes)
        ]
        with forks_of(server):
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
        return subprocess.CompletedProcess([program, *arguments], status, out.read_text(), err.read_text())


def environments_of(processes: int) -> list[dict[str, str]]:
    """For each process of a job what a launcher would tell it; nothing if it is the only one."""
    if processes == 1:
        return [{}]
    job = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    job |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    return [job | dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)) for rank in range(processes)]


def free_port() -> int:
    """One that no other process is given meanwhile: it is below those that systems give."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("localhost", port))
            return port


def enter(environment: Mapping[str, str], stdout: str | Path, stderr: str | Path) -> None:
    """Make a fork of the server resemble a process that was started for itself, its output appended to files."""
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, stdout), (2, stderr)):
        with open(path, "a") as file:
            os.dup2(file.fileno(), number)
    import torch

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


def execute(
    environment: Mapping[str, str], stdout: str | Path, stderr: str | Path, code: str, arguments: Sequence[str]
) -> None:
    """What a fork runs: a program as of `python -c`, in the root of the project."""
    enter(environment, stdout, stderr)
    os.chdir(ROOT)
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["-c", *arguments]
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
