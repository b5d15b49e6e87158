"""Check a published dataset: schema, votes, pictures, leakage between splits, the numbers of the card.

    hf-galaxy check data/ceers
    hf-galaxy check mwalmsley/gz2 --tolerance 0.05

The exit status is 1 if there is a problem.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from hf_galaxy.command_line import Command, DatasetConfig
from hf_galaxy.cores import available_cores, check_processes
from hf_galaxy.errors import BadInput
from hf_galaxy.safe_text import visible


@dataclass(frozen=True, kw_only=True)
class Check:
    """Read every row of a dataset and report its problems."""

    dataset: Annotated[str, tyro.conf.Positional]
    """A folder or a Hub id."""
    config: DatasetConfig = None
    """Configuration to check; if not given, the default one, and the others are only opened."""
    tolerance: float = 0.01
    """Share of the galaxies asked in which a question may have other votes than the answers that lead to it."""
    threads: int = len(available_cores())
    """Number of threads that decode pictures."""


def main(settings: Check) -> None:
    """Print all findings; exit with status 1 if there is a problem."""
    from hf_galaxy.publishing.check_published import check_published

    if not 0 <= settings.tolerance <= 1:
        raise BadInput("--tolerance is a share, in [0, 1]")
    check_processes("--threads", settings.threads)
    findings = check_published(settings.dataset, settings.config, settings.tolerance, settings.threads)
    for finding in findings:
        print(f"{finding.level:8s}{finding.check:11s} {visible(finding.text)}")
    problems = sum(finding.level == "problem" for finding in findings)
    print(f"\n{settings.dataset}: {problems or 'no'} problem{'' if problems == 1 else 's'}")
    sys.exit(1 if problems else 0)


command = Command(Check, main)

if __name__ == "__main__":
    command()
