"""How many are there: the share of a class in a whole survey, from all predictions and a small random labelled sample.

    hf-galaxy prevalence --predictions predictions/survey --labels labelled.csv --label ring

The labels correct the predictions, so that the interval holds even if these are bad; good ones make it narrower.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hf_galaxy.command_line import Command, OutputPath, typed
from hf_galaxy.errors import BadInput
from hf_galaxy.files import check_new, new_folder, write_json

if TYPE_CHECKING:
    import numpy as np

    from hf_galaxy.evaluation.prevalence import Kind, Sample
    from hf_galaxy.evaluation.survey_bins import Bins
    from hf_galaxy.importing.label_sample import LabelSample
    from hf_galaxy.importing.survey_table import SurveyColumns
    from hf_galaxy.reports.prevalence_report import Answer, Bin

MOST_BINS, MOST_LEVEL = 100, 0.999
WIDTH = 120  # letters in a line, where there is no terminal


@dataclass(frozen=True, kw_only=True)
class HowMany:
    """Estimate the share of a class among all galaxies that were predicted, with an interval that holds, also for rare classes."""

    predictions: Path
    """What `hf-galaxy predict` has written for all galaxies of the survey: the folder, or any table with a row for each galaxy."""
    labels: Path
    """A table (CSV, Parquet, FITS, VOTable, ECSV) of a random sample of these galaxies, with a name and a label for each."""
    label: str | None = None
    """Column of the labels: yes or no, 0 or 1, classes (with --count), fractions of votes, or values; by default the only column beside that of the names."""
    count: str | None = None
    """The label that is counted, such as merger, if labels are classes."""
    prediction: str | None = None
    """Column of the predictions, such as ring_probability; by default the one that is named like what is counted."""
    on: str | None = None
    """Column of the names in both tables, or OURS=THEIRS, such as id_str=objid, if the labels have another one; by default id_str, or the usual names of such columns in the labels."""
    by: str | None = None
    """Column of the predictions, such as a joined redshift or a class: one share for each bin of it."""
    bins: int = 4
    """Number of bins of numbers, with equally many galaxies in each."""
    edges: tuple[float, ...] | None = None
    """Edges of the bins of numbers instead, such as 0 0.1 0.3 1."""
    strata: str | None = None
    """Column of the predictions: the labelled galaxies were drawn at random in each of its groups, and of some of them relatively more."""
    weight: str | None = None
    """Column of the labels: how many galaxies of the survey each labelled one stands for, which is one over the chance that it had to be drawn."""
    level: float = 0.9
    """Probability with which an interval holds the truth."""
    out: OutputPath | None = None
    """New folder for a page, prevalence.json, the table as prevalence.csv, and with --by the figure."""

    def check(self) -> None:
        """Refuse options that no estimate can be made with.

        Raises:
            BadInput: names the option.
        """
        if not 0 < self.level <= MOST_LEVEL:
            raise BadInput(f"--level {self.level:g}: give a probability between 0 and {MOST_LEVEL}, such as 0.9")
        if not 1 <= self.bins <= MOST_BINS:
            raise BadInput(f"--bins {self.bins}: give a number from 1 to {MOST_BINS}")
        if self.edges is not None:
            if self.by is None:
                raise BadInput("--edges: are those of a column; name it with --by")
            if not 2 <= len(self.edges) <= MOST_BINS + 1 or any(
                low >= high for low, high in itertools.pairwise(self.edges)
            ):
                raise BadInput(f"--edges: give 2 to {MOST_BINS + 1} increasing numbers, such as 0 0.1 0.3 1")
        if self.strata is not None and self.weight is not None:
            raise BadInput("--strata and --weight: give one of them; the sizes of strata are the weights")


def main(settings: HowMany) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from hf_galaxy.reports.prevalence_report import columns_of, sentences_of, table_rows

    answer = measured(settings)
    shown = Table(*columns_of(answer), box=box.SIMPLE)
    for row in table_rows(answer):
        shown.add_row(*row)
    Console(markup=False, width=None if sys.stdout.isatty() else WIDTH).print(shown)
    print("\n".join(sentences_of(answer)))
    if settings.out:
        write(answer, settings.out, typed())
        print(f"written to {settings.out}")


def measured(settings: HowMany) -> Answer:
    """The answer, printed nowhere.

    Raises:
        BadInput: what is wrong with an option, or in which row of a table.
    """
    settings.check()
    if settings.out:
        check_new(settings.out)
    from hf_galaxy.evaluation.prevalence import LEAST, prevalence
    from hf_galaxy.importing.label_sample import prediction_column, read_labels
    from hf_galaxy.importing.survey_table import SurveyTable
    from hf_galaxy.reports.prevalence_report import Answer

    labels = read_labels(settings.labels, settings.on, settings.label, settings.count, settings.weight)
    if len(labels) < LEAST:
        raise BadInput(
            f"--labels {settings.labels}: {len(labels)} labels tell nothing of a survey; label at least {LEAST}, better 100 or more"
        )
    survey = SurveyTable(settings.predictions)
    for option in ("prediction", "by", "strata"):
        survey.check(f"--{option}", getattr(settings, option))
    survey.check("--on", labels.keys.ours)
    column = settings.prediction or prediction_column(
        survey.numeric(), labels.column, settings.count, f"--predictions {settings.predictions}"
    )
    by_number = settings.by is not None and survey.is_number(settings.by)
    if settings.edges is not None and not by_number:
        raise BadInput(f"--edges: the column {settings.by} holds texts, which have no edges")
    numbers = [settings.by] if settings.by is not None and by_number else []
    groups = [name for name in (settings.by, settings.strata) if name is not None and name not in numbers]
    columns = survey.read(column, labels.keys.ours, labels.names, numbers, list(dict.fromkeys(groups)))
    sample = sample_of(labels, columns, settings)
    bins = None if settings.by is None else bins_of(columns, settings)
    whole = prevalence(columns.prediction, sample, settings.level)
    what = settings.count if settings.count is not None else labels.column
    answer = Answer(
        what, sample.kind, settings.level, column, whole, settings.by, strata=settings.strata, weight=settings.weight
    )
    if bins is None:
        return answer
    results = results_in(bins, columns.prediction, sample, settings.level)
    return replace(answer, bins=results, outside=int((bins.codes < 0).sum()))


def sample_of(labels: LabelSample, columns: SurveyColumns, settings: HowMany) -> Sample:
    """The labelled galaxies with their places in the survey, and their weights.

    Raises:
        BadInput: one is not in the survey; or predictions and labels do not fit together; or a stratum has no labelled galaxy.
    """
    import numpy as np

    from hf_galaxy.evaluation.prevalence import Sample

    missing = columns.rows < 0
    if missing.all():
        raise BadInput(
            f"--labels {settings.labels}: none of the {len(labels)} labelled galaxies is in --predictions; their {labels.keys.theirs} is like "
            f"{labels.names.iloc[0]!r}, compared with the column {labels.keys.ours}, such as {columns.first_name!r}; name other columns with --on OURS=THEIRS"
        )
    labels.table.refuse(
        missing, labels.keys.theirs, "is not in --predictions, of which the labelled galaxies must be a sample",
        remedy="predict these galaxies, too, or remove what is not of the survey",
    )  # fmt: skip
    inside = (columns.prediction >= 0) & (columns.prediction <= 1)
    # Values such as redshifts may happen to be from 0 to 1 in a small sample.
    kind: Kind = "value" if labels.kind == "fraction" and not inside.all() else labels.kind
    if kind == "yes/no" and not inside.all():
        wrong = columns.prediction[~inside][0]
        raise BadInput(
            f"--prediction: holds {wrong:g}, but labels of yes and no need probabilities from 0 to 1; name such a column"
        )
    if kind == "value" and inside.all():
        outside = (labels.labels < 0) | (labels.labels > 1)
        labels.table.refuse(
            outside, labels.column, "is neither 0 nor 1, nor a fraction, but the predictions are from 0 to 1",
            remedy="mend the labels, or say which of them is counted with --count",
        )  # fmt: skip
    n, size = len(labels), len(columns.prediction)
    weights, strata = np.ones(n), np.zeros(n, int)
    if labels.weights is not None:
        weights = labels.weights
    if settings.strata is not None:
        groups = columns.groups[settings.strata]
        if (groups.codes < 0).any():
            raise BadInput(
                f"--strata {settings.strata}: is empty for {(groups.codes < 0).sum():,} of {size:,} galaxies; each must be in a stratum"
            )
        strata = groups.codes[columns.rows]
        of_survey, of_sample = (np.bincount(codes, minlength=len(groups.names)) for codes in (groups.codes, strata))
        if (empty := of_sample == 0).any():
            names = ", ".join(name for name, none in zip(groups.names, empty, strict=True) if none)
            raise BadInput(
                f"--strata {settings.strata}: no labelled galaxy is in {names[:200]}, of which nothing is known then; label some, or join it with another stratum"
            )
        weights = (of_survey / of_sample)[strata]
    return Sample(columns.rows, labels.labels, kind, weights, strata)


def bins_of(columns: SurveyColumns, settings: HowMany) -> Bins:
    """The bins of --by.

    Raises:
        BadInput: the column is empty.
    """
    from hf_galaxy.evaluation.survey_bins import Bins, bins_of_numbers

    assert settings.by is not None
    if settings.by in columns.groups:
        groups = columns.groups[settings.by]
        if not groups.names:
            raise BadInput(f"--by {settings.by}: is empty for all galaxies")
        if len(groups.names) > MOST_BINS:
            raise BadInput(
                f"--by {settings.by}: has {len(groups.names)} different texts; give a column with at most {MOST_BINS}"
            )
        return Bins(groups.names, None, groups.codes)
    try:
        return bins_of_numbers(columns.numbers[settings.by], settings.bins, settings.edges)
    except ValueError as error:
        raise BadInput(f"--by {settings.by}: {error}") from error


def results_in(bins: Bins, predictions: np.ndarray, sample: Sample, level: float) -> tuple[Bin, ...]:
    """The result in each bin that holds galaxies."""
    import numpy as np

    from hf_galaxy.evaluation.prevalence import prevalence
    from hf_galaxy.reports.prevalence_report import Bin

    results = []
    for k, name in enumerate(bins.names):
        inside = bins.codes == k
        if inside.any():
            kept = inside[sample.galaxies]
            places = np.searchsorted(np.flatnonzero(inside), sample.galaxies[kept])
            result = prevalence(predictions[inside], sample.select(kept, places), level)
            results.append(Bin(name, None if bins.middles is None else bins.middles[k], result))
    return tuple(results)


def write(answer: Answer, out: Path, command: str) -> None:
    """Write the page, prevalence.json, the table, and the figure if there are bins, into a new folder."""
    from hf_galaxy.files import whole_file
    from hf_galaxy.reports.page import write_page
    from hf_galaxy.reports.prevalence_report import csv_of, figure_of, page_of

    numbers = answer.as_dict()
    figure = figure_of(answer) if answer.bins else None
    with new_folder(out, hashlib.sha256(json.dumps(numbers).encode()).hexdigest()) as folder:
        write_json(folder / "prevalence.json", numbers)
        with whole_file(folder / "prevalence.csv") as partial:
            partial.write_bytes(csv_of(answer).encode())
        write_page(folder, page_of(answer, figure, command), [figure] if figure else [])


command = Command(HowMany, main)

if __name__ == "__main__":
    command()
