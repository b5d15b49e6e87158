"""Texts of others, such as titles, class names, ids and names of files, where they are shown: harmless, on one line, and still readable.

What a program reads, such as columns of Parquet and YAML, has them unchanged.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# Control characters, which move the cursor of a terminal or end a line, and those that turn the direction of what follows.
HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
MEANS = re.compile(r"[\\`*\[\]<>|]")  # something in Markdown and HTML, wherever it stands
ENTITY = re.compile(r"&(?=#?\w+;)")
FORMULA = ("=", "+", "-", "@")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
TAG = re.compile(r"<(?=[a-z/!?])(?!https?://)", re.IGNORECASE)
LINK = re.compile(
    r"\]([(:])(?=\s*<?\s*(?!https?:|mailto:)[a-z][a-z0-9+.-]*:)", re.IGNORECASE
)  # to something else than a page
SPELT = re.compile(r"&(?=#|colon;|tab;|newline;)", re.IGNORECASE)  # characters that would spell such a link


def visible(text: str, keep: str = "") -> str:
    r"""The text with control characters, and those that turn the direction of writing, as \x1b or \u202e.

    Args:
        keep: some of these characters that stay, such as line ends.
    """
    return HIDDEN.sub(lambda match: match[0] if match[0] in keep else ascii(match[0])[1:-1], text)


def markdown(text: str) -> str:
    """The text as a piece of Markdown, in a sentence or in a cell of a table, that shows it and does nothing else."""
    return ENTITY.sub("&amp;", MEANS.sub(r"\\\g<0>", visible(" ".join(text.split()))))


def markdown_inside(value: Any) -> Any:
    """All texts in lists and mappings, the keys among them, as of `markdown`."""
    if isinstance(value, str):
        return markdown(value)
    if isinstance(value, Mapping):
        return {markdown_inside(key): markdown_inside(each) for key, each in value.items()}
    return [markdown_inside(each) for each in value] if isinstance(value, list | tuple) else value


def from_markdown(text: str) -> str:
    """What a reader sees of `markdown`."""
    return re.sub(r"\\([\\`*\[\]<>|])", r"\1", text).replace("&amp;", "&")


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table in Markdown, as a reader sees them."""
    return [
        from_markdown(cell.strip()) for cell in re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
    ]


def code(text: str) -> str:
    """A name as code in Markdown; one that would end the code is shown as `markdown`."""
    plain = not HIDDEN.search(text) and not {"`", "|"} & {*text}
    return f"`{text}`" if plain else markdown(text)


def fenced(text: str) -> str:
    """Lines for a block of code in Markdown, of which none ends the block."""
    return re.sub("(?m)^(?=\\s*(```|~~~))", "\\\\", visible(text, keep="\n\t"))


def prose(text: str) -> str:
    """Markdown of others, such as a section of a card: without HTML, and without links to anything but pages."""
    return TAG.sub("&lt;", LINK.sub(r"]\\\1", SPELT.sub("&amp;", visible(text, keep="\n\t"))))


def csv_cell(text: str) -> str:
    """A text for a cell of a CSV file that people open as a spreadsheet, which takes some texts for formulas: these begin with an apostrophe.

    A number is no formula.
    """
    text = visible(text, keep="\n\t")
    return f"'{text}" if text.startswith((*FORMULA, "\t")) and not NUMBER.fullmatch(text) else text


def csv_rows(rows: Iterable[Iterable[object]]) -> Iterator[list[object]]:
    """Rows with `csv_cell` for their texts."""
    return ([csv_cell(each) if isinstance(each, str) else each for each in row] for row in rows)
