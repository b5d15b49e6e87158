"""The datasets of a run: opened, checked for its target, and reduced to the galaxies that its settings choose."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hf_galaxy.data.card_facts import DatasetFacts
from hf_galaxy.data.dataset import rows_of
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.rows import BlockRows
from hf_galaxy.data.splits import in_fold, subset
from hf_galaxy.data.targets import Rows, tables_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset, reading_of_each
from hf_galaxy.randomness import key_of
from hf_galaxy.targets import target_class
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.targets.target import TrainingTarget

logger = logging.getLogger(__name__)
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Sources:
    """Some datasets with one target.

    Attributes:
        facts: from their cards.
        bytes: of the Parquet files of every dataset; None for one that is no folder.
        splits: of each split the rows of every dataset.
        target: the same for all of them.
        strata: of every dataset the strata of its training rows (`Target.strata`); None if nothing needs them.
    """

    facts: list[DatasetFacts]
    bytes: list[int | None]
    splits: dict[str, list[Rows]]
    target: TrainingTarget
    strata: list[np.ndarray] | None

    @property
    def rendering(self) -> dict[str, Any]:
        """The field of a `GalaxyConfig` of that name: how files became the pictures of all datasets.

        None for datasets that differ in it; without the field if none of them states it.
        """
        stated = [facts.rendering for facts in self.facts]
        if not any(stated):
            return {}
        return {"rendering": stated[0] if all(each == stated[0] for each in stated) else None}

    def count(self, split: str) -> int:
        """Galaxies in a split of all datasets together."""
        return sum(map(len, self.splits[split]))


def open_sources(settings: Settings, rendering: Rendering | None = None) -> Sources:
    """Open the datasets of a run, and choose the galaxies that its settings ask for.

    Args:
        rendering: as of `open_dataset`, for a run that is finished.

    Raises:
        BadInput: one cannot be opened, lacks a split or the target, or they do not go together.
    """
    readings = reading_of_each(settings.dataset, settings)
    opened = [
        open_dataset(name, reading, settings.streaming, rendering)
        for name, reading in zip(settings.dataset, readings, strict=True)
    ]
    if settings.fold is not None:
        opened = [in_fold(each, settings.fold, name) for each, name in zip(opened, settings.dataset, strict=True)]
    named = list(zip(settings.dataset, opened, strict=True))
    splits = {split: [rows_of(each, split, name) for name, each in named] for split in SPLITS}
    if settings.leave_out is not None:
        _leave_out(settings, splits)
    facts = [_facts_of(name, next(iter(each.values())), settings.config) for name, each in named]
    target = target_class(settings.task).of(settings, splits)
    if notice := target.notice():
        logger.info(notice)
    strata = []
    for split, parts in splits.items():
        for i, (name, rows) in enumerate(zip(settings.dataset, parts, strict=True)):
            parts[i], own = target.having(rows, name, split, training=split == "train")
            if split == "train" and own is not None:
                strata.append(own)
    if settings.shuffle_targets:
        _shuffle_targets(settings, splits, target, strata)
    if settings.subset < 1:
        chosen = [
            subset(rows, own, settings.subset, settings.seed) for rows, own in zip(splits["train"], strata, strict=True)
        ]
        strata = [own[where] for own, where in zip(strata, chosen, strict=True)]
        splits["train"] = [rows.select(where) for rows, where in zip(splits["train"], chosen, strict=True)]
    sizes = [_bytes_of(next(iter(each.values())).place) for _, each in named]
    sources = Sources(facts, sizes, splits, target, strata or None)
    if "rendering" in sources.rendering and sources.rendering["rendering"] is None:
        logger.info(
            "the datasets differ in how files became their pictures, so the model takes none of it over (%s)",
            "; ".join(f"{name}: {each.rendering or 'unknown'}" for name, each in zip(settings.dataset, facts, strict=True)),
        )  # fmt: skip
    logger.info("galaxies: %s", ", ".join(f"{sources.count(split):,} {split}" for split in SPLITS))
    return sources


def _shuffle_targets(
    settings: Settings, splits: dict[str, list[Rows]], target: TrainingTarget, strata: list[np.ndarray]
) -> None:
    """Give each training and validation galaxy the target of another one of its dataset and split, drawn by the seed.

    Raises:
        BadInput: there is no other one.
    """
    for split in ("train", "validation"):
        for i, rows in enumerate(splits[split]):
            assert isinstance(rows, BlockRows), "the settings refuse streaming"
            if len(rows) == 1:
                raise BadInput(
                    f"--shuffle-targets: split {split} of {settings.dataset[i]} has one galaxy, and no target of another one for it; add galaxies to that split"
                )
            rng = np.random.default_rng(key_of(f"targets {split} {i} {settings.seed}"))
            others = _others(len(rows), rng)
            splits[split][i] = rows.with_columns_of(target.columns_of(rows), others)
            if split == "train" and strata:
                strata[i] = strata[i][others]
    logger.info(
        "a control: each training and validation galaxy has the target of another one; the test galaxies have their own"
    )


def _others(size: int, rng: np.random.Generator) -> np.ndarray:
    """(size,) for each of `size` positions another one; each occurs once. A random order is shifted against itself."""
    order, others = rng.permutation(size), np.empty(size, np.int64)
    others[order] = np.roll(order, rng.integers(1, max(size, 2)))
    return others


def _facts_of(name: str, rows: Rows, config: str | None) -> DatasetFacts:
    """What the card of a dataset states; of one that was imported, its import states the rendering."""
    facts = DatasetFacts.by(name, config)
    return facts if rows.place == name else replace(facts, rendering=DatasetFacts.by(rows.place, config).rendering)


def _bytes_of(place: str) -> int | None:
    """The size of a dataset in a folder, which changes with its pictures."""
    folder = Path(place)
    return sum(file.stat().st_size for file in folder.rglob("*.parquet")) if folder.is_dir() else None


def _leave_out(settings: Settings, splits: dict[str, list[Rows]]) -> None:
    """Remove the galaxies of --leave-out from the training and validation splits."""
    try:  # text: names may begin with zeros, and be "NA"
        table = pd.read_csv(settings.leave_out, usecols=["id_str"], dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"--leave-out {settings.leave_out}: is no CSV file with a column id_str ({error})") from error
    names = table["id_str"].to_numpy()
    for split in ("train", "validation"):
        for i, (name, rows) in enumerate(zip(settings.dataset, splits[split], strict=True)):
            ids = np.concatenate(
                [np.empty(0, object), *(table["id_str"].to_numpy() for table in tables_of(rows, ["id_str"]))]
            )
            kept = np.flatnonzero(~np.isin(ids, names))
            if not len(kept):
                raise BadInput(f"--leave-out {settings.leave_out}: leaves none of split {split} of {name}")
            logger.info(
                f"{len(ids) - len(kept):,} of the {len(ids):,} galaxies of split {split} of {name} are left out"
            )
            splits[split][i] = rows.select(kept)
