"""The names of some galaxies or columns in a sentence, however many there are."""

from __future__ import annotations

from collections.abc import Sequence

EXAMPLES = 3


def first_of(names: Sequence[str], number: int | None = None) -> str:
    """The first of some names, and how many more there are.

    Args:
        number: of all; None: `names` holds all.
    """
    more = (len(names) if number is None else number) - EXAMPLES
    return ", ".join(names[:EXAMPLES]) + (f" and {more:,} more" if more > 0 else "")


class Examples:
    """Names of which only the first are kept, and how many there are."""

    def __init__(self) -> None:
        self.number = 0
        self.names: list[str] = []

    def add(self, name: str) -> None:
        self.number += 1
        if len(self.names) < EXAMPLES:
            self.names.append(name)

    def __str__(self) -> str:
        return first_of(self.names, self.number)
