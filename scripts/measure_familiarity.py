"""Learn what a run's galaxies look like to its backbone, so that pictures of something else can be told: a file in the run folder.

    accelerate launch scripts/measure_familiarity.py --run runs/ceers

On two cores some 10,000 galaxies of 88 px take a minute with an EfficientNet-Lite0.
"""

from hf_galaxy.commands.familiarity import command

if __name__ == "__main__":
    command()
