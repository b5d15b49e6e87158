"""The committed records behind the second tab, and the numbers and names of it in words."""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from hf_galaxy.errors import BadInput
from hf_galaxy.reports.measures import ALL
from hf_galaxy.reports.text import number
from hf_galaxy.scaling.points import load_points
from text import say

STUDIES = ("gz2_classes", "gz2_votes", "ceers", "ceers_starts")
DOWNSTREAM = "downstream"
# What the tab reads, below the folder of results; a published Space needs no more of it.
FILES = (
    *(f"{study}/{file}" for study in STUDIES for file in ("scaling.json", "points.parquet")),
    f"{DOWNSTREAM}/results.json",
    f"{DOWNSTREAM}/benchmark.json",
)
_HERE = Path(__file__).parent
# Beside the app where it is published, else in the repository.
RESULTS = _HERE / "results" if (_HERE / "results").is_dir() else _HERE.parent / "results"


@dataclass(frozen=True, eq=False)
class Study:
    """A study of scaling: `fits` as in scaling.json, `points` as `points.points_of` makes them."""

    name: str
    fits: dict
    points: pd.DataFrame

    @property
    def title(self) -> str:
        """The dataset in plain words."""
        return say(f"laws.study_{self.name}")

    def measures(self) -> list[str]:
        """In the order of the records."""
        return list(dict.fromkeys(law["measure"] for law in self.fits["laws"]))

    def usual(self) -> str:
        """The measure shown first: of classes the error, which needs no explanation."""
        return "error" if "error" in self.measures() else self.measures()[0]

    def questions(self, measure: str) -> list[str]:
        """Measured by it; "all" is all of them together."""
        return list(dict.fromkeys(law["figure"] for law in self.fits["laws"] if law["measure"] == measure))

    def series(self) -> list[tuple[str, str]]:
        """(backbone, start) of all runs that differ in galaxies and seed only."""
        return list(dict.fromkeys((law["backbone"], law["start"]) for law in self.fits["laws"]))

    def called(self, backbone: str, start: str) -> str:
        """A series in words: the start is named where there are several."""
        if len(self.fits["data"]["starts"]) == 1:
            return backbone
        return say("laws.series", backbone=backbone, start=say(f"laws.start_{start}"))

    def laws(self, measure: str, question: str) -> list[dict]:
        """Of all series."""
        return [law for law in self.fits["laws"] if (law["measure"], law["figure"]) == (measure, question)]


@cache
def study_of(results: Path, name: str) -> Study:
    """A study in the folder of results, read once.

    Raises:
        BadInput: there is none of that name.
    """
    known("study", name, STUDIES)
    folder = results / name
    return Study(name, json.loads((folder / "scaling.json").read_text()), load_points(folder / "points.parquet"))


def known(what: str, name: str, there) -> None:
    """Raises:
    BadInput: a visitor asks for a name that is not there.
    """
    if name not in there:
        raise BadInput(
            say("laws.no_such", what=say(f"laws.what_{what}"), called=str(name)[:40], there=", ".join(map(str, there)))
        )


def measured_by(measure: str) -> str:
    """A measure in words."""
    return say(f"laws.measure_{measure}")


def question_called(question: str) -> str:
    """As Galaxy Zoo calls it, without the campaign."""
    return say("laws.all_questions") if question == ALL else question.rpartition("-")[0].replace("-", " ")


def told(estimate: dict, form=number) -> str:
    """A value with its interval, or that it has none."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None:
        return say("laws.not_known")
    if low is None:
        return say("laws.no_interval", value=form(value))
    return say("laws.interval", value=form(value), low=form(low), high=form(high))


def percent(share: float) -> str:
    """Of a change, with its sign where it is negative."""
    return f"{100 * share:.1f} %".replace("-", "−")  # noqa: RUF001


def listed(words: list[str]) -> str:
    """a, b, and c."""
    return words[0] if len(words) == 1 else say("laws.and", first=", ".join(words[:-1]), last=words[-1])


def plain(value):
    """The same as JSON has it: None for what is no finite number."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
