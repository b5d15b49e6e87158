"""What long work says: a line once, and a progress bar, every second in a terminal, all the time in a notebook, a line every half minute in a log file."""

import importlib
import importlib.util
import logging
import os
import sys
from functools import cache
from typing import Any

from tqdm import tqdm


def progress(*args: Any, **options: Any) -> tqdm:
    """A bar of tqdm with the same arguments; TQDM_DISABLE=1 hides it."""
    kind: Any = tqdm
    # tqdm reads the variable when it is imported, and `disable=False` takes precedence over it.
    if os.environ.get("TQDM_DISABLE", "0") not in ("", "0"):
        options["disable"] = True
    interval = 1.0 if sys.stderr.isatty() else 30.0
    if "ipykernel" in sys.modules:  # whose stderr is no terminal
        interval = 0.5
        if importlib.util.find_spec("ipywidgets"):  # else tqdm warns, and draws the bar as text
            kind = importlib.import_module("tqdm.auto").tqdm
    return kind(*args, **{"mininterval": interval, "smoothing": 0.05} | options)


@cache
def log_once(logger: logging.Logger, line: str) -> None:
    """Log a line once in a process, which may come to it several times, as when it opens a dataset again."""
    logger.info("%s", line)
