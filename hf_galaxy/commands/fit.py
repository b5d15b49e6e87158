"""Fit scaling laws to the runs of a sweep, and write the page of the study.

    hf-galaxy fit --runs runs/law --out scaling/ --title "CEERS, 100 to 2,900 galaxies"

Writes README.md (the page, also the card of the table as a dataset), scaling.json, points.parquet, and figures with their tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_galaxy.command_line import Command, OutputPath, typed
from hf_galaxy.errors import BadInput
from hf_galaxy.files import only_writer_of, remove_partial, write_json
from hf_galaxy.reports import records_file
from hf_galaxy.reports.run_record import FILE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class FitScaling:
    """Fit scaling laws to the losses of finished runs, and write the study: a page, figures, tables, and all fits in scaling.json."""

    runs: Path
    """Folder of a sweep, with run folders anywhere below it, or their records in its records.parquet; such a file; or the points.parquet of an earlier fit."""
    out: OutputPath
    """Folder of the study; files of an earlier fit are replaced."""
    title: str | None = None
    """Title of the page; by default the name of the folder --out."""
    cards: bool = False
    """Also write the laws of each backbone into the records of its runs, and into their model cards unless a person edited them."""


def main(settings: FitScaling) -> None:
    if settings.cards and settings.runs.is_file():
        raise BadInput(f"--cards: {settings.runs} is a file; give the folder of the runs whose cards are to be written")
    with only_writer_of(settings.out):
        write_study(settings)


def write_study(settings: FitScaling) -> None:
    """Fit, and write the folder of the study and, with --cards, the laws into the records of the runs."""
    from hf_galaxy.reports.page import check_page, write_page
    from hf_galaxy.scaling.figures import KINDS, figures_of
    from hf_galaxy.scaling.page import MADE, study_page
    from hf_galaxy.scaling.points import points_in, save_points
    from hf_galaxy.scaling.study import study_of

    check_page(settings.out, MADE)
    remove_partial(settings.out.glob(".*"))
    points = points_in(settings.runs)
    if len(datasets := sorted(set(points["dataset"]))) > 1:
        raise BadInput(f"--runs: are of several datasets ({', '.join(datasets)}); make a study of each")
    print(f"{points['run'].nunique()} finished runs, {len(points)} measured points; fitting")
    study = study_of(points)
    figures = figures_of(study)
    title = settings.title or settings.out.resolve().name
    page = study_page(study, title, {figure.name: figure.alt for figure in figures}, typed())
    save_points(points, settings.out / "points.parquet")
    write_json(settings.out / "scaling.json", study)
    write_page(settings.out, page, figures, KINDS)
    if settings.cards:
        write_cards(settings.runs, points, study, title)
    print(
        f"written to {settings.out}: README.md, scaling.json, points.parquet, {len(figures)} figures with their tables"
    )


def write_cards(runs: Path, points: pd.DataFrame, study: dict[str, Any], title: str) -> None:
    """Write the laws of its backbone into the record and the card of each run, or into its record in the records file."""
    scaling = {}
    for name, own in points.groupby("run"):
        about = own.iloc[0][["backbone", "start"]].to_dict()
        laws = [law for law in study["laws"] if about.items() <= law.items()]
        scaling[name] = {"title": title, "laws": list(map(law_for_card, laws))}
        if (runs / name / FILE).exists():
            write_card(runs / name, scaling[name])
    if (file := runs / records_file.FILE).exists():
        with records_file.changing(file) as recorded:
            recorded |= {name: recorded[name] | {"scaling": scaling[name]} for name in scaling.keys() & recorded.keys()}


def write_card(run: Path, scaling: dict[str, Any]) -> None:
    """Write the laws into the record and the card of a run."""
    from hf_galaxy.reports.run_folder import rewrite

    rewrite(run, lambda record: record.scaling.update(scaling))


def law_for_card(law: dict[str, Any]) -> dict[str, Any]:
    """The part of a law that the card of a run shows."""
    about = {key: law[key] for key in ("backbone", "start", "figure", "measure")}
    points = [{key: point[key] for key in ("galaxies", "value", "low", "high")} for point in law["points"]]
    fitted = law["law"] and {key: law["law"][key] for key in ("b", "per_doubling", "c")}
    return about | {"points": [points[0], points[-1]], "law": fitted}


command = Command(FitScaling, main)

if __name__ == "__main__":
    command()
