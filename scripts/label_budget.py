"""How many more galaxies to label: from a pilot on a few subsets of those that are labelled, the error with more of them.

    python scripts/sweep.py --out runs/pilot --vary subset=1/8,1/4,1/2,1 --vary seed=1,2,3         -- scripts/finetune.py --start runs/survey --dataset data/rings --task classes --label ring
    python scripts/label_budget.py --runs runs/pilot --target 0.1

All numbers are of galaxies to learn from; those that validate and test come on top.
"""

from hf_galaxy.commands.budget import command

if __name__ == "__main__":
    command()
