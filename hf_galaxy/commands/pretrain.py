"""Pretrain a backbone on galaxies: their votes, classes, or values such as redshifts.

accelerate launch scripts/pretrain.py --dataset data/ceers --backbone convnext_atto --image-size 64 --out runs/ceers
"""

from dataclasses import dataclass

from hf_galaxy.command_line import run
from hf_galaxy.training.recipe import with_recipe
from hf_galaxy.training.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Pretrain(Settings):
    """Pretrain a backbone on a published dataset and write a run folder. Running the command again resumes an unfinished run."""


def main(settings: Settings) -> None:
    from hf_galaxy.training.run import run_training

    run_training(settings)


def command() -> None:
    """Read the options from the command line, and run."""
    run(Pretrain, main, with_recipe)
