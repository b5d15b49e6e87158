"""`hf-galaxy predict` as a script: accelerate launch scripts/predict.py ..."""

from hf_galaxy.commands.predict import command

if __name__ == "__main__":
    command()
