"""Find the galaxies that stand in two datasets, to leave them out of pretraining.

    python scripts/find_overlap.py --datasets data/gz2_classes data/gz2_votes --against data/gz1 data/rings --out overlap.csv
    accelerate launch scripts/pretrain.py --dataset data/gz2_classes --leave-out overlap.csv ...

28,793 galaxies are compared with 6,664 by their pictures in less than two minutes on one core, with 1 GB of memory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_galaxy.command_line import run
from hf_galaxy.errors import BadInput
from hf_galaxy.files import check_new, whole_file
from hf_galaxy.publishing.duplicates import ALIKE, SAME_GALAXY_ARCSEC

if TYPE_CHECKING:
    import pandas as pd

    from hf_galaxy.publishing.overlap import Listing


@dataclass(frozen=True, kw_only=True)
class Find:
    """List the galaxies of some datasets that are also in others, whichever splits they are in: by name, place and picture."""

    datasets: tuple[str, ...]
    """Folders or Hub ids, such as those to pretrain on: their galaxies are listed."""
    against: tuple[str, ...]
    """Folders or Hub ids, such as those to finetune on and to test with."""
    out: Path
    """CSV file to write, which --leave-out takes: dataset, id_str, split, other_dataset, other_id_str, other_split, how, similarity."""
    config: str | None = None
    """Configuration of the datasets, if they have several."""
    also: tuple[str, ...] = ()
    """Columns, in any of the datasets, that hold the galaxy's name in another catalogue, such as kaggle_GalaxyID."""
    arcsec: float = SAME_GALAXY_ARCSEC
    """Galaxies that near each other in the sky (columns ra and dec) are one; a deep field needs a smaller number."""
    pictures: bool = True
    """Compare pictures."""
    scales: tuple[float, float] = (1 / 3, 3)
    """Least and most ratio of the width of the field that a picture of --against shows to that of --datasets."""
    alike: float = ALIKE
    """Pictures whose fine structure correlates by more are of one galaxy."""


def main(settings: Find) -> None:
    import pandas as pd

    from hf_galaxy.publishing.overlap import Listing, check_scales, overlap

    check_scales(settings.scales)
    if not settings.arcsec > 0 or not 0 < settings.alike < 1:
        raise BadInput("--arcsec must be above 0, --alike in (0, 1)")
    if both := {Path(name).resolve() for name in settings.datasets} & {
        Path(name).resolve() for name in settings.against
    }:
        raise BadInput(f"--against {both.pop().name}: is among --datasets, and all of it would be found")
    check_new(settings.out)
    ours, theirs = (
        [Listing(name, settings.config, settings.also) for name in names]
        for names in (settings.datasets, settings.against)
    )
    for column in settings.also:
        if not any(column in listing.columns for listing in (*ours, *theirs)):
            raise BadInput(f"--also {column}: no dataset has such a column")
    found = []
    for one in ours:
        for other in theirs:
            pairs = overlap(one, other, settings.arcsec, settings.scales, settings.alike, settings.pictures)
            print(in_words(one, other, pairs, settings.alike), flush=True)
            found.append(pairs)
    found = pd.concat([pairs for pairs in found if len(pairs)] or found[:1])
    with whole_file(settings.out) as partial:
        found.to_csv(partial, index=False, float_format="%.3f")
    for listing in (*ours, *theirs):
        if listing.unreadable:
            print(f"{listing.name}: {len(listing.unreadable):,} pictures cannot be read; check_dataset.py names them")
        galaxies = found["id_str"][found["dataset"] == listing.name].nunique()
        if listing in ours:
            print(f"{settings.out}: {galaxies:,} of the {len(listing):,} galaxies of {listing.name}")


def in_words(one: "Listing", other: "Listing", pairs: "pd.DataFrame", alike: float) -> str:
    ways = [f"{pairs['how'].str.contains(way).sum():,} by {way}" for way in ("name", "position", "picture")]
    said = f"{one.name} and {other.name}: {len(pairs):,} pairs, {', '.join(ways)}"
    unlike = pairs["how"].str.contains("name") & (pairs["similarity"] <= alike)
    if unlike.any():
        said += (
            f"; {unlike.sum():,} of those by name have pictures unlike each other (median similarity "
            f"{pairs['similarity'][unlike].median():.2f}): see whether the name means the same in both"
        )
    return said


def command() -> None:
    """Read the options from the command line, and run."""
    run(Find, main)
