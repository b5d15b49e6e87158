"""`hf-galaxy publish` as a script: python scripts/publish_dataset.py ..."""

from hf_galaxy.commands.publish import command

if __name__ == "__main__":
    command()
