"""The page of a downstream benchmark, from its cells: README.md, results.json, points.parquet, and figures with their tables.

The page is the README.md of a folder that `datasets.load_dataset` reads: its table are the measured points
(`results.points_of`). Every number on the page is filled in from results.json.
"""

import json
from pathlib import Path
from typing import Any

from hf_galaxy.downstream import tables
from hf_galaxy.downstream.cell_files import ABOUT, CELLS, read_about, read_cells
from hf_galaxy.downstream.families import FAMILIES
from hf_galaxy.downstream.figures import KINDS, figures_of
from hf_galaxy.downstream.findings import MODE_NAMES, key_findings
from hf_galaxy.downstream.results import points_of, results_of
from hf_galaxy.files import remove_left_beside, write_json
from hf_galaxy.locks import locked
from hf_galaxy.reports.measures import MEASURES
from hf_galaxy.reports.page import PAGE, check_page, write_page
from hf_galaxy.reports.text import render
from hf_galaxy.scaling.points import save_points
from hf_galaxy.sweeps.grid import STATE_DIR

PAGE_MARK = "<!-- Made by hf-galaxy benchmark, which replaces it: write elsewhere. -->"
RESULTS = "results.json"


def write_results(out: Path) -> None:
    """Write results.json, points.parquet, the figures with their tables and the page, from the cells in a benchmark's folder.

    Raises:
        BadInput: `read_about` or `read_cells` refuses the folder, or its README.md is not a page of a benchmark.
    """
    check_page(out, PAGE_MARK)
    about = read_about(out / ABOUT)
    cells = read_cells(out / CELLS, about)
    results = results_of(cells, about)
    figures = figures_of(results, about)
    (out / STATE_DIR).mkdir(exist_ok=True)
    with locked(out / STATE_DIR / "page.lock"):  # several commands that share the work end with the page
        for name in (
            "points.parquet",
            RESULTS,
            PAGE,
            *(f"{figure.name}.{kind}" for figure in figures for kind in ("png", "csv")),
        ):
            remove_left_beside(out / name)
        save_points(points_of(cells, about), out / "points.parquet")
        write_json(out / RESULTS, results)
        numbers = json.loads((out / RESULTS).read_text(encoding="utf-8"))
        write_page(out, benchmark_page(numbers, about, {f.name: f.alt for f in figures}), figures, KINDS)


def benchmark_page(results: dict[str, Any], about: dict[str, Any], figures: dict[str, str]) -> str:
    """The text of README.md.

    Args:
        results: from `results.results_of`.
        about: from `results.read_about`.
        figures: file name -> alternative text, in the order of the page.
    """
    modes = [mode for mode in about["modes"] if any(row["mode"] == mode for row in results["means"])]
    measures = {row["measure"] for row in results["means"] if row["main"]}
    return render(
        Path(__file__).parent / "templates" / "benchmark.md.jinja",
        mark=PAGE_MARK,
        about=about,
        data=results["data"],
        modes=modes,
        mode_names=MODE_NAMES,
        findings=key_findings(results, about),
        figures=figures,
        measures={name: meaning for name, meaning in MEASURES.items() if name in measures},
        losses={mode: tables.loss_table(results, about, mode) for mode in modes},
        reductions={mode: tables.reduction_table(results, about, mode) for mode in modes},
        families=tables.family_table(results, about),
        family_names={name: meaning for name, (meaning, _) in FAMILIES.items()},
        linear=tables.linear_table(results, about),
        labels=tables.label_table(results, about),
        choices=tables.choice_table(results),
    )
