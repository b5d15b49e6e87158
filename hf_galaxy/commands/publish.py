"""Publish galaxies as a dataset for `datasets.load_dataset`, and with --push on the Hub.

    hf-galaxy publish simulate --galaxies 800 --out data/mock
    hf-galaxy publish catalogue --images DIR_OR_ZIP --catalogue votes.csv --tree gz_jwst_ceers \
        --columns dataset_cards/gz_jwst_ceers/columns.json --card dataset_cards/gz_jwst_ceers/card.md --out data/ceers
    hf-galaxy publish combine --parts data/gz2 data/gz_decals_dr5 --card dataset_cards/gz_evo/card.md \
        --out data/gz_evo
    hf-galaxy publish card --card dataset_cards/gz2/card.md --dataset mwalmsley/gz2 --out cards/gz2

The same command resumes an interrupted publication.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import tyro

from hf_galaxy.command_line import Command, DatasetConfig, OutputPath, PushTo, typed
from hf_galaxy.cores import available_cores, check_processes
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.decision_tree import DecisionTree, load_tree, tree_of_columns
from hf_galaxy.errors import BadInput, unwritable
from hf_galaxy.files import Share, check_new, new_folder, only_writer_of
from hf_galaxy.importing.duplicates import SAME_GALAXY_ARCSEC
from hf_galaxy.progress import progress

if TYPE_CHECKING:
    from hf_galaxy.importing.catalogues import Catalogue as CatalogueSource
    from hf_galaxy.importing.plan import Plan, Source
    from hf_galaxy.publishing.dataset_card import Prose

PUSH = ("--push", "--push-to-hub")


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Options of every publication."""

    out: OutputPath
    """Folder to write."""
    num_proc: int = len(available_cores())
    """Number of processes that make rows; it does not change the files."""
    part: str | None = None
    """Write only a part of the files, such as 3/16, the third of sixteen: several machines that share the folder of --out write parts at the same time. Afterwards the same command without --part finishes the dataset."""
    push: PushTo = None
    """Upload the folder to the Hub as ORG/NAME; --out may be a folder that the same command has published before."""


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Options for galaxies that are close to each other in the sky."""

    drop_duplicates: bool = False
    """Keep only the galaxy with the most votes of those closer than --same-galaxy-arcsec, instead of all in one split."""
    same_galaxy_arcsec: float = SAME_GALAXY_ARCSEC
    """Galaxies closer than this in the sky are in one split; a deep field needs a smaller number."""


@dataclass(frozen=True, kw_only=True)
class Simulate(Publish):
    """Publish a mock survey of two mock campaigns: simulated galaxies and simulated votes. No galaxy in it is real."""

    galaxies: int = 800
    """Number of galaxies."""
    seed: int = 0
    """Random seed; the same seed gives the same galaxies and votes, and a larger survey begins with the smaller one."""
    size: int = 96
    """Side of the pictures in pixels."""


@dataclass(frozen=True, kw_only=True)
class Catalogue(Neighbours, Publish):
    """Publish a catalogue and its pictures. Every row is checked before the first picture is read."""

    images: tuple[Path, ...]
    """Folders or zip files of pictures: JPEG, PNG, WebP, TIFF, GIF, BMP or FITS."""
    catalogue: Path
    """Table with a row for each galaxy: CSV (with commas, semicolons or tabs; also .gz), Parquet, FITS, ECSV or VOTable."""
    columns: Path | None = None
    """JSON file with the columns of the catalogue, like dataset_cards/*/columns.json; without it the columns are id_str, image and those of the tree, or a file is proposed."""
    tree: str | None = None
    """Campaign of the votes in the catalogue; leave it out if there are no votes."""
    card: Path | None = None
    """Text of the dataset card, like dataset_cards/*/card.md: title, licence, provenance, known problems."""
    bands: tuple[str, ...] | None = None
    """Publish fluxes in these bands, such as g r i z, as floats in a column `flux`, beside a preview in `image`: up to 8 names, in the order of the planes in a file, or as its extensions are called. Files may also be npy, npz, HDF5 or safetensors; {band} in a name is for files of one band each."""
    rendering: Annotated[Rendering, tyro.conf.arg(name="")] = field(default_factory=Rendering)
    """How files become pictures."""
    native: bool = False
    """With --size or --crop, also keep the whole pictures at their original size, in a configuration `native`."""
    volunteers: int | None = None
    """For a catalogue of fractions without the number of volunteers of each galaxy: assume this number, to have votes to train on."""
    skip_missing: bool = False
    """Leave out galaxies without a picture instead of refusing the catalogue."""
    skip_bad_pictures: bool = False
    """Leave out galaxies whose picture cannot be read instead of stopping at the first; the card has their number."""
    allow_inconsistent_votes: bool = False
    """Publish even if some questions have more or fewer votes than the answers that lead to them."""


@dataclass(frozen=True, kw_only=True)
class Combine(Neighbours, Publish):
    """Join published datasets with votes, with a configuration for each campaign."""

    parts: tuple[Path, ...]
    """Folders of the datasets."""
    card: Path | None = None
    """Text of the dataset card, like dataset_cards/*/card.md."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Write the card of a dataset that is elsewhere, with the statistics of its data where they can be read."""

    card: Path
    """Text of the dataset card, like dataset_cards/*/card.md."""
    out: OutputPath
    """Folder to write, for README.md and its figures."""
    dataset: str | None = None
    """Folder or Hub id of the data; without it the card has `not measured` instead of numbers."""
    config: DatasetConfig = None
    """Configuration of the dataset; the default one if not given."""


def main(settings: Simulate | Catalogue | Combine | Card) -> None:
    """Publish, and push."""
    from hf_galaxy.data.card_facts import STATISTICS
    from hf_galaxy.publishing import hub

    if isinstance(settings, Card):
        return write_card(settings)
    check_processes("--num-proc", settings.num_proc)
    if settings.part and settings.push:
        raise BadInput("--part: writes a part of the files; --push is for the command without it, which finishes them")
    if settings.push:
        hub.check_repo_name(settings.push)
    if settings.push and (settings.out / STATISTICS).exists():
        print(f"{settings.out} is published already; uploading it")
    else:
        check_new(settings.out)
        publish(settings)
    if settings.push:
        try:
            with only_writer_of(settings.out):  # another push may write another name into the card
                rename(settings, settings.push)
                print(f"pushed to {hub.push(settings.out, settings.push)}")
        except OSError as error:
            raise unwritable(settings.out, error) from error


def publish(settings: Simulate | Catalogue | Combine) -> None:
    """Write the folder, and print its numbers."""
    from hf_galaxy.importing.left_out import FILE
    from hf_galaxy.importing.plan import plan
    from hf_galaxy.publishing import publication
    from hf_galaxy.publishing.combine import Combined

    share = Share.parse(settings.part) if settings.part else None
    source: Source
    if isinstance(settings, Simulate):
        source, planned = mock_survey(settings)
    else:
        source = Combined.read(settings.parts) if isinstance(settings, Combine) else catalogue(settings)
        planned = plan(source, settings.drop_duplicates, settings.same_galaxy_arcsec)
    if share:
        galaxies = publication.publish_part(source, planned, settings.out, share, settings.num_proc)
        print(
            f"{settings.out}: the {galaxies:,} galaxies of part {settings.part} are written; once all parts are, the same command "
            "without --part finishes the dataset"
        )
        return
    prose = prose_of(settings, source.license if isinstance(source, Combined) else "unknown")
    name = settings.push or str(settings.out)
    statistics = publication.publish(
        source, planned, settings.out, prose, name, without_push(typed()), settings.num_proc
    )
    counts = ", ".join(f"{n:,} {split}" for split, n in statistics["galaxies"].items())
    votes = f"; {sum(statistics['votes'].values()):,} votes" if source.tree else ""
    print(f"{settings.out}: {counts} galaxies{votes}")
    if publication.left_out(planned, statistics) or planned.duplicates.groups or "fluxes" in statistics:
        print("\n".join(statistics["notes"]))
    if (settings.out / FILE).exists():
        print(f"{settings.out / FILE} lists the galaxies that are left out for their pictures, with the reasons")


def mock_survey(settings: Simulate) -> tuple[Source, Plan]:
    """The mock survey, and its files; its galaxies have no positions, and so no neighbours."""
    from hf_galaxy.importing.plan import plan
    from hf_galaxy.publishing.simulate import MockSurvey

    if not 1 <= settings.galaxies <= 100_000_000 or not 16 <= settings.size <= 4096 or settings.seed < 0:
        raise BadInput("--galaxies must be from 1 to 100,000,000, --size from 16 to 4096, --seed not negative")
    survey = MockSurvey(settings.galaxies, settings.seed, settings.size)
    return survey, plan(survey)


def catalogue(settings: Catalogue) -> CatalogueSource:
    """The catalogue, checked."""
    from hf_galaxy.data.band_names import check_bands
    from hf_galaxy.data.picture_files import FilesOfBands, PictureFiles, Pictures
    from hf_galaxy.importing import catalogues
    from hf_galaxy.importing.column_map import ColumnMap
    from hf_galaxy.importing.proposal import is_standard

    settings.rendering.check()
    if settings.bands is not None:
        check_bands(settings.bands)
        if settings.native:
            raise BadInput("--native keeps 8-bit pictures at their original size; leave it out with --bands")
    if settings.columns is None and not is_standard(settings.catalogue):
        propose(settings)
    columns = ColumnMap.load(settings.columns) if settings.columns else ColumnMap()
    tree = load_tree(settings.tree) if settings.tree else None
    if (columns.votes or columns.fractions) and not tree:
        raise BadInput(f"--columns {settings.columns}: has columns of votes; name their campaign with --tree")
    if settings.volunteers is not None and (settings.volunteers < 1 or not columns.fractions):
        raise BadInput("--volunteers is a number of people, for a column map with fractions")
    if settings.native and settings.rendering.size is None and settings.rendering.crop == 1:
        raise BadInput("--native needs --size or --crop: without them all pictures have their original size")
    prose_of(settings)  # refused before the catalogue is read
    options = catalogues.CatalogueOptions(
        settings.rendering, settings.native, settings.volunteers, settings.skip_missing, settings.skip_bad_pictures,
        settings.bands,
    )  # fmt: skip
    pictures: PictureFiles = Pictures(list(settings.images))
    pictures = FilesOfBands(pictures) if settings.bands else pictures
    source = catalogues.Catalogue.read(settings.catalogue, pictures, columns, tree, options)
    # Votes made of fractions are consistent with the tree only as far as the fractions are.
    check_votes = not columns.fractions and not settings.allow_inconsistent_votes
    if check_votes and (line := next(source.inconsistencies(), None)):
        raise BadInput(f"{line}; correct --columns, or add --allow-inconsistent-votes and let the card say how often")
    return source


def propose(settings: Catalogue) -> NoReturn:
    """Write a column map for a catalogue whose columns are not those of datasets, and end: its names and labels are there for good.

    Raises:
        BadInput: always; it names the file, and the command that uses it.
    """
    from hf_galaxy.importing.proposal import Proposal

    proposal = Proposal.of(settings.catalogue, settings.images, settings.tree, settings.bands)
    file = settings.out.with_name(f"{settings.catalogue.name}.columns.json")
    proposal.write(file)
    print(proposal.sentence)
    tree = [] if settings.tree or not proposal.tree else ["--tree", proposal.tree]
    command = " ".join([typed(), shlex.join(["--columns", str(file), *tree])])
    raise BadInput(
        f"--catalogue {settings.catalogue}: has no columns id_str and image; {file} proposes what its columns are: look at it, edit it, and "
        f"publish with {command}"
    )


def prose_of(settings: Simulate | Catalogue | Combine, license: str = "unknown") -> Prose:
    """The text of the card; without one, the name of the folder and the license."""
    from hf_galaxy.publishing.dataset_card import Prose

    if isinstance(settings, Simulate):
        from hf_galaxy.publishing.simulate import CARD

        return Prose.load(CARD)
    return Prose.load(settings.card) if settings.card else Prose(title=settings.out.name, license=license)


def rename(settings: Simulate | Catalogue | Combine, repo: str) -> None:
    """Write the name on the Hub into the card of a published folder."""
    from hf_galaxy.publishing import publication

    statistics = publication.load_statistics(settings.out)
    prose, tree = prose_of(settings, statistics["license"]), tree_of(settings, statistics["votes"])
    if not publication.rename(settings.out, repo, without_push(typed()), prose, tree):
        print(f"{settings.out / 'README.md'} is not what this command writes now, and stays as it is")


def tree_of(settings: Simulate | Catalogue | Combine, columns: Collection[str]) -> DecisionTree | None:
    """The decision tree of the published votes, which have these columns."""
    if not columns:
        return None
    if isinstance(settings, Catalogue) and settings.tree:
        return load_tree(settings.tree).held_by(columns)
    return tree_of_columns(list(columns))


def without_push(line: str) -> str:
    """The command line without --push, which does not change the files."""
    words = shlex.split(line)
    return shlex.join(
        w for i, w in enumerate(words) if not (w.startswith("--push") or words[i - 1].replace("_", "-") in PUSH)
    )


def write_card(settings: Card) -> None:
    """Write the card of a dataset that is elsewhere."""
    from hf_galaxy.publishing import dataset_card

    prose = dataset_card.Prose.load(settings.card)
    tree = load_tree(list(prose.trees)) if prose.trees else None
    statistics = None
    if settings.dataset:
        tree, statistics = count(settings.dataset, settings.config, bool(prose.trees))
    with new_folder(settings.out, "card") as folder:
        name = settings.dataset or next(iter(prose.hub_ids), "path/or/hub-id")
        dataset_card.write_card(folder, prose, tree, statistics, name=name)
    print(settings.out / "README.md")


def count(dataset: str, config: str | None, has_votes: bool) -> tuple[DecisionTree | None, dict[str, Any]]:
    """The decision tree of a published dataset, and its statistics."""
    from hf_galaxy.data.streaming import open_stream
    from hf_galaxy.importing.counts import Statistics

    splits = open_stream(dataset, config)
    rows = next(iter(splits.values()))
    tree = tree_of_columns(rows.column_names) if has_votes else None
    counts = Statistics(rows.features, tree)
    for split, rows in splits.items():
        for batch in progress(rows.batches(), desc=f"counting {split}"):
            counts.add(split, batch)
    return tree, counts.to_dict()


command = Command(Simulate | Catalogue | Combine | Card, main)

if __name__ == "__main__":
    command()
