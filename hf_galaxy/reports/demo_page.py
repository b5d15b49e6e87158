"""The page of the demo: one HTML file that needs nothing else, made of the records of two runs and of some test galaxies.

Every number on it is of these records or of the galaxies; all text is escaped.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_galaxy.reports.inline_charts import Axis, Chart, Series
from hf_galaxy.reports.run_figures import SPLIT, calibration_of
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.target_report import report_of
from hf_galaxy.reports.text import TEMPLATES, render

TEMPLATE = TEMPLATES / "demo.html.jinja"
LOOKS = ("blue", "orange")
DARKEST = 0.5  # opacity of the colour of a whole class: letters on it stay readable


@dataclass(frozen=True)
class Answer:
    """An answer to a question, with the shares of the votes for it.

    Attributes:
        said: by the volunteers.
        predicted: by the model.
        low, high: of the central interval that the model predicts; None for a model without intervals.
    """

    name: str
    said: float
    predicted: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Question:
    """A question that volunteers were asked, and the number of their votes."""

    name: str
    votes: int
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Galaxy:
    """A test galaxy: what volunteers said, and what a model says.

    Attributes:
        picture: the JPEG.
        kind: what it was drawn as.
        volunteers: their number.
        description: the likeliest answers by the model, in words.
    """

    id_str: str
    picture: bytes
    kind: str
    volunteers: int
    description: str
    questions: Sequence[Question]

    @property
    def often(self) -> list[Question]:
        """The questions that at least half of the volunteers were asked."""
        return [question for question in self.questions if 2 * question.votes >= self.volunteers]

    @property
    def seldom(self) -> list[Question]:
        """The others."""
        return [question for question in self.questions if 2 * question.votes < self.volunteers]

    @property
    def uri(self) -> str:
        """The picture, for a page that has no other files."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.picture).decode()}"


@dataclass(frozen=True)
class Table:
    """A table of a report."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def demo_page(
    folder: str, pretrained: RunRecord, finetuned: RunRecord, galaxies: Sequence[Galaxy], quick: bool = False
) -> str:
    """The page as HTML.

    Args:
        folder: of the demo, as its user typed it.
        pretrained: a run on votes.
        finetuned: a run on classes that started from it.
        quick: both were made with too little to learn from, as the page then says.
    """
    runs = (pretrained, finetuned)
    return render(
        TEMPLATE, folder=folder, quick=quick, pretrained=pretrained, finetuned=finetuned, galaxies=galaxies,
        votes=pretrained.results[SPLIT], classes=finetuned.results[SPLIT],
        tables={name: tables_of(report_of(run).table(run.results[SPLIT])) for name, run in zip(("votes", "classes"), runs, strict=True)},
        legends=[report_of(run).legend(run) for run in runs],
        learning=[learning_chart("Pretraining on votes", pretrained), learning_chart("Finetuning on classes", finetuned)],
        calibration=[vote_calibration(pretrained), class_calibration(finetuned)],
        commands=commands(folder), confusion=confusion(finetuned), darkest=DARKEST, label=finetuned.settings["label"],
    )  # fmt: skip


def commands(folder: str) -> dict[str, str]:
    """What a person types next, for own galaxies, and the column map that the first command reads."""
    start = shlex.quote(f"{folder}/pretrained")
    return {
        "publish": "hf-galaxy publish catalogue --images my_pictures --catalogue my_galaxies.csv --columns columns.json --out my_survey",
        "columns": '{"classes": {"kind": {"column": "kind", "names": {"spiral": "spiral", "elliptical": "elliptical", "merger": "merger"}}}}',
        "finetune": f"hf-galaxy finetune --start {start} --dataset my_survey --task classes --label kind --out my_model",
        "predict": "hf-galaxy predict --run my_model --dataset more_pictures --out my_predictions --csv",
    }


def tables_of(text: str) -> list[Table]:
    """The tables in the Markdown of a report."""
    tables: list[list[list[str]]] = []
    before = ""
    for line in text.splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        before = line
    return [Table(head, rows) for head, _, *rows in tables]


def learning_chart(title: str, record: RunRecord) -> Chart:
    """Training and validation loss against epochs, and the loss of the constant prediction on the test split."""
    galaxies, history = record.dataset["splits"]["train"], record.training["history"]
    epochs = [entry["galaxies"] / galaxies for entry in history]
    lines = {
        name: list(zip(epochs, [entry[key] for entry in history], strict=True))
        for name, key in (("training", "training_loss"), ("validation", "validation_loss"))
    }
    baseline = record.results[SPLIT]["loss"]["baseline"]
    x = Axis.over("epochs", [0, epochs[-1]], 0.02)
    best = min(entry["validation_loss"] for entry in history)
    return Chart(
        title,
        f"{title}: over {epochs[-1]:.3g} epochs the validation loss falls to {best:.3g} {report_of(record).loss_unit}; "
        f"the same answer for every galaxy has {baseline:.3g}.",
        x,
        Axis.over(
            f"loss ({report_of(record).loss_unit})", [baseline, *(y for line in lines.values() for _, y in line)]
        ),
        [
            Series("training, with random views and dropout", "orange", lines["training"]),
            Series("validation", "blue", lines["validation"]),
            Series("baseline: the same answer for every galaxy (test)", "ink", [(x.low, baseline), (x.high, baseline)], True),
        ],
    )  # fmt: skip


def vote_calibration(record: RunRecord) -> Chart:
    """Predicted against observed vote fractions of each campaign."""
    campaigns = (calibration_of(record) or {"campaigns": {}})["campaigns"]
    series = [
        Series(name, look, known(each["predicted"], each["given"]))
        for (name, each), look in zip(campaigns.items(), LOOKS, strict=False)
    ]
    return _against_diagonal("Votes", "predicted share of the votes", "observed share", series)


def class_calibration(record: RunRecord) -> Chart:
    """The probability of the predicted class against the share of galaxies for which it is right."""
    each = calibration_of(record) or {"probability": [], "accuracy": []}
    series = [Series("predicted class", "blue", known(each["probability"], each["accuracy"]))]
    return _against_diagonal("Classes", "probability of the predicted class", "share that is right", series)


def known(x: Sequence[float | None], y: Sequence[float | None]) -> list[tuple[float, float]]:
    """The bins that have galaxies."""
    return [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]


def _against_diagonal(title: str, x: str, y: str, series: list[Series]) -> Chart:
    distances = [abs(a - b) for line in series for a, b in line.points]
    alt = f"{title}: {x} against {y}; the points are at most {max(distances, default=0):.2f} from the diagonal."
    diagonal = Series("calibrated", "ink", [(0, 0), (1, 1)], True)
    return Chart(title, alt, Axis.of_shares(x), Axis.of_shares(y), [*series, diagonal])


def confusion(record: RunRecord) -> Mapping[str, Any]:
    """The confusion matrix: `names`, and `rows` of [true class, galaxies, cells], a cell being its number and share of the row."""
    names, matrix = record.dataset["classes"], record.results[SPLIT]["confusion"]
    rows = [
        (name, sum(numbers), [(number, number / max(sum(numbers), 1)) for number in numbers])
        for name, numbers in zip(names, matrix, strict=True)
    ]
    return {"names": names, "rows": rows}
