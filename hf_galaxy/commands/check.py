"""Check a published dataset: schema, votes, pictures, leakage between splits, the numbers of the card.

    python scripts/check_dataset.py data/ceers
    python scripts/check_dataset.py mwalmsley/gz2 --tolerance 0.05

The exit status is 1 if there is a problem.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hf_galaxy.command_line import run
from hf_galaxy.cores import available_cores
from hf_galaxy.errors import BadInput

if TYPE_CHECKING:
    from hf_galaxy.data.streaming import StreamedRows
    from hf_galaxy.publishing.check import Finding


@dataclass(frozen=True, kw_only=True)
class Check:
    """Read every row of a dataset and report its problems."""

    dataset: Annotated[str, tyro.conf.Positional]
    """A folder or a Hub id."""
    config: str | None = None
    """Configuration to check; if not given, the default one, and the others are only opened."""
    tolerance: float = 0.01
    """Share of the galaxies asked in which a question may have other votes than the answers that lead to it."""
    threads: int = len(available_cores())
    """Number of threads that decode pictures."""


def opened(dataset: str, config: str | None) -> tuple[dict[str, StreamedRows], dict[str, int]]:
    """The splits of a configuration, and the number of galaxies of each by the card."""
    import datasets

    from hf_galaxy.data.streaming import open_stream

    splits = open_stream(dataset, config)
    info = datasets.load_dataset_builder(dataset, config).info
    return splits, {str(split): each.num_examples for split, each in (info.splits or {}).items()}


def other_configs(dataset: str) -> Iterator[Finding]:
    """Whether the other configurations can be opened, and have as many galaxies as the card says."""
    import datasets

    from hf_galaxy.publishing.check import Finding

    default = datasets.load_dataset_builder(dataset).config.name
    for config in datasets.get_dataset_config_names(dataset):
        if config == default:
            continue
        try:
            splits, stated = opened(dataset, config)
        except BadInput as error:
            yield Finding("problem", "config", f"{config}: {error}")
            continue
        counted = {split: len(rows) for split, rows in splits.items()}
        if stated and stated != counted:
            yield Finding("problem", "config", f"{config}: the card says {stated} galaxies, but there are {counted}")
        else:
            yield Finding("ok", "config", f"{config} has {sum(counted.values()):,} galaxies")


def main(settings: Check) -> None:
    """Print all findings; exit with status 1 if there is a problem."""
    from hf_galaxy.data.card_facts import STATISTICS
    from hf_galaxy.publishing.check import check_dataset

    if not 0 <= settings.tolerance <= 1 or settings.threads < 1:
        raise BadInput("--tolerance is a share, in [0, 1]; --threads must be at least 1")
    splits, stated = opened(settings.dataset, settings.config)
    statistics = card = None
    own = Path(settings.dataset) / STATISTICS
    if own.exists() and settings.config in (None, "default"):  # statistics and card are of the default configuration
        card = (own.parent / "README.md").read_text() if (own.parent / "README.md").exists() else ""
        try:
            statistics = dict(json.loads(own.read_text()))
        except (ValueError, TypeError):
            statistics = {}  # which agrees with no data
    findings = check_dataset(splits, stated, statistics, card, settings.tolerance, settings.threads)
    if settings.config is None:
        findings += other_configs(settings.dataset)
    for finding in findings:
        print(f"{finding.level:8s}{finding.check:11s} {finding.text}")
    problems = sum(finding.level == "problem" for finding in findings)
    print(f"\n{settings.dataset}: {problems or 'no'} problem{'' if problems == 1 else 's'}")
    sys.exit(1 if problems else 0)


def command() -> None:
    """Read the options from the command line, and run."""
    run(Check, main)
