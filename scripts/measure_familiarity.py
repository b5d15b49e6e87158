"""`hf-galaxy familiarity` as a script: accelerate launch scripts/measure_familiarity.py ..."""

from hf_galaxy.commands.familiarity import command

if __name__ == "__main__":
    command()
