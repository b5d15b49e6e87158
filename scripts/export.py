"""Take a trained model elsewhere.

    python scripts/export.py encoder --run runs/ceers --out encoders/ceers
    python scripts/export.py onnx --run runs/ceers --out ceers.onnx

An encoder takes a few seconds on one core; an ONNX file, whose answers are compared with torch's, 10 to 60 seconds.
"""

from hf_galaxy.commands.export import command

if __name__ == "__main__":
    command()
