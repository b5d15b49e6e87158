"""The data of a call: names of datasets, or galaxies in memory, which get a name."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hf_galaxy.errors import BadInput
from hf_galaxy.importing.objects import is_galaxies, name_of
from hf_galaxy.importing.reading import JOINING, Reading, VotesReading

READING = tuple(field.name for field in fields(Reading))
# What `name_of` has used; the dataset that it made is read like a published one.
USED = tuple(name for name in READING if name not in ("config", "bands", *JOINING))


def named_data(data: Any, options: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The names of datasets, and the options of the call that remain.

    Args:
        data: a name, galaxies in memory, or a list of either.
        options: of the call, as `options.checked` returns them.

    Raises:
        BadInput: data are neither, or mixed; or as `objects.name_of`.
    """
    single = isinstance(data, str | Path) or is_galaxies(data)
    listed: Sequence[Any] = [data] if single else data
    names = isinstance(listed, list | tuple) and all(isinstance(each, str | Path) for each in listed)
    if names:
        if not listed:
            raise BadInput("data: name a dataset")
        return tuple(map(str, listed)), dict(options)
    if not isinstance(listed, list | tuple) or not all(map(is_galaxies, listed)):
        raise BadInput(
            f"data: a {type(data).__name__} is no dataset's name; give its folder or Hub id, a table of galaxies, a `datasets.Dataset`, or a "
            "list of one of these"
        )
    reading = VotesReading.of(options)
    made = tuple(name_of(each, reading) for each in listed)
    return made, {name: value for name, value in options.items() if name not in USED}
