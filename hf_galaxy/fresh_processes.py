"""Processes that inherit no threads, locks or devices from the one that starts them."""

import multiprocessing
import sys
import threading
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext
from types import ModuleType
from typing import Any


class _ForkServerProcess(ForkServerProcess):
    """A process that does not run the script of its parent again: one that imports a dataset may be any script of a user."""

    @staticmethod
    def _Popen(process: Any) -> Any:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return ForkServerProcess._Popen(process)  # type: ignore[attr-defined]
        finally:
            sys.modules["__main__"] = script


class _ForkServerContext(ForkServerContext):
    Process = _ForkServerProcess


def fresh_context(*modules: str) -> ForkServerContext | SpawnContext:
    """What starts such processes.

    On Linux they are forks of a server that has imported these modules and done nothing else, so that some seconds of imports are
    spent once and not in each of them. Elsewhere each is an interpreter of its own, which runs the script of this one again up to
    `if __name__ == "__main__"`: libraries of macOS do not survive a fork.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = _ForkServerContext()
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
