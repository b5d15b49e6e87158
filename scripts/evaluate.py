"""`hf-galaxy evaluate` as a script: accelerate launch scripts/evaluate.py ..."""

from hf_galaxy.commands.evaluate import command

if __name__ == "__main__":
    command()
