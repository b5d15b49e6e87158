"""RunRecord <-> run.json: everything that is recorded of a run. Cards, scaling laws and evaluations read it; no log is parsed."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_galaxy.errors import BadInput
from hf_galaxy.files import write_json
from hf_galaxy.plain_json import mapping_in
from hf_galaxy.targets import TARGETS

FILE = "run.json"


@contextmanager
def reading(place: object) -> Iterator[None]:
    """Turn what is missing in a record, or is of a wrong type deep within it, into a BadInput: somebody else may have written it.

    Args:
        place: of the record.
    """
    try:
        yield
    except (BadInput, OSError, MemoryError):
        raise
    except Exception as error:  # cards are made by libraries that have kinds of their own
        raise BadInput(f"{place}: is no whole run record ({type(error).__name__}: {error})") from error


@dataclass
class RunRecord:
    """One run of a script.

    Attributes:
        command: as typed.
        settings: the script's resolved settings: with the data, the run is a function of them.
        dataset: name, title, facts of their `cards` (`card_facts.DatasetFacts`), `bytes` of their files, galaxies in each split; tree and questions, classes,
            or values.
        model: backbone, the start of its weights, with the Hub id if it has one (`base_model`), the framing of pictures, numbers of
            parameters (`trained`: of all, with adapters), floating-point operations of one forward pass, and of a finished run the
            SHA-256 of its files of `weights`, which have no checksum of their own.
        environment: versions, device, processes, precision.
        baseline: the constant prediction that every metric is compared with, from the training split.
        training: history, losses, best epoch, seconds (`loop.Trainer`); of a training until it converged, the rule and the lengths
            (`convergence`, of `Lengths.in_record`); of a head alone, also the cost of its `features`; of votes and classes the
            `calibration`: the galaxies that it was fitted to, its cross-validated `gain` in nats per galaxy, and whether it is `used`.
        results: evaluated split -> metrics, each a pair {"model", "baseline"}.
        publication: choices of the person who published it: `license`, and the Hub ids `repo`, `datasets` and `base_model`.
        card: SHA-256 of the card that was last made from this record; a card with another one was edited by a person.
        scaling: results for its backbone of the study that it belongs to: `title`, and the part of its `laws` that the card shows.
        paths: of the datasets and their files that were typed as relative paths: relative to the run folder.
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
    paths: dict = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The kind of target: votes, classes, values or labels. What depends on it is looked up by this name."""
        return self.settings.get("task", "votes")

    def save(self, folder: Path) -> None:
        """Write `folder`/run.json, whole or not at all."""
        write_json(folder / FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "RunRecord":
        """Read the record of the run in `folder`.

        Raises:
            BadInput: there is none, or it cannot be read.
        """
        try:
            record = cls.of(mapping_in((folder / FILE).read_bytes()))
            if record.task not in list(TARGETS):  # a list, as it may be anything
                raise TypeError(f"task {record.task!r}: this version of hf_galaxy has {', '.join(TARGETS)}")
            return record
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BadInput(f"{folder}: is no run folder (it has no {FILE})") from error
        except (OSError, ValueError, TypeError) as error:
            raise BadInput(f"{folder / FILE}: is no run record ({error})") from error

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "RunRecord":
        """The record with these fields.

        Raises:
            TypeError: one is missing, unknown, or of another type.
        """
        record = cls(**fields)
        for each in dataclasses.fields(cls):
            if not isinstance(getattr(record, each.name), each.type):  # type: ignore[arg-type]  # all are types
                raise TypeError(f"its {each.name} is no {getattr(each.type, '__name__', each.type)}")
        return record


def digests_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of weights in a folder."""
    return {file.name: _digest(file) for file in sorted(folder.glob("*.safetensors"))}


def check_weights(folder: Path, record: RunRecord) -> None:
    """Refuse weights that are not those that a run has written.

    Raises:
        BadInput: names the file.
    """
    for name, digest in record.model.get("weights", {}).items():
        file = folder / name
        if file.is_file() and _digest(file) != digest:
            raise BadInput(
                f"{file}: is not as the run has written it; copy it again, or train again (if you have changed it yourself, remove "
                f'"weights" from {folder / FILE})'
            )


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
