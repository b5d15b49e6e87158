"""Find the galaxies that stand in two datasets, to leave them out of pretraining.

    python scripts/find_overlap.py --datasets data/gz2_classes data/gz2_votes --against data/gz1 data/rings --out overlap.csv
    accelerate launch scripts/pretrain.py --dataset data/gz2_classes --leave-out overlap.csv ...

28,793 galaxies are compared with 6,664 by their pictures in less than two minutes on one core, with 1 GB of memory.
"""

from hf_galaxy.commands.overlap import command

if __name__ == "__main__":
    command()
