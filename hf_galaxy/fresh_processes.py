"""Processes that inherit no threads, locks or devices from the one that starts them."""

import multiprocessing
import sys
import threading
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, SpawnContext


def fresh_context(*modules: str) -> ForkServerContext | SpawnContext:
    """What starts such processes.

    On Linux they are forks of a server that has imported these modules and done nothing else, so that some seconds of imports are
    spent once and not in each of them. Elsewhere each is an interpreter of its own: libraries of macOS do not survive a fork.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


def end_with_parent(end: Callable[[], None]) -> None:
    """Call `end`, in a thread of this process, once the process that started it has ended, whatever ended that."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        end()

    threading.Thread(target=wait, daemon=True).start()
