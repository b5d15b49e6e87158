"""Publish galaxies as a dataset that `datasets.load_dataset` reads, and with --push on the Hub.

    python scripts/publish_dataset.py simulate --galaxies 800 --out data/mock
    python scripts/publish_dataset.py catalogue --images DIR_OR_ZIP --catalogue votes.csv --tree gz_jwst_ceers \
        --columns dataset_cards/gz_jwst_ceers/columns.json --card dataset_cards/gz_jwst_ceers/card.md --out data/ceers
    python scripts/publish_dataset.py combine --parts data/gz2 data/gz_decals_dr5 --card dataset_cards/gz_evo/card.md \
        --out data/gz_evo
    python scripts/publish_dataset.py card --card dataset_cards/gz2/card.md --dataset mwalmsley/gz2 --out cards/gz2

What an interruption left is taken up by the same command.
"""

import hashlib
import shlex
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hf_galaxy.command_line import run
from hf_galaxy.cores import available_cores
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.decision_tree import DecisionTree, load_tree, tree_of_columns
from hf_galaxy.errors import BadInput
from hf_galaxy.files import check_new, new_folder, write_json
from hf_galaxy.progress import progress
from hf_galaxy.publishing.duplicates import SAME_GALAXY_ARCSEC

if TYPE_CHECKING:
    from hf_galaxy.publishing import plan
    from hf_galaxy.publishing.dataset_card import Prose

CARDS = Path(__file__).parents[2] / "dataset_cards"


@dataclass(frozen=True, kw_only=True)
class Publish:
    """What every publication can be told."""

    out: Path
    """The folder to make."""
    num_proc: int = len(available_cores())
    """Processes that make rows; their number does not change a byte."""
    push: str | None = None
    """Then upload it to the Hub as this ORG/NAME; --out may be what the same command has published before."""


@dataclass(frozen=True, kw_only=True)
class Simulate(Publish):
    """Draw a mock survey of two mock campaigns: galaxies, and volunteers who vote. No galaxy in it is real."""

    galaxies: int = 800
    """How many to draw."""
    seed: int = 0
    """The same seed gives the same galaxies and votes, and more galaxies begin with the same."""
    size: int = 96
    """Side of the pictures in pixels."""


@dataclass(frozen=True, kw_only=True)
class Catalogue(Publish):
    """Publish a catalogue and its pictures. Every row is checked before the first picture is read."""

    images: tuple[Path, ...]
    """Folders or zip files of JPEG, PNG or FITS pictures."""
    catalogue: Path
    """CSV (also .gz) or Parquet file with a row for each galaxy."""
    columns: Path | None = None
    """JSON file that says which column holds what, like dataset_cards/*/columns.json; without it the columns are id_str, image and those of the tree."""
    tree: str | None = None
    """The campaign whose votes the catalogue holds; leave it out if it holds no votes."""
    card: Path | None = None
    """What a person says of the data, like dataset_cards/*/card.md: title, licence, provenance, known problems."""
    rendering: Annotated[Rendering, tyro.conf.arg(name="")] = field(default_factory=Rendering)
    """How files become pictures."""
    native: bool = False
    """Beside --size or --crop, keep the whole pictures at their own size in a configuration `native`."""
    volunteers: int | None = None
    """For a catalogue of fractions that does not say how many volunteers looked at a galaxy: assume so many, to have votes to train on."""
    skip_missing: bool = False
    """Leave out galaxies without a picture instead of refusing them."""
    skip_bad_pictures: bool = False
    """Leave out galaxies whose picture cannot be read instead of stopping at the first; the card says how many."""
    drop_duplicates: bool = False
    """Of galaxies that near each other keep the one with the most votes, instead of all in one split."""
    same_galaxy_arcsec: float = SAME_GALAXY_ARCSEC
    """Galaxies that near each other in the sky are in one split; a deep field needs a smaller number."""
    allow_inconsistent_votes: bool = False
    """Publish even if some questions have more or fewer votes than the answers they are asked after."""


@dataclass(frozen=True, kw_only=True)
class Combine(Publish):
    """Join published datasets with votes to one, with a configuration for each campaign."""

    parts: tuple[Path, ...]
    """Their folders."""
    card: Path | None = None
    """What a person says of the data, like dataset_cards/*/card.md."""
    drop_duplicates: bool = False
    """Of galaxies that near each other keep the one with the most votes, instead of all in one split."""
    same_galaxy_arcsec: float = SAME_GALAXY_ARCSEC
    """Galaxies that near each other in the sky are in one split; a deep field needs a smaller number."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Write the card of a dataset that stands somewhere else, with the statistics of its data where they can be read."""

    card: Path
    """What a person says of it, like dataset_cards/*/card.md."""
    out: Path
    """The folder to make, for README.md and its figures."""
    dataset: str | None = None
    """A folder or Hub id; without it the card says `not measured` where numbers would stand."""
    config: str | None = None
    """Configuration of the dataset, if it has several."""


def main(settings: Simulate | Catalogue | Combine | Card) -> None:
    from hf_galaxy.data.card_facts import STATISTICS
    from hf_galaxy.publishing import hub

    if isinstance(settings, Card):
        return only_card(settings)
    if settings.num_proc < 1:
        raise BadInput("--num-proc must be at least 1")
    if settings.push:
        hub.check_repo_name(settings.push)
    if settings.push and (settings.out / STATISTICS).exists():
        print(f"{settings.out} is published already; uploading it")
        hub.rename(settings.out, settings.push, _command(settings))
    else:
        check_new(settings.out)
        from_source(settings)
    if settings.push:
        print(f"pushed to {hub.push(settings.out, settings.push)}")


def from_source(settings: Simulate | Catalogue | Combine) -> None:
    from hf_galaxy.publishing import simulate
    from hf_galaxy.publishing.combine import Combined
    from hf_galaxy.publishing.dataset_card import Prose

    if isinstance(settings, Simulate):
        if settings.galaxies < 1 or settings.size < 16 or settings.seed < 0:
            raise BadInput("--galaxies must be at least 1, --size at least 16, --seed not negative")
        survey = simulate.MockSurvey(settings.galaxies, settings.seed, settings.size)
        make(settings, survey, load_tree(simulate.MOCK_TREE), Prose.load(CARDS / "mock/card.md"), [], "mock_class")
    elif isinstance(settings, Combine):
        source = Combined(list(settings.parts))
        prose = Prose.load(settings.card) if settings.card else Prose(title=settings.out.name, license=source.license)
        make(settings, source, source.tree, prose, [], "dataset_name")
    else:
        make_catalogue(settings)


def make_catalogue(settings: Catalogue) -> None:
    from hf_galaxy.data.pictures import Pictures
    from hf_galaxy.publishing import catalogues
    from hf_galaxy.publishing.column_map import ColumnMap
    from hf_galaxy.publishing.dataset_card import Prose

    settings.rendering.check()
    columns = ColumnMap.load(settings.columns) if settings.columns else ColumnMap()
    tree = load_tree(settings.tree) if settings.tree else None
    if (columns.votes or columns.fractions) and not tree:
        raise BadInput(f"--columns {settings.columns}: says where votes stand; name their campaign with --tree")
    if settings.volunteers is not None and (settings.volunteers < 1 or not columns.fractions):
        raise BadInput("--volunteers is a number of people, for a column map with fractions")
    if settings.native and settings.rendering.size is None and settings.rendering.crop == 1:
        raise BadInput(
            "--native goes with --size or --crop: without them all pictures are whole and have their own size"
        )
    prose = Prose.load(settings.card) if settings.card else Prose(title=settings.out.name)
    catalogue = catalogues.Catalogue(
        settings.catalogue, Pictures(list(settings.images)), columns, tree, settings.rendering, settings.native,
        settings.volunteers, settings.skip_missing, settings.skip_bad_pictures,
    )  # fmt: skip
    counted = catalogue.tree and not columns.fractions  # votes made of fractions walk the tree as far as those do
    if counted and not settings.allow_inconsistent_votes and (line := next(catalogue.inconsistencies(), None)):
        raise BadInput(f"{line}; mend --columns, or add --allow-inconsistent-votes and let the card say how often")
    caption = next(iter([*columns.classes, "id_str"]))
    values = [*columns.values, *(c for c in catalogue.metadata if c.endswith("_fraction"))]
    make(settings, catalogue, catalogue.tree, prose, values, caption)


def make(
    settings: Simulate | Catalogue | Combine, source: "plan.Source", tree: DecisionTree | None, prose: "Prose",
    values: list[str], caption: str,
) -> None:  # fmt: skip
    from hf_galaxy.data.card_facts import CROISSANT, STATISTICS
    from hf_galaxy.publishing import plan, writer
    from hf_galaxy.publishing.counts import Statistics
    from hf_galaxy.publishing.croissant import croissant
    from hf_galaxy.publishing.dataset_card import CONTACT_SHEET, contact_sheet, write_card

    neighbours = () if isinstance(settings, Simulate) else (settings.drop_duplicates, settings.same_galaxy_arcsec)
    shards, duplicates = plan.plan(source, *neighbours)
    of_rows = f"{source.fingerprint()} {[(str(s.path), s.rows) for s in shards]}"
    with new_folder(settings.out, hashlib.sha256(of_rows.encode()).hexdigest()) as folder:
        writer.write_dataset(source, shards, folder, settings.num_proc)
        counts = Statistics(source.features, tree, values)
        for split, table in writer.batches_of(folder):
            counts.add(split, table)
        notes = [*source.notes]
        if source.positions is not None or duplicates.groups:
            notes.append(str(duplicates))
        if left_out := sum(len(shard.rows) for shard in shards) - sum(counts.galaxies.values()):
            notes.append(f"{left_out:,} galaxies whose picture cannot be read are left out.")
        if isinstance(settings, Catalogue):
            notes.append(settings.rendering.describe(writer.kinds_of_pictures(folder)))
        name, command = settings.push or str(settings.out), _command(settings)
        said = {"license": prose.license, "notes": notes, "arcsec": duplicates.arcsec, "name": name, "command": command}
        statistics = counts.to_dict()
        write_json(folder / STATISTICS, statistics | said)
        names = getattr(source.features[caption], "names", None)
        some = writer.sample(folder, ["id_str", "image", caption], 48)
        some = [row | ({caption: names[row[caption]]} if names else {}) for row in some]
        contact_sheet(some, caption).save(folder / CONTACT_SHEET, quality=90)
        others = [c for c in source.features if not tree or c not in tree.columns]
        of_campaign = {
            campaign: [*others, *(c for q in questions for c in tree.questions[q].columns)]
            for campaign, questions in (tree.campaigns.items() if tree else ())
        }
        configs = writer.configs_of(shards, source.features, of_campaign, folder)
        write_card(folder, prose, tree, statistics, configs, notes, command, name)
        write_json(folder / CROISSANT, croissant(settings.push, prose, configs, date.today()))
    counts = ", ".join(f"{n:,} {split}" for split, n in statistics["galaxies"].items())
    votes = f"; {sum(statistics['votes'].values()):,} votes" if tree else ""
    print(f"{settings.out}: {counts} galaxies{votes}")
    if left_out or duplicates.groups:
        print("\n".join(notes))


def _command(settings):
    """What was typed, without where it is pushed to: that does not change what is published."""
    words = ["python", *sys.argv]
    if settings.push:
        words = [w for i, w in enumerate(words) if not (w.startswith("--push") or (words[i - 1] == "--push"))]
    return shlex.join(words)


def only_card(settings: Card) -> None:
    from hf_galaxy.data.streaming import open_stream
    from hf_galaxy.publishing.counts import Statistics
    from hf_galaxy.publishing.dataset_card import Prose, write_card

    prose = Prose.load(settings.card)
    tree, statistics = load_tree(list(prose.trees)) if prose.trees else None, None
    if settings.dataset:
        splits = open_stream(settings.dataset, settings.config)
        rows = next(iter(splits.values()))
        tree = tree_of_columns(rows.column_names) if prose.trees else None
        counts = Statistics(rows.features, tree, [])
        for split, rows in splits.items():
            for batch in progress(rows.batches(), desc=f"counting {split}"):
                counts.add(split, batch)
        statistics = counts.to_dict()
    with new_folder(settings.out, "card") as folder:
        write_card(
            folder, prose, tree, statistics, name=settings.dataset or next(iter(prose.hub_ids), "path/or/hub-id")
        )
    print(settings.out / "README.md")


def command() -> None:
    """Read the options from the command line, and run."""
    run(Simulate | Catalogue | Combine | Card, main)
