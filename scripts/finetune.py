"""Finetune a pretrained backbone on another dataset: all of it, its head, its last layers, or low-rank adapters (--train).

accelerate launch scripts/finetune.py --start runs/ceers --dataset data/rings --task classes --label ring --out runs/rings
"""

from hf_galaxy.commands.finetune import command

if __name__ == "__main__":
    command()
