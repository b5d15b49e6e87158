"""Evaluate a finished run on a split of its own or of another dataset.

accelerate launch scripts/evaluate.py --run runs/rings
"""

from hf_galaxy.commands.evaluate import command

if __name__ == "__main__":
    command()
