"""How torch's threads wait for one another on a CPU: in a loop while they have the cores for themselves, asleep while they share them.

After each small operation all threads wait for the last of them. With GNU's OpenMP library, which torch has on Linux, they look out for it in a
loop, for about 3 ms, before they sleep. Beside another program the last one often has no core at that moment, and what keeps it
from one may be the loops of the others: a small network becomes several times slower. Asleep they leave the cores to whoever computes, but each time that
they are woken costs some microseconds: a fifth of the speed of a small network that nothing disturbs. So they do the one or the other, by what
the system says about how long they have waited for cores. Results depend on the number of threads, but not on this: it is neither recorded nor
the same in each process of a job. `benchmarks/busy_machine.py` measures it.
"""

import ctypes
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hf_galaxy.cores import available_cores

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # by which a user chooses
SECONDS = 1.0  # between two looks
# Seconds for which all threads together waited for a core, per second: on two cores less than 0.11 alone, and from 0.67 on beside a busy loop.
SHARED, FREE = 0.4, 0.2
PATIENCE, MOST_PATIENCE = 3, 48  # looks at free cores before threads wait in a loop again
# Threads in an idle team: where more would be needed, the machine has many more cores than torch has threads.
MOST_IDLE = 32

logger = logging.getLogger(__name__)


class Decision:
    """Whether threads wait asleep, from one look to the next.

    The cores must be free for some looks before threads wait in loops again; for twice as many if they had to be stopped at once the time before.
    """

    def __init__(self) -> None:
        self.asleep = False
        self._patience = PATIENCE
        self._looks = math.inf  # since the change before
        self._free = 0  # looks at free cores, since the last at shared ones

    def update(self, waited: float) -> bool:
        """The decision after another look.

        Args:
            waited: seconds for which all threads together waited for a core, per second, since the look before.
        """
        self._looks += 1
        self._free = self._free + 1 if waited < FREE else 0
        if not self.asleep and waited > SHARED:
            at_once = self._looks <= self._patience
            self._patience = min(2 * self._patience, MOST_PATIENCE) if at_once else PATIENCE
            self.asleep, self._looks = True, 0
        elif self.asleep and self._free >= self._patience:
            self.asleep, self._looks = False, 0
        return self.asleep


class IdleTeam:
    """Threads of libgomp that do nothing. While there are more threads than cores, it lets all that wait sleep at once.

    Args:
        start: of `team_function`.
        size: number of threads.
    """

    def __init__(self, start: Callable[[int], None], size: int) -> None:
        self._ended, self._started = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(start, size), name="idle team", daemon=True)
        self._thread.start()
        self._started.wait()

    def _run(self, start: Callable[[int], None], size: int) -> None:
        start(size)  # its threads belong to this one, and end with it
        self._started.set()
        self._ended.wait()

    def end(self) -> None:
        """End them."""
        self._ended.set()
        self._thread.join()


class Watch:
    """A thread that looks how long all threads of this process wait for cores, and lets those of torch wait accordingly.

    Args:
        start: of `team_function`.
        size: of the idle team.
    """

    def __init__(self, start: Callable[[int], None], size: int) -> None:
        self._start, self._size = start, size
        self._decision, self._told = Decision(), False
        self._team: IdleTeam | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch of waiting threads", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still looks: not in a fork of its process."""
        return self._thread.is_alive()

    def _run(self) -> None:
        before, then = waited_for_cores(), time.monotonic()
        while not self._ended.wait(SECONDS):
            after, now = waited_for_cores(), time.monotonic()
            self.look(waiting_share(before, after, now - then))
            before, then = after, now
        self.let_sleep(False)

    def look(self, waited: float) -> None:
        """Let threads wait as `Decision.update` says."""
        asleep = self._decision.update(waited)
        if asleep and not self._told:
            self._told = True
            logger.info(
                "other programs compute on the same cores: torch's %d threads sleep while they wait for one another, which changes no result; if "
                "the machine stays busy, a small network is trained faster in one, with OMP_NUM_THREADS=1", torch.get_num_threads(),
            )  # fmt: skip
        self.let_sleep(asleep)

    def let_sleep(self, asleep: bool) -> None:
        """Whether threads that wait sleep at once."""
        if asleep and self._team is None:
            self._team = IdleTeam(self._start, self._size)
        elif not asleep and self._team is not None:
            self._team.end()
            self._team = None

    def end(self) -> None:
        """End it; threads wait in loops again."""
        self._ended.set()
        self._thread.join()


_watch: Watch | None = None  # of this process


def watch_waiting() -> Watch | None:
    """Let torch's threads wait as it suits the load of the machine, until `stop_watching`.

    Returns:
        What watches it. None if there is nothing to choose: torch has one thread, the user has chosen, or neither the system nor the
        OpenMP library is one that we know.
    """
    global _watch
    if _watch is not None and _watch.alive:
        return _watch
    threads, start = torch.get_num_threads(), team_function()
    size = len(available_cores()) - threads + 2
    chosen = any(variable in os.environ for variable in VARIABLES)
    if threads == 1 or chosen or start is None or size > MOST_IDLE or not waited_for_cores():
        return None
    _watch = Watch(start, max(2, size))
    return _watch


def stop_watching() -> None:
    """End what `watch_waiting` has begun, if it has."""
    global _watch
    if _watch is not None and _watch.alive:
        _watch.end()
    _watch = None


def waited_for_cores() -> dict[str, float]:
    """Seconds for which each thread of this process has waited for a core so far; empty if the system does not count them."""
    waited = {}
    for file in Path("/proc/self/task").glob("*/schedstat"):
        try:
            computed, delayed, *_ = map(int, file.read_bytes().split())
        except (OSError, ValueError):  # the thread has ended
            continue
        if computed:
            waited[file.parent.name] = delayed / 1e9
    return waited


def waiting_share(before: dict[str, float], after: dict[str, float], seconds: float) -> float:
    """Seconds for which all threads together waited for a core, per second, between two answers of `waited_for_cores`."""
    return sum(total - before.get(thread, 0.0) for thread, total in after.items()) / seconds


def team_function() -> Callable[[int], None] | None:
    """A function that starts as many threads of torch's libgomp, which do nothing; None if torch has another OpenMP library."""
    if sys.platform != "linux":
        return None
    try:
        # It is looked up among the libraries that this one was linked to: others of this process may have a libgomp of their own.
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libtorch_cpu.so"))
        parallel, nothing = library.GOMP_parallel, ctypes.CDLL(None).free  # which does nothing with NULL
    except (OSError, AttributeError):
        return None
    if hasattr(library, "kmp_set_blocktime"):  # LLVM's or Intel's, which has the functions of GNU's, too
        return None
    parallel.argtypes, parallel.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return lambda size: parallel(ctypes.cast(nothing, ctypes.c_void_p), None, size, 0)
