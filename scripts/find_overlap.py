"""`hf-galaxy overlap` as a script: python scripts/find_overlap.py ..."""

from hf_galaxy.commands.overlap import command

if __name__ == "__main__":
    command()
