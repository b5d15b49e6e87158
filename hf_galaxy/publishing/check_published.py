"""The check of a dataset by its name: opened, compared with its card and its own statistics, and its other configurations opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets

from hf_galaxy.data.card_facts import STATISTICS, read_statistics
from hf_galaxy.data.streaming import StreamedRows, open_stream
from hf_galaxy.errors import BadInput
from hf_galaxy.publishing.check import Finding, check_dataset


def check_published(dataset: str, config: str | None, tolerance: float, threads: int) -> list[Finding]:
    """Read every row of a configuration once.

    Args:
        dataset: a folder or a Hub id.
        config: the configuration; None: the default one, and the others are only opened.
        tolerance, threads: of `check_dataset`.
    """
    splits, stated = _opened(dataset, config)
    statistics = card = None
    own = Path(dataset) / STATISTICS
    if own.exists() and config in (None, "default"):  # statistics and card are of the default configuration
        card = (own.parent / "README.md").read_text(encoding="utf-8") if (own.parent / "README.md").exists() else ""
        try:
            statistics = read_statistics(own)
        except ValueError:
            statistics = {}  # which agrees with no data
    findings = check_dataset(splits, stated, statistics, card, tolerance, threads)
    if config is None:
        findings += _other_configs(dataset)
    return findings


def _opened(dataset: str, config: str | None) -> tuple[dict[str, StreamedRows], dict[str, int]]:
    """The splits of a configuration, and the number of galaxies of each by the card."""
    splits = open_stream(dataset, config)
    info = datasets.load_dataset_builder(dataset, config).info
    return splits, {str(split): each.num_examples for split, each in (info.splits or {}).items()}


def _other_configs(dataset: str) -> Iterator[Finding]:
    """Whether the other configurations can be opened, and have as many galaxies as the card says."""
    default = datasets.load_dataset_builder(dataset).config.name
    for config in datasets.get_dataset_config_names(dataset):
        if config == default:
            continue
        try:
            splits, stated = _opened(dataset, config)
        except BadInput as error:
            yield Finding("problem", "config", f"{config}: {error}")
            continue
        counted = {split: len(rows) for split, rows in splits.items()}
        if stated and stated != counted:
            yield Finding("problem", "config", f"{config}: the card says {stated} galaxies, but there are {counted}")
        else:
            yield Finding("ok", "config", f"{config} has {sum(counted.values()):,} galaxies")
