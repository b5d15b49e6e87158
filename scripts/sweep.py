"""Run a grid of runs, here or on a cluster. What all of them have in common comes after --.

    python scripts/sweep.py --out runs/law --vary subset=1/64,1/16,1/4,1 --vary backbone=convnext_atto,resnet18         --vary seed=1,2,3 -- scripts/pretrain.py --dataset data/ceers --epochs 20

Each cell of the grid gets a run folder in --out. Finished ones are skipped, so the same command again goes on, also with
more values, also while another sweep works on the same grid. The exit status is 0 if all are done.
"""

from hf_galaxy.commands.sweep import command

if __name__ == "__main__":
    command()
