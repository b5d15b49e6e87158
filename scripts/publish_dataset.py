"""Publish galaxies as a dataset that `datasets.load_dataset` reads, and with --push on the Hub.

    python scripts/publish_dataset.py simulate --galaxies 800 --out data/mock
    python scripts/publish_dataset.py catalogue --images DIR_OR_ZIP --catalogue votes.csv --tree gz_jwst_ceers         --columns dataset_cards/gz_jwst_ceers/columns.json --card dataset_cards/gz_jwst_ceers/card.md --out data/ceers
    python scripts/publish_dataset.py combine --parts data/gz2 data/gz_decals_dr5 --card dataset_cards/gz_evo/card.md         --out data/gz_evo
    python scripts/publish_dataset.py card --card dataset_cards/gz2/card.md --dataset mwalmsley/gz2 --out cards/gz2

What an interruption left is taken up by the same command.
"""

from hf_galaxy.commands.publish import command

if __name__ == "__main__":
    command()
