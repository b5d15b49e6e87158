"""Fit scaling laws to the runs of a sweep, and write the page of the study.

    python scripts/fit_scaling.py --runs runs/law --out scaling/ --title "CEERS, 100 to 2,900 galaxies"

Writes README.md (the page, also the card of the table as a dataset), scaling.json, points.parquet, and figures with their tables.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_galaxy.command_line import run
from hf_galaxy.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd
from hf_galaxy.files import whole_file, write_json


@dataclass(frozen=True, kw_only=True)
class FitScaling:
    """Fit the losses of finished runs, and write the study: a page, figures, tables, and all fits in scaling.json."""

    runs: Path
    """The folder of a sweep, with run folders anywhere below it; or a points.parquet that was written earlier."""
    out: Path
    """Folder to write to; what an earlier fit wrote there is replaced."""
    title: str | None = None
    """Of the page; by default the name of the folder --out."""
    cards: bool = False
    """Also write what was found of each backbone into the records of its runs, and into their cards where nobody edited them."""


def main(settings: FitScaling) -> None:
    from hf_galaxy.scaling.figures import KINDS, figures_of
    from hf_galaxy.scaling.page import MADE, study_page
    from hf_galaxy.scaling.points import load_points, points_of, records_in, save_points
    from hf_galaxy.scaling.study import study_of

    if settings.cards and settings.runs.is_file():
        raise BadInput(
            f"--cards: {settings.runs} is a table; give the folder of the runs whose cards are to be written"
        )
    title = settings.title or settings.out.resolve().name
    page = settings.out / "README.md"
    if settings.out.exists() and not settings.out.is_dir():
        raise BadInput(f"--out {settings.out}: is a file; give a folder")
    if page.exists() and MADE not in page.read_text():
        raise BadInput(f"--out {settings.out}: its README.md is not of an earlier fit; choose another folder")
    points = load_points(settings.runs) if settings.runs.is_file() else points_of(records_in(settings.runs))
    if len(datasets := sorted(set(points["dataset"]))) > 1:
        raise BadInput(f"--runs: are of several datasets ({', '.join(datasets)}); make a study of each")
    print(f"{points['run'].nunique()} finished runs, {len(points)} measured points; fitting")
    study = study_of(points)
    figures = figures_of(study)
    command = " ".join(map(shlex.quote, ["python", *sys.argv]))
    text = study_page(study, title, {figure.name: figure.alt for figure in figures}, command)
    files = {f"{f.name}{end}": content for f in figures for end, content in ((".png", f.png), (".csv", f.csv.encode()))}
    settings.out.mkdir(parents=True, exist_ok=True)
    save_points(points, settings.out / "points.parquet")
    write_json(settings.out / "scaling.json", study)
    for name, content in {**files, page.name: text.encode()}.items():
        with whole_file(settings.out / name) as partial:
            partial.write_bytes(content)
    for file in settings.out.iterdir():
        if file.name.startswith(KINDS) and file.name not in files:  # a figure that only an earlier fit had
            file.unlink()
    if settings.cards:
        write_cards(settings.runs, points, study, title)
    print(
        f"written to {settings.out}: README.md, scaling.json, points.parquet, {len(figures)} figures with their tables"
    )


def write_cards(runs: Path, points: "pd.DataFrame", study: dict, title: str) -> None:
    """Into each run's record and card, the laws of its backbone."""
    from hf_galaxy.reports.run_folder import rewrite

    for name, own in points.groupby("run"):
        about = own.iloc[0][["backbone", "start"]].to_dict()
        laws = [law for law in study["laws"] if about.items() <= law.items()]
        found = {"title": title, "laws": list(map(short, laws))}
        rewrite(runs / name, lambda record, found=found: setattr(record, "scaling", found))


def short(law: dict) -> dict:
    """What the card of a run shows of a law."""
    about = {key: law[key] for key in ("backbone", "start", "figure", "measure")}
    points = [{key: point[key] for key in ("galaxies", "value", "low", "high")} for point in law["points"]]
    fitted = law["law"] and {key: law["law"][key] for key in ("b", "per_doubling", "c")}
    return about | {"points": [points[0], points[-1]], "law": fitted}


def command() -> None:
    """Read the options from the command line, and run."""
    run(FitScaling, main)
