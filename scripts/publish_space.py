"""`hf-galaxy space` as a script: python scripts/publish_space.py ..."""

from hf_galaxy.commands.space import command

if __name__ == "__main__":
    command()
