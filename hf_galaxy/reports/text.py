"""The one format of numbers, intervals and tables in cards, pages and figures, and the templates that they are filled into."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hf_galaxy.safe_text import markdown

TEMPLATES = Path(__file__).parent / "templates"  # of the cards of models
NOT_MEASURED = "not measured"


def render(template: Path, **values: object) -> str:
    """The template, filled in. A name that it uses and `values` lacks is an error (jinja2.UndefinedError).

    In a template of HTML (NAME.html.jinja) all that is filled in is escaped.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=template.name.endswith(".html.jinja"),
    )  # fmt: skip
    environment.filters |= {"number": number, "interval": interval, "percent": percent, "markdown": markdown}
    return environment.get_template(template.name).render(**values)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def number(value: float | None) -> str:
    """Three significant digits, thousands with commas: 0.0412, 8.90, 123, 12,346; NOT_MEASURED for None."""
    if value is None:
        return NOT_MEASURED
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1e-4 else f"{value:#.3g}".rstrip(".")


def percent(share: float, sign: str = "-") -> str:
    """A share as -12.3 %; with the sign "+", also +12.3 %."""
    return f"{100 * share:{sign}.1f} %"


def interval(estimate: Mapping[str, float | None] | None, form: Callable[[float], str] = number) -> str:
    """`value` [`low`, `high`] of an estimate; one without an interval (a single run) says so, and "-" is none at all."""
    if estimate is None or estimate["value"] is None:
        return "-"
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if low is None or high is None:
        return f"{form(value)} (no interval)"
    return f"{form(value)} [{form(low)}, {form(high)}]"


def compact_number(value: float, digits: int = 3) -> str:
    """1200 -> 1.2k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def truncated(text: str, length: int) -> str:
    """The text with at most `length` letters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
