"""The committed records behind the tab "Scaling laws", and their numbers and names in words."""

import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from hf_galaxy.errors import BadInput
from hf_galaxy.reports.measures import ALL
from hf_galaxy.reports.records_file import FILE
from hf_galaxy.reports.text import number
from hf_galaxy.scaling.convergence import is_converged
from hf_galaxy.scaling.figure_data import laws_to_show
from hf_galaxy.scaling.points import points_of, records_in
from text import sentence

STUDIES = ("ceers_converged", "gz2_classes", "gz2_votes", "ceers", "ceers_starts")
DOWNSTREAM = "downstream"
_HERE = Path(__file__).parent
# In a published Space beside the app, otherwise in the repository.
RESULTS = _HERE / "results" if (_HERE / "results").is_dir() else _HERE.parent / "results"


@dataclass(frozen=True, eq=False)
class Study:
    """A scaling study: `fits` as in scaling.json."""

    name: str
    fits: dict[str, Any]
    folder: Path

    @cached_property
    def points(self) -> pd.DataFrame:
        """The measured losses, as of `points.points_of`. Read at the first question to the planner, as they take half a second."""
        return points_of(records_in(self.folder / FILE))

    @property
    def title(self) -> str:
        """The dataset in words."""
        return sentence(f"laws.study_{self.name}")

    @property
    def converged(self) -> bool:
        """Whether all runs were trained until more training brought little, so that there are laws of galaxies."""
        return is_converged(self.fits)

    def measures(self) -> list[str]:
        """The measures, in the order of the records."""
        return list(dict.fromkeys(law["measure"] for law in self.fits["laws"]))

    def default_measure(self) -> str:
        """The measure that is shown first: for classes the error, which needs no explanation."""
        return "error" if "error" in self.measures() else self.measures()[0]

    def questions(self, measure: str) -> list[str]:
        """The questions with this measure; "all" is all of them together."""
        return list(dict.fromkeys(law["figure"] for law in self.fits["laws"] if law["measure"] == measure))

    def series(self) -> list[tuple[str, str]]:
        """(backbone, start) of each series of runs with different numbers of galaxies and seeds."""
        return list(dict.fromkeys((law["backbone"], law["start"]) for law in self.fits["laws"]))

    def series_name(self, backbone: str, start: str) -> str:
        """A series in words, with the start if there are several."""
        if len(self.fits["data"]["starts"]) == 1:
            return backbone
        return sentence("laws.series", backbone=backbone, start=sentence(f"laws.start_{start}"))

    def laws(self, measure: str, question: str) -> list[dict[str, Any]]:
        """The laws of all series; of a study that has not converged their points alone."""
        return [law for law in laws_to_show(self.fits) if (law["measure"], law["figure"]) == (measure, question)]


@cache
def study_of(results: Path, name: str) -> Study:
    """A study in the folder of results, read once.

    Raises:
        BadInput: there is no such study.
    """
    check_name("study", name, STUDIES)
    folder = results / name
    return Study(name, json.loads((folder / "scaling.json").read_text(encoding="utf-8")), folder)


def check_name(kind: str, name: str, available: Collection[str]) -> None:
    """Refuse an unknown name.

    Raises:
        BadInput: in words for visitors.
    """
    if name not in available:
        names = ", ".join(map(str, available))
        kind = sentence(f"laws.kind_{kind}")
        raise BadInput(sentence("laws.no_such", kind=kind, name=str(name)[:40], available=names))


def measure_name(measure: str) -> str:
    """A measure in words."""
    return sentence(f"laws.measure_{measure}")


def question_name(question: str) -> str:
    """A question in words, without the campaign."""
    return sentence("laws.all_questions") if question == ALL else question.rpartition("-")[0].replace("-", " ")


def with_interval(estimate: dict[str, Any], format_number: Callable[[float], str] = number) -> str:
    """A value with its interval, if it has one."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None:
        return sentence("laws.not_known")
    if low is None:
        return sentence("laws.no_interval", value=format_number(value))
    return sentence("laws.interval", value=format_number(value), low=format_number(low), high=format_number(high))


def percent(share: float) -> str:
    """A change in per cent, with its sign where it is negative."""
    return f"{100 * share:.1f} %".replace("-", "−")  # noqa: RUF001


def listed(words: list[str]) -> str:
    """a, b, and c."""
    return words[0] if len(words) == 1 else sentence("laws.and", first=", ".join(words[:-1]), last=words[-1])


def json_value(value: Any) -> Any:
    """The same for JSON: None for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(key): json_value(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
