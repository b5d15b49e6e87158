"""`hf-galaxy degrade` as a script: accelerate launch scripts/degrade.py ..."""

from hf_galaxy.commands.degrade import command

if __name__ == "__main__":
    command()
