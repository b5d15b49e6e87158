"""How many inputs a test of this folder draws, and what an answer to one of them may be.

`make test` draws the same few each time; those of the mark `nightly` are many, and others each night.
"""

import dataclasses
import functools
import resource
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.configuration import set_hypothesis_home_dir

from hf_galaxy.errors import BadInput
from tests.forks import SHARED

set_hypothesis_home_dir(SHARED / "hypothesis")  # not in the tree
# Other processes run beside the tests, so no clock on the wall decides.
ALWAYS = dict(database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.register_profile("test", max_examples=200, derandomize=True, **ALWAYS)
settings.register_profile("nightly", max_examples=10_000, print_blob=True, **ALWAYS)
SECONDS = 5  # of the processor that an input may take; more is called a hang
PROFILES = ["test", pytest.param("nightly", marks=pytest.mark.nightly)]


def own_folder():
    """A folder for the files of a module: what hypothesis draws for has no fixtures."""
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=SHARED))


def fuzz(*strategies, share=1.0, **named):
    """As hypothesis' `given`, once in `make test` and once with many more inputs in the nightly tests; further arguments are fixtures of pytest.

    Args:
        share: of the usual number of inputs, for a test of which each takes long.
    """

    def decorate(test):
        @functools.wraps(test)
        def timed(*arguments, **options):
            start = time.process_time()
            test(*arguments, **options)
            assert time.process_time() - start < SECONDS

        @pytest.mark.parametrize("profile", PROFILES)
        def drawn(profile):
            known = settings.get_profile(profile)
            settings(known, max_examples=max(1, round(known.max_examples * share)))(
                given(*strategies, **named)(timed)
            )()

        for name in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(drawn, name, getattr(test, name))
        return drawn

    return decorate


@dataclasses.dataclass(frozen=True)
class Refused:
    """What a call answers to an input that is wrong: one line."""

    message: str


def answer(call, *arguments, place=None, errors=BadInput, **options):
    """What a call returns, or `Refused`.

    Args:
        place: what a refusal must name.
        errors: the kinds that it may raise; others are faults.
    """
    try:
        return call(*arguments, **options)
    except errors as error:
        return _checked(error, place)


def _checked(error, place):
    message = str(error)
    assert message.strip(), f"{type(error).__name__} without a message"
    assert len(message.splitlines()) == 1, message
    assert place is None or place in message, message
    assert not _ran_out(error), "".join(traceback.format_exception(error))
    return Refused(message)


def _ran_out(error):
    """Whether an error was first that there is too little memory."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def memory_for(more):
    """Meanwhile this process gets at most so many bytes more."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
