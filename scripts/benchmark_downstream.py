"""`hf-galaxy benchmark` as a script: python scripts/benchmark_downstream.py ..."""

from hf_galaxy.commands.benchmark import command

if __name__ == "__main__":
    command()
