"""What a finished run says of every galaxy of a dataset, or of a folder of pictures, as Parquet.

accelerate launch scripts/predict.py --run runs/ceers --dataset data/ceers --out predictions/ceers
"""

from hf_galaxy.commands.predict import command

if __name__ == "__main__":
    command()
