"""Pretrain a backbone on galaxies: their votes, classes, or values such as redshifts.

hf-galaxy pretrain --dataset data/ceers --backbone convnext_atto --image-size 64 --out runs/ceers
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from hf_galaxy.command_line import Command
from hf_galaxy.training.settings import Settings, default_settings


@dataclass(frozen=True, kw_only=True)
class Pretrain(Settings):
    """Pretrain a backbone on galaxies and write a run folder. Running the command again resumes an unfinished run."""

    backbone: Annotated[str | None, tyro.conf.arg(aliases=("--model",))] = None
    """Backbone: a timm architecture (such as convnext_atto), or transformers:FOLDER_OR_HUB_ID."""


def main(settings: Settings) -> None:
    settings.check_there(settings.dataset)
    from hf_galaxy.training.run import run_training, show_results

    show_results(settings, run_training(settings))


command = Command(Pretrain, main, default_settings)

if __name__ == "__main__":
    command()
