"""Imported datasets: whatever holds galaxies, as Parquet files in the cache of the datasets library.

The files are those that `hf-galaxy publish` would write of the same rows, in the same splits and order, so that a model learns the
same from both. They are made once: their folder is named after a digest of all that they depend on.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import yaml

from hf_galaxy.cores import available_cores
from hf_galaxy.data.band_pictures import remarks_of
from hf_galaxy.data.dataset import open_published
from hf_galaxy.errors import CACHE_ELSEWHERE, BadInput, unwritable
from hf_galaxy.files import new_folder, tidy
from hf_galaxy.importing.duplicates import SAME_GALAXY_ARCSEC
from hf_galaxy.importing.first_of import first_of
from hf_galaxy.importing.flux_counts import sentence_on_missing
from hf_galaxy.importing.left_out import FILE, write_left_out
from hf_galaxy.importing.plan import Plan, Source, plan
from hf_galaxy.importing.writer import kinds_of_pictures, write_shards
from hf_galaxy.locks import locked

if TYPE_CHECKING:
    from hf_galaxy.data.targets import Rows

logger = logging.getLogger(__name__)
CACHE, DIGITS = "hf_galaxy", 16  # the folder of imports, and how many digits of the digest end their names
CARD = "README.md"
LINE = "---\n"  # before and after the YAML of the card


def open_imported(
    source: Source,
    name: str,
    splits: Sequence[str] | None = None,
    streaming: bool = False,
    arcsec: float = SAME_GALAXY_ARCSEC,
) -> dict[str, Rows]:
    """The splits of a source, imported first if need be.

    Args:
        source: rows to import.
        name: of the dataset, for messages.
        splits: the split of each row; None: a hash of its name decides.
        arcsec: rows closer than this in the sky are then in one split.

    Raises:
        BadInput: a row cannot be made, the field is too crowded (`plan.plan`), or the cache cannot be written.
    """
    opened = open_published(str(import_source(source, name, splits, arcsec)), streaming=streaming)
    return {split: rows.named(name) for split, rows in opened.items()}  # type: ignore[union-attr]  # never a datasets.Dataset


def import_source(
    source: Source, name: str, splits: Sequence[str] | None = None, arcsec: float = SAME_GALAXY_ARCSEC
) -> Path:
    """The folder in the cache with the rows of a source; several processes may call it at the same time, and one writes.

    Raises:
        BadInput: as `open_imported`.
    """
    if not 0 <= arcsec < math.inf:
        raise BadInput(f"--same-galaxy-arcsec {arcsec:g}: is no angle")
    depends_on = f"{source.fingerprint()} {None if splits is None else list(splits)} {arcsec:g}"
    digest = hashlib.sha256(depends_on.encode()).hexdigest()
    readable = re.sub(r"[^\w.=-]+", "_", Path(name).name)[:60].strip("._-") or "dataset"
    folder = Path(datasets.config.HF_DATASETS_CACHE) / CACHE / f"{readable}-{digest[:DIGITS]}"
    if not folder.exists():
        _write_once(source, name, splits, arcsec, folder, digest)
        logger.info("%s: imported, into %s", name, folder)
    elif (left := _lock_of(folder)).exists():
        # Of a process that was killed when it had all but ended, or of one that is about to remove it.
        with contextlib.suppress(OSError), locked(left):
            tidy(folder)
    text = (folder / CARD).read_text(encoding="utf-8")
    about = yaml.safe_load(text.removeprefix(LINE).removesuffix(LINE))
    for note in about["notes"]:
        logger.info("%s: %s", name, note)
    for warning in about["warnings"]:
        logger.warning("%s: %s", name, warning)
    return folder


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.import")


def is_lost(name: str) -> bool:
    """Whether a name is that of an import that is not there any more."""
    path = Path(name)
    is_import = path.parent.name == CACHE and re.fullmatch(rf".+-[0-9a-f]{{{DIGITS}}}", path.name)
    return bool(is_import) and not path.exists()


def _write_once(
    source: Source, name: str, splits: Sequence[str] | None, arcsec: float, folder: Path, digest: str
) -> None:
    """Write an import, unless another process does so meanwhile."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(_lock_of(folder)):
            if not folder.exists():
                _write(
                    source,
                    _planned(source, name, splits, arcsec),
                    folder,
                    digest,
                    Path(name).name,
                    given=splits is not None,
                )
    except OSError as error:
        raise unwritable(f"{name}: its import", error, CACHE_ELSEWHERE) from error


def _planned(source: Source, name: str, splits: Sequence[str] | None, arcsec: float) -> Plan:
    try:
        return plan(source, splits=splits, arcsec=arcsec)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error


def _write(source: Source, planned: Plan, folder: Path, digest: str, name: str, given: bool) -> None:
    with new_folder(folder, digest) as partial:
        counts = write_shards(source, planned.shards, partial, len(available_cores()))
        notes = [*source.notes]
        rows = sum(len(shard.rows) for shard in planned.shards)
        lost = write_left_out(source, planned, partial)
        if unread := rows - sum(counts.galaxies.values()):
            if unread == rows:
                raise BadInput(
                    f"{name}: none of its {rows:,} pictures can be read, such as {lost[-1].id_str}: {lost[-1].reason}"
                )
            names = first_of([each.id_str for each in lost[-unread:]])
            notes.append(f"the pictures of {unread:,} of {rows:,} galaxies cannot be read, and are left out: {names}.")
        if lost:
            notes.append(f"{folder / FILE} lists the {len(lost):,} galaxies that are left out, with the reasons.")
        if planned.duplicates.groups and not given:
            notes.append(
                f"{planned.duplicates.rows:,} rows show {planned.duplicates.groups:,} galaxies several times (the same name, picture or "
                "place in the sky); all rows of a galaxy are in one split."
            )
        if counts.fluxes is not None:
            notes.append(sentence_on_missing(counts.fluxes.to_dict()))
        notes += remarks_of(kinds_of_pictures(partial))
        files = {}
        for shard in planned.shards:
            files.setdefault(shard.split, []).append(shard.path.as_posix())
        about = {
            "pretty_name": name,
            "configs": [
                {
                    "config_name": "default",
                    "data_files": [{"split": split, "path": paths} for split, paths in files.items()],
                }
            ],
            "rendering": source.rendering and source.rendering.to_dict(),
            "notes": notes,
            "warnings": _warnings(planned),
        }
        text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
        (partial / CARD).write_text(f"{LINE}{text}{LINE}", encoding="utf-8")


def _warnings(planned: Plan) -> list[str]:
    if not (both := planned.duplicates.in_train_too):
        return []
    return [
        f"{both:,} rows of other splits show a galaxy that is in split train too (the same name, picture or place in the sky): results "
        "on them are too good"
    ]
