"""`hf-galaxy push` as a script: python scripts/publish_model.py ..."""

from hf_galaxy.commands.push import command

if __name__ == "__main__":
    command()
