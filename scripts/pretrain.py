"""Pretrain a backbone on galaxies: their votes, classes, or values such as redshifts.

accelerate launch scripts/pretrain.py --dataset data/ceers --backbone convnext_atto --image-size 64 --out runs/ceers
"""

from hf_galaxy.commands.pretrain import command

if __name__ == "__main__":
    command()
