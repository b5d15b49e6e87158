"""Put the records of a study's runs, and what a benchmark measured, into one file, so that their folders need not be kept.

    hf-galaxy pack --study results/ceers

All that reads the study's folder takes the records from STUDY/records.parquet: fits and pages, and a sweep or benchmark that is
run again skips what is in it.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from hf_galaxy.command_line import Command
from hf_galaxy.errors import BadInput

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PackRecords:
    """Write the records of all finished runs and cells below a folder into its records.parquet, beside those that it holds."""

    study: Path
    """The folder of the study: with run folders anywhere below it, or with the cells of a benchmark."""


def main(settings: PackRecords) -> None:
    from hf_galaxy.downstream.cell_files import CELLS
    from hf_galaxy.reports.records_file import FILE, changing
    from hf_galaxy.reports.run_record import FILE as RUN
    from hf_galaxy.reports.run_record import RunRecord

    records = {}
    for folder in (file.parent for file in settings.study.rglob(RUN)):
        record = RunRecord.load(folder)
        if record.finished:
            records[folder.relative_to(settings.study).as_posix()] = dataclasses.asdict(record)
        else:
            logger.warning(f"{folder}: is not finished, and stays out of the file")
    for file in (settings.study / CELLS).rglob("*.json"):
        try:
            records[file.relative_to(settings.study).as_posix()] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{file}: cannot be read as JSON ({error}); remove it, and measure it again") from error
    if not records:
        raise BadInput(f"--study {settings.study}: has no finished run or cell that is not yet in {FILE}")
    with changing(file := settings.study / FILE) as held:
        before = len(held.keys() - records.keys())
        held |= records
    print(f"{file}: {len(records)} records, and {before} that it held before")
    tops = sorted({name.split("/")[0] for name in records if "/" in name})
    print(f"what they were of can be removed, as far as no weights are needed: {', '.join(tops)}")


command = Command(PackRecords, main)

if __name__ == "__main__":
    command()
