"""The positions of galaxies in the sky, among columns of any names. Legend: N rows of all splits, in their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_galaxy.importing.guess import DEC_NAMES, RA_NAMES, named_like
from hf_galaxy.importing.row_columns import Kept
from hf_galaxy.importing.row_values import arrays_of


def position_columns(columns: Mapping[str, Kept]) -> list[Kept]:
    """The columns of right ascension and declination in degrees; none if one of them is not there, or holds no numbers."""
    numbers = [column for column, each in columns.items() if _is_number(each.feature)]
    named = [named_like(numbers, names) for names in (RA_NAMES, DEC_NAMES)]
    return [columns[column] for column in named if column is not None] if all(named) else []


def positions_in(parts: Iterable[datasets.Dataset], sky: list[Kept]) -> np.ndarray:
    """(N, 2) right ascension, of columns from 0 to 360 or from -180 to 180, as 0 to 360, and declination in degrees, NaN where a row has none.

    Args:
        sky: as of `position_columns`.
    """
    parts = list(parts)
    columns = [[array for part in parts for array in arrays_of(part, *each.path)] for each in sky]
    ra, dec = (
        np.concatenate([array.cast(pa.float64()).to_numpy(zero_copy_only=False) for array in arrays])
        for arrays in columns
    )
    # Beside values beyond 180, negative ones stand for unknown positions, as -1 and -99 do.
    known = (ra >= (-180 if np.nanmax(ra, initial=0) <= 180 else 0)) & (ra <= 360) & (np.abs(dec) <= 90)
    return np.where(known[:, None], np.stack([ra % 360, dec], axis=1), np.nan)


def _is_number(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("float", "int", "uint"))
