"""The pictures of many galaxies from a survey server, several at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from hf_galaxy.cutouts.answers import NoPicture, Unreachable
from hf_galaxy.cutouts.folder import CutoutFolder
from hf_galaxy.cutouts.polite import Client
from hf_galaxy.cutouts.positions import Galaxy
from hf_galaxy.cutouts.services import Service
from hf_galaxy.errors import BadInput
from hf_galaxy.progress import progress

logger = logging.getLogger(__name__)
MOST_IN_A_ROW = 10  # galaxies that the server gave nothing for, each after all tries


class GivenUp(BadInput):
    """The server is not there: to ask it for all other galaxies, too, would take days and help nobody.

    Attributes:
        failures: galaxy -> why it has no picture, of those that were asked for.
    """

    def __init__(self, message: str, failures: dict[str, str]) -> None:
        super().__init__(message)
        self.failures = failures


def fetch(
    galaxies: Sequence[Galaxy], service: Service, client: Client, folder: CutoutFolder, parallel: int
) -> dict[str, str]:
    """Ask for the pictures of galaxies, and save them.

    Args:
        parallel: requests at the same time.

    Returns:
        Galaxy -> why it has no picture.

    Raises:
        GivenUp: the server was not there for many galaxies in a row.
        OSError: a file cannot be written.
    """
    failures: dict[str, str] = {}
    in_a_row = 0
    executor = ThreadPoolExecutor(parallel)
    try:
        results = _results(executor, galaxies, service, client, folder, 2 * parallel)
        for galaxy, result in progress(results, total=len(galaxies), desc="cutouts", unit=" galaxies"):
            try:
                result.result()
                in_a_row = 0
            except NoPicture as error:
                failures[galaxy.id_str] = str(error)
                in_a_row = in_a_row + 1 if isinstance(error, Unreachable) else 0
                if in_a_row >= MOST_IN_A_ROW:
                    raise GivenUp(f"{in_a_row} galaxies in a row have no picture: {error}", failures) from error
    finally:
        client.stop()  # after an error, or Ctrl-C, nobody waits for what is still asked for
        executor.shutdown(wait=False, cancel_futures=True)
    return failures


def _results(
    executor: ThreadPoolExecutor,
    galaxies: Sequence[Galaxy],
    service: Service,
    client: Client,
    folder: CutoutFolder,
    ahead: int,
) -> Iterator[tuple[Galaxy, Future[None]]]:
    """The galaxies in order, each when it is done; only so many are handed out ahead."""

    def one(galaxy: Galaxy) -> None:
        folder.save(galaxy, service.picture(galaxy.field, client.ask))
        folder.record(galaxy)

    waiting: deque[tuple[Galaxy, Future[None]]] = deque()
    for galaxy in galaxies:
        waiting.append((galaxy, executor.submit(one, galaxy)))
        if len(waiting) >= ahead:
            yield _done(waiting.popleft())
    while waiting:
        yield _done(waiting.popleft())


def _done(each: tuple[Galaxy, Future[None]]) -> tuple[Galaxy, Future[None]]:
    each[1].exception()  # waits
    return each
