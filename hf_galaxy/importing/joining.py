"""A table whose columns, such as redshift and mass, are brought to galaxies: by their names, or by their positions.

Legend: N galaxies, M rows of the table.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from hf_galaxy.data.picture_files import stem_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.column_map import Metadata
from hf_galaxy.importing.column_types import dtype_of, without_missing
from hf_galaxy.importing.guess import DEC_NAMES, RA_NAMES, named_like
from hf_galaxy.importing.join_keys import Keys, arcsec_in, degrees_of, names_in, names_of, positions_in
from hf_galaxy.importing.sky import Matches, match, nearest
from hf_galaxy.importing.tables import read_table
from hf_galaxy.progress import log_once

if TYPE_CHECKING:
    from hf_galaxy.data.targets import Rows
    from hf_galaxy.importing.catalogue_table import CatalogueTable
    from hf_galaxy.importing.reading import Reading

SEPARATION = "separation_arcsec"
SUFFIX = "_joined"  # of a column whose name is there already

logger = logging.getLogger(__name__)


class Brought(NamedTuple):
    """What a table brings to galaxies.

    Attributes:
        columns: (N rows) of the table, null where a galaxy has no row.
        said: how many galaxies have a row, and how near it is.
    """

    columns: pa.Table
    said: str

    def beside(self, taken: Collection[str]) -> pa.Table:
        """The columns with names that are not taken; the log says them, and what is said.

        Raises:
            BadInput: the name that a column would get instead is taken, too.
        """
        names = self.columns.column_names
        new = [name + SUFFIX if name in taken else name for name in names]
        if twice := [name for name in new if name in taken or new.count(name) > 1]:
            raise BadInput(f"--join: there is a column {twice[0]} already; rename that of the table")
        shown = [
            name if name == other else f"{name} (here {other})" for name, other in zip(names[:20], new, strict=False)
        ]
        more = f" and {len(new) - 20} more" if len(new) > 20 else ""
        log_once(logger, f"{self.said}; columns {', '.join(shown)}{more}")
        return self.columns.rename_columns(new)


@dataclass(frozen=True, eq=False)
class JoinedTable:
    """A table to join. `JoinedTable.of` reads it.

    Attributes:
        path: of the table.
        columns: (M rows) what it brings, in types that are guessed from the cells.
        keys: the columns that must be equal; None: positions must be near.
        names: (M,) the names of the rows, "" where they have none, if there are `keys`.
        arcsec: the radius otherwise.
        positions: (M, 2) right ascension and declination in degrees, NaN where there is none.
    """

    path: Path
    columns: pa.Table
    keys: Keys | None
    names: pd.Series
    arcsec: float
    positions: np.ndarray

    @classmethod
    def of(cls, reading: Reading) -> JoinedTable | None:
        """Read the table of --join; None: there is none.

        Raises:
            BadInput: the options do not go together; or the table cannot be read, has no such column, a name twice, or a position
                that is none.
        """
        if reading.join is None:
            if given := [f"--{name.replace('_', '-')}" for name in ("on", "on_sky") if getattr(reading, name)]:
                raise BadInput(f"{given[0]}: is for a table; name it with --join")
            return None
        path = reading.join
        if (reading.on is None) == (reading.on_sky is None):
            raise BadInput(
                f"--join {path}: give one of --on (such as --on id_str) and --on-sky (such as --on-sky 1arcsec)"
            )
        keys = None if reading.on is None else Keys.parse(reading.on)
        arcsec = 0.0 if reading.on_sky is None else arcsec_in(reading.on_sky)
        table = read_table(path, "--join")
        names, positions = pd.Series(dtype=str), np.empty((0, 2))
        if keys:
            names = names_in(table, keys)
        else:
            positions = positions_in(table)
        columns = _typed(table, {keys.theirs} if keys else set())
        return cls(path, columns, keys, names, arcsec, positions)

    def needed(self, columns: Collection[str], galaxies: str) -> list[str]:
        """The columns of galaxies that tell which row is theirs: their key, or right ascension and declination.

        Args:
            columns: that the galaxies have.
            galaxies: their name, for messages.

        Raises:
            BadInput: they do not have them.
        """
        if self.keys:
            if self.keys.ours in columns:
                return [self.keys.ours]
            remedy = (
                f"; --on id_str={self.keys.theirs} compares their names" if self.keys.ours == self.keys.theirs else ""
            )
            raise BadInput(
                f"--on {self.keys.ours}: {galaxies} has no such column, only {', '.join([*columns][:20])}{remedy}"
            )
        found = [named_like(columns, names) for names in (RA_NAMES, DEC_NAMES)]
        if None in found:
            raise BadInput(
                f"--on-sky: the positions of {galaxies} are unknown, as it has no columns ra and dec in degrees; join by name (--on "
                "id_str=COLUMN), or name a table of the galaxies with their positions as --dataset"
            )
        return [column for column in found if column]

    def bring(self, galaxies: pa.Table, name: str) -> Brought:
        """What it brings to some galaxies.

        Args:
            galaxies: (N rows) the columns of `needed`.
            name: of the galaxies, for messages.

        Raises:
            BadInput: none of them is in the table; or their key holds no names, or their positions no numbers.
        """
        if self.keys:
            return self._by_name(names_of(galaxies[self.keys.ours], self.keys.ours, name), name)
        columns = [
            degrees_of(values, column, name)
            for column, values in zip(galaxies.column_names, galaxies.columns, strict=True)
        ]
        return self._by_position(np.stack(columns, axis=1), name)

    def bring_to_splits(self, opened: dict[str, Rows], name: str) -> Brought:
        """What it brings to the galaxies of all splits of a dataset together, in their order; raises as `needed` and `bring`."""
        columns = self.needed(next(iter(opened.values())).column_names, name)
        parts = [rows.select_columns(columns).with_format("arrow")[:] for rows in opened.values()]
        return self.bring(pa.concat_tables([part.select(columns).replace_schema_metadata() for part in parts]), name)

    def bring_to_files(self, ids: Sequence[str], name: str) -> Brought:
        """What it brings to pictures that are known by the names of their files alone.

        Their rows have the name of the file in the folder, or that without folders and suffix, such as J0931 for north/J0931.jpg.

        Raises:
            BadInput: as `needed` and `bring`.
        """
        self.needed(["id_str"], name)
        stems = list(map(stem_of, ids))
        names = self._indexed.index
        if not names.isin(ids).any() and names.isin(stems).any() and len(set(stems)) == len(stems):
            ids = stems
        return self._by_name(pd.Series(list(ids), dtype=str), name)

    @property
    def _indexed(self) -> pd.Series:
        """The rows with a name, by their names."""
        known = np.flatnonzero(self.names != "")
        return pd.Series(known, index=pd.Index(self.names.iloc[known]))

    def _by_name(self, ours: pd.Series, name: str) -> Brought:
        assert self.keys
        rows = self._indexed.reindex(ours, fill_value=-1).to_numpy()
        if not (rows >= 0).any():
            example = next((each for each in ours if each), "")
            raise BadInput(
                f"--join {self.path}: none of the {len(ours):,} galaxies of {name} is in it; their {self.keys.ours} is like {example!r}, "
                f"its {self.keys.theirs} like {self.names.iloc[0]!r}; compare other columns with --on OURS=THEIRS"
            )
        said = f"{self._counted(rows, name)} by {self.keys.ours}"
        if unnamed := int((self.names == "").sum()):
            said += f"; {unnamed:,} rows have no {self.keys.theirs}"
        return Brought(self._taken(rows), said)

    def _by_position(self, positions: np.ndarray, name: str) -> Brought:
        found = match(positions, self.positions, self.arcsec)
        if not (found.rows >= 0).any():
            distance = nearest(positions, self.positions)
            reason = "all positions are missing" if distance is None else f"the nearest is {_angle(distance)} away"
            raise BadInput(
                f"--join {self.path}: none of the {len(positions):,} galaxies of {name} has a row within {_angle(self.arcsec)}; {reason}"
            )
        columns = self._taken(found.rows)
        separations = pa.array(found.arcsec, pa.float32(), from_pandas=True)
        column = SEPARATION if SEPARATION not in columns.column_names else SEPARATION + SUFFIX
        said = (
            f"{self._counted(found.rows, name)} on the sky within {_angle(self.arcsec)}; {_described(found, positions)}"
        )
        return Brought(columns.append_column(column, separations), said)

    def _taken(self, rows: np.ndarray) -> pa.Table:
        return self.columns.take(pa.array(rows, mask=rows < 0))

    def _counted(self, rows: np.ndarray, name: str) -> str:
        return f"{self.path}: {(rows >= 0).sum():,} of {len(rows):,} galaxies of {name} matched"


def with_joined(opened: dict[str, Rows], table: JoinedTable, name: str) -> dict[str, Rows]:
    """The splits of a dataset with the columns of a table.

    Args:
        name: of the dataset, for messages.

    Raises:
        BadInput: as `needed` and `bring`.
    """
    columns = table.bring_to_splits(opened, name).beside(next(iter(opened.values())).column_names)
    joined, start = {}, 0
    for split, rows in opened.items():
        joined[split] = rows.joined_with(columns.slice(start, len(rows)))  # type: ignore[union-attr]  # never a datasets.Dataset
        start += len(rows)
    return {**joined}


def _described(found: Matches, positions: np.ndarray) -> str:
    """How near the matches are, and how sure."""
    separations = found.arcsec[found.rows >= 0]
    median, most = np.percentile(separations, [50, 95])
    parts = [f"median separation {_angle(median)}, 95 % within {_angle(most)}"]
    if found.ambiguous:
        parts.append(f"{found.ambiguous:,} had several candidates, the nearest was taken")
    if found.nearer:
        parts.append(f"{found.nearer:,} have none, as their nearest row is nearer to another galaxy")
    if unknown := int((~np.isfinite(positions)).any(axis=1).sum()):
        parts.append(f"{unknown:,} have no position")
    chance = found.by_chance
    shown = "fewer than 0.1" if chance < 0.05 else f"{chance:.1f}" if chance < 10 else f"{chance:,.0f}"
    parts.append(f"expected chance matches {shown}")
    return "; ".join(parts)


def _angle(arcsec: float) -> str:
    """In two digits, and in a unit of its size."""
    if arcsec >= 3600:
        return f"{arcsec / 3600:.2g} deg"
    return f"{arcsec / 60:.2g}'" if arcsec >= 120 else f'{max(arcsec, 0.001):.2g}"'


def _typed(table: CatalogueTable, keys: Collection[str]) -> pa.Table:
    """The columns of a table but for its keys, in the types of their cells; empty cells are null."""
    positions = {named_like(table.cells.columns, names) for names in (RA_NAMES, DEC_NAMES)}
    arrays = {}
    for column in table.cells.columns:
        if column in keys:
            continue
        cells = without_missing(table[column])
        dtype = dtype_of(cells)
        if column in positions and dtype in ("float32", "int64"):
            dtype = "float64"
        if dtype == "string":
            arrays[column] = pa.array(table[column].where(table[column] != "", None), pa.string())
        else:
            kept = type(table)(table.path, cells.to_frame(column), table.rows)
            arrays[column] = kept.metadata(Metadata(column, dtype))
    if not arrays:
        raise BadInput(f"--join {table.path}: has no further column to bring")
    return pa.table(arrays)
