"""Finetune a pretrained backbone on another dataset: all of it, its head, its last layers, or low-rank adapters (--train).

hf-galaxy finetune --start runs/ceers --dataset data/rings --label ring --out runs/rings
"""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from hf_galaxy.command_line import Command
from hf_galaxy.training.settings import Settings, default_settings


@dataclass(frozen=True, kw_only=True)
class Finetune(Settings):
    """Finetune a pretrained backbone on galaxies and write a run folder. Needed are --start, --dataset, --out, and what to learn: --label, --values or --labels (without them, votes). Running the command again resumes an unfinished run."""

    start: Annotated[str, tyro.conf.arg(aliases=("--model",))] = field()
    """Pretrained weights: a run folder or its Hub id, a .safetensors or .pth file of timm weights, a timm model name with its tag (convnext_atto.d2_in1k), hf_hub:ORG/NAME, or transformers:FOLDER_OR_HUB_ID."""
    batch_size: int = 32
    """Galaxies per optimizer step, over all processes and accumulated micro-batches; 32 as in GZ Evo's finetuning."""
    learning_rate: float = 1e-4
    """Peak learning rate, after the warm-up; Zoobot 2's for finetuning."""
    weight_decay: float = 0.05
    """Weight decay of weight matrices and convolution filters; Zoobot 2's for finetuning."""
    head_dropout: float = 0.5
    """Dropout rate of the features before the head; Zoobot 2's and GZ Evo's for finetuning."""
    patience: int = 10
    """Early stopping: number of validations without a lower loss after which training stops; Zoobot 2's for finetuning."""


def main(settings: Settings) -> None:
    settings.check_there(settings.dataset)
    from hf_galaxy.training.run import run_training, show_results

    show_results(settings, run_training(settings))


command = Command(Finetune, main, default_settings)

if __name__ == "__main__":
    command()
