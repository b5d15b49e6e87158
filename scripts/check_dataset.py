"""Check a published dataset before others rely on it: schema, votes, pictures, leakage between splits, the card's numbers.

    python scripts/check_dataset.py data/ceers
    python scripts/check_dataset.py mwalmsley/gz2 --tolerance 0.05

The exit status is 1 if there is a problem.
"""

from hf_galaxy.commands.check import command

if __name__ == "__main__":
    command()
