"""`hf-galaxy sweep` as a script: python scripts/sweep.py ..."""

from hf_galaxy.commands.sweep import command

if __name__ == "__main__":
    command()
