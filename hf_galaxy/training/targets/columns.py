"""A target that is one number, or several, in columns of their own. Legend of shapes: N rows, K columns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import datasets
import numpy as np
import pyarrow as pa
import torch

from hf_galaxy.data.schema import is_text
from hf_galaxy.data.targets import Rows, name_in, tables_of
from hf_galaxy.errors import BadInput
from hf_galaxy.training.targets.target import TrainingTarget

if TYPE_CHECKING:
    from hf_galaxy.models.model import GalaxyConfig
    from hf_galaxy.reports.run_record import RunRecord
    from hf_galaxy.training.settings import Settings


@dataclass(frozen=True)
class ColumnsTarget(TrainingTarget):
    """Columns of numbers, whose names the first of `options` lists; a galaxy may lack some of them, but not all.

    Attributes:
        kind: of the columns, for messages.
        usual: how the names of their likeliest types begin.
    """

    columns: tuple[str, ...]

    kind: ClassVar[str]
    usual: ClassVar[tuple[str, ...]] = ("float",)

    @classmethod
    def of_rows(cls, rows: Rows, columns: Collection[str], dataset: str, **fields: Any) -> Self:
        """The target in these columns.

        Args:
            dataset: for the message.
            fields: further attributes.

        Raises:
            BadInput: none are named, or there is no such column, or it is of another type.
        """
        wrong = [column for column in columns if not cls.is_possible(rows.features.get(column))]
        if wrong or not columns:
            having = [column for column, feature in rows.features.items() if cls.is_possible(feature)]
            dtypes = {column: str(getattr(rows.features[column], "dtype", "")) for column in having}
            # Whole numbers are often votes, above all those of this type.
            having.sort(key=lambda column: (dtypes[column] == "int32", not dtypes[column].startswith(cls.usual)))
            texts = [column for column in wrong if column != "id_str" and is_text(rows.features.get(column))]
            hint = f"{texts[0]!r} holds texts: write it as numbers (pandas.to_numeric); " if texts else ""
            raise BadInput(
                f"--dataset {dataset}: has no {cls.kind} {', '.join(map(repr, wrong)) or f'to learn without --{cls.options[0]}'}; "
                f"{hint}those that it has: {', '.join(having[:20]) or 'none'}{', ...' if len(having) > 20 else ''}"
            )
        return cls(tuple(columns), **fields)

    @classmethod
    def check(cls, settings: Settings) -> None:
        columns = getattr(settings, cls.options[0]) or ()
        if len(set(columns)) < len(columns):
            raise BadInput(f"--{cls.options[0]} {' '.join(columns)}: names a column twice")

    @classmethod
    def of(cls, settings: Settings, splits: dict[str, list[Rows]]) -> Self:
        columns, *fields = (getattr(settings, option) for option in cls.options)
        further = dict(zip(cls.options[1:], fields, strict=True))
        target, *_ = [
            cls.of_rows(rows, columns or (), name, **further)
            for parts in splits.values()
            for rows, name in zip(parts, settings.dataset, strict=True)
        ]
        return target

    @classmethod
    def from_record(cls, record: RunRecord, config: GalaxyConfig) -> Self:
        return cls(tuple(record.dataset[cls.options[0]]))

    @classmethod
    @abstractmethod
    def is_possible(cls, feature: Any) -> bool:
        """Whether a column of this type of `datasets` can be one."""

    @abstractmethod
    def numbers(self, table: pa.Table) -> np.ndarray:
        """(N, K) float64 of some rows, NaN where missing."""

    @abstractmethod
    def combinations(self, numbers: np.ndarray) -> np.ndarray:
        """(N,) int64: the strata of rows with these numbers (N, K)."""

    @abstractmethod
    def mistakes(self, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
        """(N, K) bool, the numbers that cannot be learnt, and the reason."""

    @property
    def name(self) -> str:
        return " or ".join(map(repr, self.columns))

    def columns_of(self, rows: Rows) -> list[str]:
        return list(self.columns)

    def tensors(self, table: pa.Table, features: datasets.Features) -> dict[str, torch.Tensor]:
        return {"labels": torch.from_numpy(self.numbers(table)).float()}

    def strata(self, table: pa.Table, features: datasets.Features) -> np.ndarray:
        return self.combinations(self.numbers(table))

    def labelled(self, rows: Rows, where: str, training: bool = False) -> tuple[Rows, np.ndarray]:
        numbers = self.numbers(rows.select_columns(list(self.columns)).with_format("arrow")[:])
        for wrong, reason in self.mistakes(numbers):
            for row, k in np.argwhere(wrong)[:1].tolist():
                name = name_in(rows, row)
                raise BadInput(f"{where}, {name}, column {self.columns[k]}: {numbers[row, k]:g} {reason}")
        having = np.flatnonzero(~np.isnan(numbers).all(axis=1))
        if not len(having):
            raise BadInput(f"{where}: none of its {len(rows):,} galaxies has {' or '.join(self.columns)}")
        return (rows if len(having) == len(rows) else rows.select(having)), self.combinations(numbers[having])

    def measurable(self, splits: list[Rows], datasets: list[str], split: str, partly: bool = False) -> list[Rows]:
        for rows, name in zip(splits, datasets, strict=True):
            self.of_rows(rows, self.columns, name)
        return [self.having(rows, name, split)[0] for rows, name in zip(splits, datasets, strict=True)]

    def training_numbers(self, train: list[Rows]) -> np.ndarray:
        """(N, K) of all training galaxies."""
        return np.concatenate([self.numbers(table) for rows in train for table in tables_of(rows, self.columns)])

    def description(self) -> dict:
        return {self.options[0]: list(self.columns)}
