"""`hf-galaxy pack` as a script: python scripts/pack_records.py ..."""

from hf_galaxy.commands.pack import command

if __name__ == "__main__":
    command()
