"""Make a finished run ready for others, and with --push upload its folder to the Hub as it is.

    python scripts/publish_model.py --run runs/survey
    python scripts/publish_model.py --run runs/survey --license cc-by-nc-sa-4.0 --push ORG/NAME

Afterwards `AutoModel.from_pretrained("ORG/NAME")` loads it, and `--start ORG/NAME` trains on from it.
"""

from hf_galaxy.commands.push import command

if __name__ == "__main__":
    command()
