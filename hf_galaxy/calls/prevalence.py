"""`hf_galaxy.prevalence`: the command of this name as a function."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from hf_galaxy.calls.options import command_of
from hf_galaxy.commands.prevalence import HowMany, measured, write
from hf_galaxy.errors import BadInput
from hf_galaxy.typed_options import checked


def prevalence(
    predictions: str | Path | pd.DataFrame,
    labels: str | Path | pd.DataFrame,
    *,
    label: str | None = None,
    count: str | None = None,
    prediction: str | None = None,
    on: str | None = None,
    by: str | None = None,
    bins: int = 4,
    edges: Sequence[float] | None = None,
    strata: str | None = None,
    weight: str | None = None,
    level: float = 0.9,
    out: str | Path | None = None,
) -> pd.DataFrame:
    """The share of a class in a whole survey: what the command `hf-galaxy prevalence` does, the same numbers.

    Args:
        predictions: for all galaxies of the survey, a table of `hf_galaxy.predict`, or its file or folder.
        labels: a random sample of these galaxies, with a name and a label for each.
        label: the column of the labels: yes or no, 0 or 1, classes (with `count`), fractions, or values; by default the only one
            beside that of the names.
        count: the label that is counted, such as "merger", if labels are classes.
        prediction: the column of the predictions; by default the one that is named like what is counted.
        on: the column of the names in both, or "OURS=THEIRS", such as "id_str=objid".
        by: a column of the predictions: one share for each bin of it.
        bins, edges: how many bins of numbers there are, or their edges.
        strata: a column of the predictions, in each of whose groups the labelled galaxies were drawn at random.
        weight: a column of the labels: how many galaxies each stands for.
        level: the probability with which an interval holds the truth.
        out: a folder to create for a page, the numbers and the figure.

    Returns:
        A row for the survey, `bin` "all", and one for each bin: `share` with the ends `share_low` and `share_high` of its interval (from 0
        to 1; of values their mean), `number` of galaxies, `labels_alone` without predictions, `counting_predictions` and by how much it is off,
        `effective_labels`. NaN in bins with fewer than 10 labels. `.attrs["answer"]` has it in words.

    Raises:
        BadInput: what is wrong with an option, or in which row of a table.

    Example:
        >>> table = hf_galaxy.prevalence("predictions/survey", labelled, label="ring", by="redshift")
        >>> table[["bin", "share", "share_low", "share_high"]]
    """
    from hf_galaxy.reports.prevalence_report import sentences_of

    options = dict(
        label=label, count=count, prediction=prediction, on=on, by=by, bins=bins, edges=edges, strata=strata,
        weight=weight, level=level, out=out,
    )  # fmt: skip
    with ExitStack() as stack:
        tables = {"predictions": predictions, "labels": labels}
        for name, table in tables.items():
            if isinstance(table, pd.DataFrame):
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                tables[name] = _file_of(table, Path(folder), name)
        given = checked(HowMany, {**tables, **options})
        try:
            settings = HowMany(**given)
            answer = measured(settings)
        except BadInput as error:  # a table in memory is called by the name of its argument
            message = str(error)
            for name, table in tables.items():
                if table is not (predictions if name == "predictions" else labels):
                    message = message.replace(str(table), name)
            raise BadInput(message) from None
        if settings.out:
            write(answer, settings.out, command_of("prevalence", HowMany, given))
    table = pd.DataFrame(answer.rows())
    table.attrs["answer"] = sentences_of(answer)
    return table


def _file_of(table: pd.DataFrame, folder: Path, name: str) -> Path:
    """A file with the columns of texts and numbers of a table in memory; an index with a name is a column."""
    if table.index.name is not None and table.index.name not in table.columns:
        table = table.reset_index()
    if (again := table.columns.duplicated()).any():
        raise BadInput(
            f"{name}: has the column {table.columns[again][0]!r} more than once; leave one of them, or rename it"
        )
    plain = {column: table[column] for column in table.columns if not _holds_arrays(table[column])}
    file = folder / f"{name}.parquet"
    cells = pd.DataFrame({str(column): values for column, values in plain.items()})
    try:
        cells.to_parquet(file, index=False)
    except Exception as error:  # pyarrow has several
        raise BadInput(
            f"{name}: a column holds values of several types ({error}); make them texts or numbers"
        ) from error
    return file


def _holds_arrays(values: pd.Series) -> bool:
    return (
        values.dtype == object and len(values) > 0 and not isinstance(values.iloc[0], str | bool | int | float | None)
    )
