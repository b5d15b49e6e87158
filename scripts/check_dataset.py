"""`hf-galaxy check` as a script: python scripts/check_dataset.py ..."""

from hf_galaxy.commands.check import command

if __name__ == "__main__":
    command()
