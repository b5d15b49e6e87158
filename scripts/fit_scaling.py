"""`hf-galaxy fit` as a script: python scripts/fit_scaling.py ..."""

from hf_galaxy.commands.fit import command

if __name__ == "__main__":
    command()
