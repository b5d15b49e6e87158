"""`hf-galaxy budget` as a script: python scripts/label_budget.py ..."""

from hf_galaxy.commands.budget import command

if __name__ == "__main__":
    command()
