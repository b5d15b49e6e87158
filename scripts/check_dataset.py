"""Check a published dataset before others rely on it: schema, votes, pictures, leakage between splits, the card's numbers.

    python scripts/check_dataset.py data/ceers
    python scripts/check_dataset.py mwalmsley/gz2 --tolerance 0.05

The exit status is 1 if there is a problem.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import datasets
import tyro

from hf_galaxy.check import check_dataset
from hf_galaxy.command_line import run
from hf_galaxy.errors import BadInput
from hf_galaxy.streaming import open_stream


@dataclass(frozen=True, kw_only=True)
class Check:
    """Go through every row of a dataset and report what is wrong with it."""

    dataset: Annotated[str, tyro.conf.Positional]
    """A folder or a Hub id."""
    config: str | None = None
    """Configuration of the dataset, if it has several."""
    tolerance: float = 0.01
    """Share of the galaxies asked a question in which it may have other votes than the answers it is asked after."""
    threads: int = os.cpu_count() or 1
    """That decode pictures."""


def main(settings: Check) -> None:
    if not 0 <= settings.tolerance <= 1 or settings.threads < 1:
        raise BadInput("--tolerance is a share, in [0, 1]; --threads must be at least 1")
    folder = Path(settings.dataset)
    try:
        splits = open_stream(settings.dataset, settings.config)
        info = datasets.load_dataset_builder(settings.dataset, settings.config).info
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise BadInput(f"{settings.dataset}: cannot be opened ({' '.join(str(error).split())})") from error
    stated = {str(split): given.num_examples for split, given in (info.splits or {}).items()}
    own = folder / "statistics.json"
    counted = None
    if own.exists() and settings.config in (None, "default"):  # they are those of the default configuration
        try:
            counted = dict(json.loads(own.read_text()))
        except (ValueError, TypeError):
            counted = {}  # which agrees with no data
    findings = check_dataset(splits, stated, counted, settings.tolerance, settings.threads)
    for finding in findings:
        print(f"{finding.level:8s}{finding.check:11s} {finding.text}")
    problems = sum(finding.level == "problem" for finding in findings)
    print(f"\n{settings.dataset}: {problems or 'no'} problem{'' if problems == 1 else 's'}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    run(Check, main)
