"""RunRecord <-> run.json: all that is known of a run. Cards, scaling laws and evaluations read it; nothing parses a log."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from hf_galaxy.errors import BadInput
from hf_galaxy.files import write_json

FILE = "run.json"


@dataclass
class RunRecord:
    """One run of a script.

    Attributes:
        command: as typed.
        settings: the script's resolved settings: with the data, the run is a function of them.
        dataset: name, title, what their `cards` say (`card_facts.DatasetFacts`), galaxies in each split; tree and questions, classes,
            or values.
        model: backbone, what its weights started from, and the Hub id of that if it has one (`base_model`), how pictures are
            framed, numbers of parameters (`trained`: of all, with adapters), and floating-point operations for a picture.
        environment: versions, device, processes, precision.
        baseline: the constant prediction that every metric stands beside, from the training split.
        training: history, losses, best epoch, seconds (`loop.fit`); of a head alone, also what its `features` cost to compute.
        results: evaluated split -> metrics, each a pair {"model", "baseline"}.
        publication: what a person decided when publishing it: `repo`, `license`, `datasets` and `base_model`, Hub ids.
        card: SHA-256 of the card that was last made of this record: another one was edited by a person.
        scaling: what a study that it was part of found of its backbone: `title`, and of its `laws` what the card shows.
        finished: False while training; only a finished run can be loaded or evaluated.
    """

    command: str
    settings: dict
    dataset: dict = field(default_factory=dict)
    model: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    baseline: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    results: dict = field(default_factory=dict)
    scaling: dict = field(default_factory=dict)
    publication: dict = field(default_factory=dict)
    card: str | None = None
    finished: bool = False

    def save(self, folder: Path) -> None:
        """Write `folder`/run.json, whole or not at all."""
        write_json(folder / FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "RunRecord":
        """The record of the run in `folder`.

        Raises:
            BadInput: there is none, or it cannot be read.
        """
        try:
            return cls(**json.loads((folder / FILE).read_text()))
        except FileNotFoundError as error:
            raise BadInput(f"{folder}: is no run folder (it has no {FILE})") from error
        except (json.JSONDecodeError, TypeError) as error:
            raise BadInput(f"{folder / FILE}: is no run record ({error})") from error
