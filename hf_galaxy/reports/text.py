"""Numbers, intervals and tables in words, and the templates that they stand in."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"  # of the cards of models
NOT_MEASURED = "not measured"


def render(template: Path, **values: object) -> str:
    """The template, filled in. A name that it uses and `values` lacks is an error (jinja2.UndefinedError)."""
    environment = Environment(
        loader=FileSystemLoader(template.parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "interval": interval, "percent": percent}
    return environment.get_template(template.name).render(**values)


def rounded(value: float | None) -> str:
    """Three decimals; NOT_MEASURED of None."""
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def number(value: float | None) -> str:
    """Three digits that matter."""
    return "not known" if value is None else f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"


def interval(estimate: dict | None) -> str:
    """A value and its interval; of runs with one seed there is none, and it is said."""
    if estimate is None or estimate["value"] is None:
        return "-"
    if estimate["low"] is None:
        return f"{number(estimate['value'])} (one seed)"
    return f"{number(estimate['value'])} ({number(estimate['low'])} to {number(estimate['high'])})"


def percent(share: float | None) -> str:
    """Such as -12 %."""
    return "-" if share is None else f"{100 * share:.1f} %"


def percents(estimate: dict | None) -> str:
    """A share and its interval."""
    if estimate is None:
        return "-"
    return f"{percent(estimate['value'])} ({percent(estimate['low'])} to {percent(estimate['high'])})"


def figure_number(value: float) -> str:
    """Three digits."""
    return f"{value:#.3g}".rstrip(".") if 1e-4 < abs(value) < 1000 else f"{value:.3g}"


def figure_interval(each: dict, value: str = "value") -> str:
    """A number and its interval."""
    interval = "" if each["low"] is None else f" [{figure_number(each['low'])}, {figure_number(each['high'])}]"
    return figure_number(each[value]) + interval


def short(value: float, digits: int = 3) -> str:
    """1200 -> 1.2k."""
    size, letter = next(
        ((size, letter) for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= size), (1, "")
    )
    return f"{value / size:.{digits}g}{letter}"


def shortened(text: str, most: int) -> str:
    """No more than so many letters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
