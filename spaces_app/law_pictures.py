"""Charts and tables for the page: SVG that adapts to dark mode and to the width of the screen, and HTML around it.

A chart is drawn twice, wide and narrow, and the page shows the one that fits. CSS variables replace the colours of
`hf_galaxy.reports.charts`, so that dark mode needs no request to the server.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

from hf_galaxy.reports.charts import COLORS, GREY, chart, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

WIDE, NARROW = (7.6, 3.9), (3.7, 3.3)  # inches of 72 px in the drawing, without the legend
_DARK = ("#58b4f0", "#ff8f4d", "#35d0a0", "#e594c4", "#f0b429", "#8fd0f7", "#f2f2f2")  # of COLORS
_PALETTE = {"ink": ("#000000", "#f2f2f2"), "quiet": (GREY, "#b8b8b8"), "paper": ("#ffffff", "#18181b")}
_PALETTE |= {f"line-{i}": pair for i, pair in enumerate(zip(COLORS[:-1], _DARK, strict=False))}
_DRAWING = threading.Lock()  # settings of matplotlib are shared by all threads
_STYLE = """<style>
.law-picture{margin:0;container-type:inline-size;LIGHT}
.dark .law-picture{DARK}
.law-picture svg{display:block;width:100%;height:auto;max-width:58rem;fill:var(--law-ink)}
.law-picture svg *{stroke-linejoin:round;stroke-linecap:butt}
.law-picture .law-narrow{display:none}
@container (max-width:34rem){.law-picture .law-wide{display:none}.law-picture .law-narrow{display:block}}
.law-table{overflow-x:auto;margin:0.3rem 0 0.8rem}
.law-table table{border-collapse:collapse;font-size:0.9rem;font-variant-numeric:tabular-nums}
.law-caption{font-weight:600;margin:0.8rem 0 0}
.law-table th,.law-table td{text-align:left!important;vertical-align:top;padding:0.3rem 0.4rem!important;
 border:1px solid var(--border-color-primary,#ccc)!important}
.law-table tbody th{white-space:nowrap}
.law-table thead th{min-width:5.5rem}
.law-words p{margin:0.4rem 0}
</style>"""
for _mode, _which in (("LIGHT", 0), ("DARK", 1)):
    _STYLE = _STYLE.replace(_mode, ";".join(f"--law-{name}:{pair[_which]}" for name, pair in _PALETTE.items()))


def picture(draw: Callable[[Figure, Axes], list[Line2D]], alt: str, heights: float = 1.0) -> str:
    """A chart as HTML.

    Args:
        draw: draws on a matplotlib figure and its axes, and returns the entries of the legend.
        alt: alternative text.
        heights: factor of the usual height.
    """
    parts = []
    for name, (width, height) in {"wide": WIDE, "narrow": NARROW}.items():
        with _DRAWING, style():
            figure, (axes,) = chart(1, height=heights * height, width=width)
            handles = draw(figure, axes)
            drawn = svg(figure, handles, hashlib.sha256(f"{name} {alt}".encode()).hexdigest())
        parts.append(f'<div class="law-{name}">{_themed(drawn)}</div>')
    return f'{_STYLE}<figure class="law-picture" role="img" aria-label="{escape(alt)}">{"".join(parts)}</figure>'


def _themed(drawn: str) -> str:
    for name, (color, _) in _PALETTE.items():
        drawn = drawn.replace(color.lower(), f"var(--law-{name})")
    # Its rules would apply to the whole page.
    start, end = drawn.index("<style"), drawn.index("</style>") + len("</style>")
    drawn = drawn[:start] + drawn[end:]
    fonts = drawn[drawn.index("'DejaVu Sans'") : drawn.index("sans-serif")]
    return drawn.replace(fonts, "system-ui, ").replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def table(caption: str, columns: list[str], rows: list[list[str]]) -> str:
    """A table as HTML, with row headers in the first column; on a narrow screen it scrolls, also with the keyboard."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(_unbroken(cell))}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    caption = escape(caption)
    # Not a caption element, which is as wide as the table and would scroll with it.
    return (
        f'<p class="law-caption">{caption}</p><div class="law-table" tabindex="0" role="region" aria-label="{caption}">'
        f'<table aria-label="{caption}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _unbroken(cell: str) -> str:
    """The same with no line break inside an interval."""
    return re.sub(r"\(.*?\)", lambda interval: interval[0].replace(" ", "\N{NO-BREAK SPACE}"), cell)


def paragraphs(sentences: list[str]) -> str:
    """Paragraphs as HTML, whose changes are announced by screen readers."""
    return f'<div class="law-words" aria-live="polite">{"".join(f"<p>{escape(each)}</p>" for each in sentences)}</div>'
