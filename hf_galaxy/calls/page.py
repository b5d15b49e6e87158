"""A run as HTML for a notebook: the tables and figures of its card, whole in themselves. Everything in it is escaped, nothing is fetched."""

import base64
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path

from hf_galaxy.reports import run_figures
from hf_galaxy.reports.model_card import sections, shown
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.target_report import report_of
from hf_galaxy.safe_text import cells_of, from_markdown

WIDTH = "max-width:min(100%,50em)"  # of texts and figures; tables may be wider
LONG = 12  # rows; longer tables are folded


def sentence(record: RunRecord) -> str:
    """What the run is, in a line."""
    galaxies = record.dataset.get("splits", {}).get("train")
    trained = f"{record.model.get('backbone')} on {galaxies or 0:,} galaxies of {record.dataset.get('title')}"
    if not record.finished:
        return f"{trained}, not finished"
    loss = record.results.get(run_figures.SPLIT, {}).get("loss", {})
    numbers = [f"{name} {loss[name]:.4g}" for name in ("model", "baseline") if loss.get(name) is not None]
    return f"{trained}; test loss: {', '.join(numbers)}" if numbers else trained


def html(folder: Path, record: RunRecord) -> str:
    """The page of a run: what it is, its tables, its figures."""
    report = report_of(record)
    parts = [
        f"<h3>{escape(str(record.model.get('backbone')))}, trained on {escape(str(record.dataset.get('title')))}</h3>"
    ]
    parts.append(f"<p>{escape(str(folder))}: {escape(sentence(record))}</p>")
    record = shown(record)
    if record.finished:
        parts.append(
            markdown(f"{report.summary(record)}\n\nEach figure is beside its baseline, {report.legend(record)}", {})
        )
        figures = {
            path: _data_uri(folder / path)
            for path in (run_figures.LOSS, run_figures.CALIBRATION)
            if (folder / path).exists()
        }
        parts += [section(from_markdown(split), report.table(results)) for split, results in record.results.items()]
        parts += [section(title, text, figures) for title, text in sections(record, report)]
        if run_figures.LOSS in figures:
            parts.append(section("How it was trained", f"![Training and validation loss]({run_figures.LOSS})", figures))
    return f'<div style="overflow-x:auto">{"".join(parts)}</div>'


def section(title: str, text: str, figures: Mapping[str, str] | None = None) -> str:
    """A title and some Markdown below it."""
    return f"<h4>{escape(title)}</h4>{markdown(text, figures or {})}"


def markdown(text: str, figures: Mapping[str, str]) -> str:
    """The Markdown that reports consist of, as HTML: paragraphs, lists, tables and figures. All else in it stays text.

    Args:
        figures: path -> data URI; others are not shown.
    """
    return "".join(_block(block, figures) for block in re.split(r"\n\s*\n", text.strip()))


def _block(text: str, figures: Mapping[str, str]) -> str:
    lines = text.splitlines()
    if figure := re.fullmatch(r"!\[(.*)\]\((.*)\)", text.strip()):
        source = figures.get(figure[2])
        return f'<img alt="{escape(figure[1])}" src="{source}" style="{WIDTH}">' if source else ""
    if len(lines) > 1 and lines[0].startswith("|") and set(lines[1]) <= set("|-: "):
        head, *rows = (cells_of(line) for line in (lines[0], *lines[2:]))
        whole = f"<table>{_row('th', head)}{''.join(_row('td', row) for row in rows)}</table>"
        title = f"{escape(head[0] or 'table')}: {len(rows)} rows"
        return whole if len(rows) <= LONG else f"<details><summary>{title}</summary>{whole}</details>"
    if all(line.startswith("- ") for line in lines):
        return f"<ul style='{WIDTH}'>{''.join(f'<li>{escape(from_markdown(line[2:]))}</li>' for line in lines)}</ul>"
    return f"<p style='{WIDTH}'>{escape(from_markdown(text))}</p>"


def _row(tag: str, cells: list[str]) -> str:
    sides = ["left", *["right"] * (len(cells) - 1)]
    written = (
        f"<{tag} style='text-align:{side}'>{escape(cell)}</{tag}>" for side, cell in zip(sides, cells, strict=True)
    )
    return f"<tr>{''.join(written)}</tr>"


def _data_uri(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
