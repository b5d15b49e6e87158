"""`hf-galaxy pretrain` as a script: accelerate launch scripts/pretrain.py ..."""

from hf_galaxy.commands.pretrain import command

if __name__ == "__main__":
    command()
