"""`hf-galaxy finetune` as a script: accelerate launch scripts/finetune.py ..."""

from hf_galaxy.commands.finetune import command

if __name__ == "__main__":
    command()
