"""Where the datasets of a run are, for whoever uses the run from another folder: its settings hold paths as they were typed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hf_galaxy.importing.reading import VotesReading


def recorded_paths(names: Iterable[str], reading: VotesReading, run: Path) -> dict[str, str]:
    """Relative paths of files and folders, as typed -> relative to the run folder. So both may move together.

    Args:
        names: of the datasets.
        reading: how they are read; its files count too.
        run: the run folder.
    """
    typed = [*names, *map(str, reading.images or ()), *([str(reading.join)] if reading.join else [])]
    # The folder may be a link, and ".." goes up from where it leads to.
    start = os.path.realpath(run)
    places = {}
    for each in typed:
        if not os.path.isabs(each) and os.path.exists(each):
            with suppress(ValueError):  # on Windows no path leads from one drive to another
                places[each] = Path(os.path.relpath(os.path.abspath(each), start)).as_posix()
    return places


def located(typed: str, run: Path, paths: dict[str, str]) -> str:
    """Where a file or folder of a run is: in its place beside the run; as it was typed if it is not there, or the same.

    Args:
        paths: as of `recorded_paths`.
    """
    place = os.path.join(os.path.realpath(run), paths[typed]) if typed in paths else ""
    if not os.path.exists(place) or (os.path.exists(typed) and os.path.samefile(place, typed)):
        return typed
    return os.path.normpath(place)


def located_reading(reading: VotesReading, run: Path, paths: dict[str, str]) -> VotesReading:
    """The same, for the files of a `VotesReading`."""
    images = reading.images and [located(str(each), run, paths) for each in reading.images]
    join = reading.join and located(str(reading.join), run, paths)
    return VotesReading.of(vars(reading) | {"images": images, "join": join})


def is_same_dataset(name: str, other: str) -> bool:
    """Whether two names are those of one dataset: of one file or folder, or of one repository of the Hub."""
    if os.path.exists(name) and os.path.exists(other):
        return os.path.samefile(name, other)
    return not (os.path.exists(name) or os.path.exists(other)) and name.casefold() == other.casefold()
