"""A run folder as an object: its parts, and how it shows itself."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_galaxy.calls import page
from hf_galaxy.reports.run_folder import CARD
from hf_galaxy.reports.run_record import FILE, RunRecord, reading
from hf_galaxy.reports.target_report import Results, report_of

if TYPE_CHECKING:
    from hf_galaxy.models.model import GalaxyPreTrainedModel


class RunFolder:
    """The parts of a run; `run.Run` adds what can be done with it.

    Args:
        folder: the run folder.

    Raises:
        BadInput: it is none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record  # noqa: B018  # refuses what is no run

    @property
    def record(self) -> RunRecord:
        """Everything that is recorded of the run, as run.json holds it now."""
        return RunRecord.load(self.folder)

    @cached_property
    def model(self) -> "GalaxyPreTrainedModel":
        """The trained model, in evaluation mode, on the CPU.

        Raises:
            BadInput: the run is not finished.
        """
        from hf_galaxy.models.start import load_run

        return load_run(self.folder)[0].eval()

    @property
    def results(self) -> "RunResults":
        """The metrics of each evaluated split, each with the figure of the model and of its baseline; empty before the end."""
        with reading(self.folder / FILE):
            return RunResults(self.record)

    @property
    def card(self) -> str:
        """The card of the model, in Markdown, as it is in the folder, with the changes of a person; empty before the end."""
        file = self.folder / CARD
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def __repr__(self) -> str:
        with reading(self.folder / FILE):
            return f"{type(self).__name__}({str(self.folder)!r}): {page.sentence(self.record)}"

    def _repr_html_(self) -> str:
        with reading(self.folder / FILE):
            return page.html(self.folder, self.record)


class Draws(dict[str, Any]):
    """The figures of a split in the replicates of a bootstrap: some 200 each, too many to be shown."""

    def __repr__(self) -> str:
        return f"<replicates of {', '.join(self)}>"


def _with_short_draws(results: Results) -> Results:
    return {name: Draws(value) if name == "bootstrap" else value for name, value in results.items()}


class RunResults(dict[str, Results]):
    """Evaluated split -> metrics, as run.json holds them; shows itself as the tables of the card, each figure beside its baseline."""

    def __init__(self, record: RunRecord) -> None:
        super().__init__({split: _with_short_draws(results) for split, results in record.results.items()})
        self._report = report_of(record)

    def __repr__(self) -> str:
        return (
            "\n\n".join(f"{split}\n\n{self._report.table(results)}" for split, results in self.items()) or "no results"
        )

    def _repr_html_(self) -> str:
        return (
            "".join(page.section(split, self._report.table(results)) for split, results in self.items())
            or "<p>no results</p>"
        )
