"""A source as a published folder, which is uploaded unchanged.

README.md            the card; its YAML lists the configurations
statistics.json      the counts, for the card and for hf-galaxy check
contact_sheet.jpg    some pictures; tree_*.png: the decision trees
data/, tiny/, ...    Parquet files (`writer`)
left_out.csv         the galaxies that are in none of them for their pictures, if there are such
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import DatasetCard

from hf_galaxy.data.band_pictures import remarks_of
from hf_galaxy.data.card_facts import STATISTICS
from hf_galaxy.data.pictures import REMARK
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.files import Share, new_folder, part_of_folder, whole_file, write_json
from hf_galaxy.importing import writer
from hf_galaxy.importing.flux_counts import sentence_on_missing
from hf_galaxy.importing.left_out import write_left_out
from hf_galaxy.importing.plan import AS_IT_WAS, Plan, Shard, Source
from hf_galaxy.publishing.dataset_card import CONTACT_SHEET, Prose, contact_sheet, dataset_card, write_card
from hf_galaxy.publishing.rendering_text import in_words

SHEET_GALAXIES = 48


def publish(
    source: Source, plan: Plan, out: Path, prose: Prose, name: str, command: str, processes: int = 1
) -> dict[str, Any]:
    """Write the folder of a dataset. The same call resumes an interrupted one.

    Args:
        name: the folder or Hub id from which a reader loads the dataset.
        command: the command that publishes it.
        processes: number of processes that make rows; it does not change a byte.

    Returns:
        The content of statistics.json.

    Raises:
        BadInput: as `files.new_folder`; or a row cannot be made.
    """
    with new_folder(out, _fingerprint(source, plan.shards)) as folder:
        counts = writer.write_dataset(source, plan.shards, folder, processes).to_dict()
        write_left_out(source, plan, folder)
        notes = _notes(source, plan, counts, folder)
        statistics = counts | {
            "license": prose.license, "notes": notes, "arcsec": plan.duplicates.arcsec, "name": name, "command": command,
            "rendering": source.rendering and source.rendering.to_dict(),
        }  # fmt: skip
        write_json(folder / STATISTICS, statistics)
        _write_contact_sheet(folder, source)
        configs = _configs(folder, writer.campaigns_of(plan.shards), source.tree)
        write_card(folder, prose, source.tree, statistics, configs, name)
    return statistics


def publish_part(source: Source, plan: Plan, out: Path, share: Share, processes: int = 1) -> int:
    """Write the files of one part of a dataset, for `publish` to finish; parts may be written at the same time.

    Returns:
        The number of its galaxies.

    Raises:
        BadInput: as `files.part_of_folder`; or a row cannot be made.
    """
    with part_of_folder(out, _fingerprint(source, plan.shards), share) as folder:
        return sum(writer.write_shards(source, share.among(plan.shards), folder, processes).galaxies.values())


def load_statistics(folder: Path) -> dict[str, Any]:
    """The content of statistics.json."""
    return json.loads((folder / STATISTICS).read_text(encoding="utf-8"))


def left_out(plan: Plan, statistics: dict[str, Any]) -> int:
    """Number of galaxies whose picture cannot be read."""
    return sum(len(shard.rows) for shard in plan.shards) - sum(statistics["galaxies"].values())


def rename(folder: Path, repo: str, command: str, prose: Prose, tree: DecisionTree | None) -> bool:
    """Write the card of a published folder again, with its name on the Hub.

    Args:
        tree: decision tree of the votes.

    Returns:
        False: the card differs from what `publish` writes, and stays as it is.

    Raises:
        BadInput: another command published the folder.
    """
    statistics = load_statistics(folder)
    if statistics["command"] != command:
        raise BadInput(
            f"{folder} was published by another command ({statistics['command']}); push it with that, or remove it"
        )
    if statistics["name"] == repo:
        return True
    card = folder / "README.md"
    names = [config["config_name"] for config in DatasetCard.load(card).data.configs]
    configs = _configs(folder, [name for name in names if (folder / "data" / name).is_dir()], tree)
    sheet = (folder / CONTACT_SHEET).exists()
    if card.read_text(encoding="utf-8") != dataset_card(prose, tree, statistics, configs, statistics["name"], sheet):
        return False
    with whole_file(card) as partial:
        partial.write_text(dataset_card(prose, tree, statistics, configs, repo, sheet), encoding="utf-8")
    write_json(folder / STATISTICS, statistics | {"name": repo})
    return True


def _fingerprint(source: Source, shards: Sequence[Shard]) -> str:
    digest = hashlib.sha256(source.fingerprint().encode())
    for shard in shards:
        digest.update(f"{shard.path} ".encode() + shard.rows.tobytes())
    return digest.hexdigest()


def _notes(source: Source, plan: Plan, counts: dict[str, Any], folder: Path) -> list[str]:
    """Sentences for the card, on how the files were made."""
    notes = [*source.notes]
    if source.positions is not None or plan.duplicates.groups:
        notes.append(str(plan.duplicates))
    if missing := left_out(plan, counts):
        notes.append(f"{missing:,} galaxies whose picture cannot be read are left out.")
    kinds = writer.kinds_of_pictures(folder)
    if "fluxes" in counts:
        notes.append(sentence_on_missing(counts["fluxes"]))
    notes += remarks_of(kinds)
    if source.rendering is not None and AS_IT_WAS not in kinds:
        notes.append(in_words(source.rendering, {kind for kind in kinds if not kind.startswith(REMARK)}))
    return notes


def _write_contact_sheet(folder: Path, source: Source) -> None:
    rows = writer.sample(folder, ["id_str", "image", source.caption], SHEET_GALAXIES)
    feature = source.features[source.caption]
    if isinstance(feature, datasets.ClassLabel):
        rows = [row | {source.caption: feature.names[row[source.caption]]} for row in rows]
    contact_sheet(rows, source.caption).save(folder / CONTACT_SHEET, quality=90)


def _configs(folder: Path, campaigns: Sequence[str], tree: DecisionTree | None) -> dict[str, writer.Config]:
    """The configuration of a campaign has the columns of its questions, and all columns that are not votes."""
    if tree is None:
        return writer.configs_of(folder, campaigns)
    others = [column for column in writer.features_of(folder) if column not in tree.columns]
    columns = {
        campaign: [*others, *(column for q in questions for column in tree.questions[q].columns)]
        for campaign, questions in tree.campaigns.items()
    }
    return writer.configs_of(folder, campaigns, columns)
