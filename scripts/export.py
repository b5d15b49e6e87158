"""`hf-galaxy export` as a script: python scripts/export.py ..."""

from hf_galaxy.commands.export import command

if __name__ == "__main__":
    command()
