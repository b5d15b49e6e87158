"""Fit scaling laws to the runs of a sweep, and write the page of the study.

    python scripts/fit_scaling.py --runs runs/law --out scaling/ --title "CEERS, 100 to 2,900 galaxies"

Writes README.md (the page, also the card of the table as a dataset), scaling.json, points.parquet, and figures with their tables.
"""

from hf_galaxy.commands.fit import command

if __name__ == "__main__":
    command()
