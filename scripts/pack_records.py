"""Put the records of a study's runs, and what a benchmark measured, into one file, so that their folders need not be kept.

    python scripts/pack_records.py --study results/ceers

All that reads the study's folder takes the records from STUDY/records.parquet: fits and pages, and a sweep or benchmark that is
run again skips what is in it.
"""

from hf_galaxy.commands.pack import command

if __name__ == "__main__":
    command()
