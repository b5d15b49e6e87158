"""What the figures of a benchmark share: how a start looks, and the names of modes and shares."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from hf_galaxy.downstream.results import FULL, LINEAR
from hf_galaxy.reports.charts import COLORS, MARKERS
from hf_galaxy.reports.text import truncated

LINE_STYLES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)))  # the next when all colours are used
MODE_TITLES = {LINEAR: "linear probe", FULL: "full finetuning"}
LEGEND_LETTERS, LINE_LETTERS = 96, 46  # of a start's title in a legend, and beside a line


class Look(NamedTuple):
    """How a start looks in all figures, and its title in legends."""

    color: str
    marker: str
    line: Any
    title: str


def looks_of(results: dict[str, Any], about: dict[str, Any]) -> dict[str, Look]:
    """The looks of the starts that were measured."""
    measured = {row["start"] for row in results["means"]}
    titles = titles_of([name for name in about["starts"] if name in measured], about, LEGEND_LETTERS)
    return {
        name: Look(
            COLORS[i % len(COLORS)],
            MARKERS[i % len(MARKERS)],
            LINE_STYLES[i // len(COLORS) % len(LINE_STYLES)],
            title,
        )
        for i, (name, title) in enumerate(titles.items())
    }


def titles_of(names: Sequence[str], about: dict[str, Any], letters: int) -> dict[str, str]:
    """Titles of starts, truncated; their names, if two titles would be equal."""
    titles = [truncated(about["starts"][name]["title"], letters) for name in names]
    return dict(zip(names, titles if len(set(titles)) == len(titles) else names, strict=True))


def groups_of(rows: Sequence[dict[str, Any]], *keys: str) -> dict[Any, list[dict[str, Any]]]:
    """The rows by their value of a key, or by the tuple of their values of several keys."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        values = tuple(row[key] for key in keys)
        groups.setdefault(values if len(values) > 1 else values[0], []).append(row)
    return groups


def share_name(share: float) -> str:
    """Such as "1/4 of the labels"."""
    return "all labels" if share == 1 else f"1/{1 / share:.3g} of the labels"
