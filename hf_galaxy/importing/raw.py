"""What holds galaxies but is no published dataset: which kind it is, and its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from hf_galaxy.importing.tables import is_table, open_table

if TYPE_CHECKING:
    from hf_galaxy.importing.plan import Source
    from hf_galaxy.importing.reading import Reading


class Raw(NamedTuple):
    """Rows to import, and the split of each if it is given."""

    source: Source
    splits: Sequence[str] | None = None


def raw_galaxies(name: str, reading: Reading) -> Raw | None:
    """The rows of what is no published dataset; None if it is one.

    Args:
        name: of a table of galaxies, of a folder, or of a dataset on the Hub.
        reading: what its columns and pictures are.

    Raises:
        BadInput: it cannot be read.
    """
    if is_table(name):
        return Raw(open_table(name, reading))
    return None
