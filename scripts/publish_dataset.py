"""Publish galaxies as a dataset that `datasets.load_dataset` reads.

    python scripts/publish_dataset.py simulate --galaxies 800 --out data/mock
    python scripts/publish_dataset.py catalogue --images DIR_OR_ZIP --catalogue votes.csv --tree gz_jwst_ceers \
        --columns dataset_cards/gz_jwst_ceers/columns.json --out data/ceers
"""

import shlex
import sys
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from hf_galaxy import cards, catalogues, simulate
from hf_galaxy.atomic import new_folder
from hf_galaxy.command_line import run
from hf_galaxy.data import row_features, write_dataset
from hf_galaxy.decision_tree import load_tree
from hf_galaxy.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """Draw a mock survey of two mock campaigns: galaxies, and volunteers who vote. No galaxy in it is real."""

    out: Path
    """The dataset folder to make."""
    galaxies: int = 800
    """How many to draw."""
    seed: int = 0
    """The same seed gives the same galaxies and votes, and more galaxies begin with the same."""
    size: int = 96
    """Side of the pictures in pixels."""


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Publish a CSV catalogue and its pictures. Every row is checked before the first picture is read, every picture before anything is left at --out."""

    images: Path
    """Folder or zip file of JPEG or PNG pictures; their bytes are kept as they are."""
    catalogue: Path
    """CSV file with a row for each galaxy."""
    out: Path
    """The dataset folder to make."""
    columns: Path | None = None
    """JSON file that says which column holds what, like dataset_cards/*/columns.json; without it the columns are id_str, image and those of the tree."""
    tree: str | None = None
    """The campaign whose votes the catalogue holds; leave it out if it holds no votes."""
    license: str = "unknown"
    """For the card, as huggingface.co/docs/hub/repositories-licenses spells it."""
    allow_inconsistent_votes: bool = False
    """Publish even if some questions have more or fewer votes than the answers they are asked after."""


def main(settings: Simulate | Catalogue) -> None:
    if isinstance(settings, Simulate) and (settings.galaxies < 1 or settings.size < 16 or settings.seed < 0):
        raise BadInput("--galaxies must be at least 1, --size at least 16, --seed not negative")
    with new_folder(settings.out) as folder:
        if isinstance(settings, Simulate):
            tree = load_tree(simulate.MOCK_TREE)
            rows = simulate.simulate(settings.galaxies, settings.seed, settings.size)
            features = row_features(tree, {"mock_class": simulate.CLASSES}, simulate.METADATA)
            title, license = "Mock Galaxy Zoo survey", "apache-2.0"
            about = f"**No galaxy here is real.** {simulate.ABOUT}\n\n![mock galaxies and what they truly are](contact_sheet.jpg)"
            first = list(islice(rows, 48))
            cards.contact_sheet(first, "mock_class").save(folder / "contact_sheet.jpg", quality=90)
            rows = chain(first, rows)
        else:
            columns = catalogues.ColumnMap.load(settings.columns) if settings.columns else catalogues.ColumnMap()
            tree = load_tree(settings.tree) if settings.tree else None
            if columns.votes and not tree:
                raise BadInput(f"--columns {settings.columns}: says where votes stand; name their campaign with --tree")
            rows = catalogues.Catalogue(settings.catalogue, catalogues.Pictures(settings.images), columns, tree)
            about = columns.about
            if tree and (lines := rows.inconsistencies()):
                share = f"{len(lines)} questions of {len(rows)} galaxies break the decision tree"
                if not settings.allow_inconsistent_votes:
                    raise BadInput(f"{lines[0]} ({share}); mend --columns, or add --allow-inconsistent-votes")
                about += f"\n\n{share}: they have more or fewer votes than the answers they are asked after."
            dtypes = {column: entry["dtype"] for column, entry in columns.metadata.items()}
            features = row_features(tree, columns.class_names, dtypes)
            title, license = columns.title or settings.out.name, settings.license
        published = write_dataset(rows, features, folder)
        command = " ".join(map(shlex.quote, ["python", *sys.argv]))
        mock = isinstance(settings, Simulate)
        card = cards.dataset_card(published, title, about, command, license, tree, mock)
        (folder / "README.md").write_text(card)
    counts = ", ".join(f"{split.num_examples:,} {name}" for name, split in published.splits.items())
    votes = f"; {sum(published.sums[c] for c in tree.columns):,} votes" if tree else ""
    print(f"{settings.out}: {counts} galaxies{votes}")


if __name__ == "__main__":
    run(Simulate | Catalogue, main)
