"""`hf-galaxy embed` as a script: accelerate launch scripts/embed.py ..."""

from hf_galaxy.commands.embed import command

if __name__ == "__main__":
    command()
