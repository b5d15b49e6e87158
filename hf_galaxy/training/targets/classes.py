"""The target class: one of several classes of a label column. Legend of shapes: N rows, C classes."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from transformers.modeling_outputs import ImageClassifierOutput

from hf_galaxy.data.targets import Rows, name_in
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.class_metrics import ClassMetrics
from hf_galaxy.models.calibration_fit import FittedCalibration, fit_classes
from hf_galaxy.models.model import GalaxyConfig, GalaxyForImageClassification
from hf_galaxy.training.targets.class_column import (
    TEXT,
    class_columns,
    class_texts,
    in_order,
    is_bool,
    is_number,
    may_hold_classes,
)
from hf_galaxy.training.targets.target import Before, TrainingTarget

if TYPE_CHECKING:
    from hf_galaxy.reports.run_record import RunRecord
    from hf_galaxy.training.settings import Settings

logger = logging.getLogger(__name__)

MOST = 1_000  # classes
FEW = 20  # so many different texts or numbers may be classes, however few galaxies there are


@dataclass(frozen=True)
class Classes(TrainingTarget):
    """A column of classes, and the names of the classes in the order of their indices.

    Attributes:
        positive: the class of the column that a binary label is 1 for; None: every class of the column is a class.
    """

    column: str
    names: tuple[str, ...]
    positive: str | None = None

    is_calibrated: ClassVar = True
    options: ClassVar = ("label",)
    loss_options: ClassVar = ("label_smoothing", "class_weights", "mixup", "cutmix")

    @classmethod
    def inferred_options(cls, options: Mapping[str, Any], rows: Callable[[], Rows]) -> dict[str, Any]:
        """The only column of classes."""
        if options.get("label"):
            return {}
        if len(columns := label_columns(rows())) != 1:
            raise BadInput(f"give its label column; its dataset has {', '.join(columns) or 'no column of classes'}")
        return {"label": columns[0]}

    @classmethod
    def rarest(cls, options: Mapping[str, Any], rows: Callable[[], Rows]) -> float:
        opened = rows()
        label = cls.of_rows(opened, options["label"], "of the task")
        _, indices = label.labelled(opened, "the dataset of the task")
        return np.bincount(indices, minlength=len(label.names)).min() / len(indices)

    @classmethod
    def parse(cls, option: str, class_names: Collection[str]) -> Self:
        """Parse `--label COLUMN` or `COLUMN=CLASS`. The second form gives a binary label: 1 for CLASS, 0 for "not CLASS".

        So two binary heads have no name in common that means different things.

        Args:
            class_names: those of the column, or of a run.
        """
        column, equals, positive = option.partition("=")
        return cls(column, (f"not {positive}", positive), positive) if equals else cls(column, tuple(class_names))

    @classmethod
    def of_rows(cls, rows: Rows, option: str, dataset: str) -> Self:
        """The classes of a label column: those of a ClassLabel, or the different texts, whole numbers or bools in it, sorted.

        Args:
            option: a column such as `summary` of mwalmsley/gz_evo, where an empty text is a missing label; or `summary=round`.
            dataset: for the message.

        Raises:
            BadInput: no such column, it holds no classes, fewer than two, more than MOST, or not the one that is named.
        """
        names = _classes_in(rows, cls.parse(option, ()).column, dataset)
        label = cls.parse(option, names)
        label._check_positive(names, f"--dataset {dataset}: ")
        return label

    @classmethod
    def of(cls, settings: Settings, splits: dict[str, list[Rows]]) -> Self:
        first, *others = [
            cls.of_rows(rows, settings.label or "", name)
            for rows, name in zip(splits["train"], settings.dataset, strict=True)
        ]
        for name, other in zip(settings.dataset[1:], others, strict=True):
            if other.names != first.names:
                raise BadInput(
                    f"--dataset {name}: has the classes {', '.join(other.names)}, {settings.dataset[0]} has "
                    f"{', '.join(first.names)}"
                )
        return first

    @classmethod
    def from_record(cls, record: RunRecord, config: GalaxyConfig) -> Self:
        return cls.parse(record.settings["label"], record.dataset["classes"])

    @property
    def name(self) -> str:
        return repr(self.column)

    def columns_of(self, rows: Rows) -> list[str]:
        feature = rows.features[self.column]
        if isinstance(feature, datasets.ClassLabel):
            if self.positive is not None:
                self._check_positive(feature.names)
            elif tuple(feature.names) != self.names:
                raise BadInput(
                    f"{self.column!r} has the classes {', '.join(feature.names)}, not {', '.join(self.names)}"
                )
        return [self.column]

    def _check_positive(self, names: Collection[str], where: str = "") -> None:
        """Refuse a column with these classes if the positive class is none of them."""
        if self.positive is not None and self.positive not in names:
            raise BadInput(
                f"{where}{self.column!r} has no class {self.positive!r} to be told from the rest, only {', '.join(list(names)[:20])}"
                f"{', ...' if len(names) > 20 else ''}"
            )

    def indices(self, table: pa.Table, feature: object, galaxy: Callable[[int], str] = "row {}".format) -> np.ndarray:
        """(N,) int64 class indices; -1 where a row has no label, or one that is none of the classes.

        Args:
            feature: the type of the column in these rows.
            galaxy: from the place of a row to what messages call it.

        Raises:
            BadInput: a number stands for no class.
        """
        return self._places(class_texts(table, self.column, feature, galaxy))

    def _places(self, texts: pa.ChunkedArray) -> np.ndarray:
        """(N,) int64 class indices of (N,) names of classes."""
        if self.positive is not None:
            places = pc.equal(texts, self.positive)
        else:
            places = pc.index_in(texts, pa.array(self.names, TEXT))
        return places.cast(pa.int64()).fill_null(-1).to_numpy().copy()  # which torch may write to

    def tensors(self, table: pa.Table, features: datasets.Features) -> dict[str, torch.Tensor]:
        return {"labels": torch.from_numpy(self.strata(table, features))}

    def strata(self, table: pa.Table, features: datasets.Features) -> np.ndarray:
        """The index of the class; -1 without one."""
        return self.indices(table, features[self.column])

    def labelled(self, rows: Rows, where: str, training: bool = False) -> tuple[Rows, np.ndarray]:
        feature, table = rows.features[self.column], rows.select_columns([self.column]).with_format("arrow")[:]
        texts = class_texts(table, self.column, feature, lambda row: f"{where}, {name_in(rows, row)}")
        indices = self._places(texts)
        others = sorted(set(texts.drop_null().unique().to_pylist()) - set(self.names))
        if others and self.positive is None:
            logger.info(
                f"{where}: no training galaxy has the {self.column} {', '.join(others[:20])}: those that have it are left out"
            )
        having = np.flatnonzero(indices >= 0)
        if not len(having):
            raise BadInput(f"{where}: none of its {len(rows):,} galaxies has a {self.column!r}")
        if training and not isinstance(feature, datasets.ClassLabel):
            different = len(np.unique(indices[having]))
            if different > max(FEW, len(having) / 2):
                raise BadInput(
                    f"{where}: column {self.column!r} has {different:,} different {_content(feature)} in {len(having):,} galaxies, too "
                    "many to be classes, which galaxies share; name another column, or group its content"
                )
        return (rows if len(having) == len(rows) else rows.select(having)), indices[having]

    def measurable(self, splits: list[Rows], datasets: list[str], split: str, partly: bool = False) -> list[Rows]:
        chosen = []
        for rows, name in zip(splits, datasets, strict=True):
            option = self.column if self.positive is None else f"{self.column}={self.positive}"
            names = self.of_rows(rows, option, name).names
            # A split may hold only some of the classes of a text column.
            if names != self.names and not set(names) < set(self.names):
                raise BadInput(f"--dataset {name}: has classes {', '.join(names)}, not {', '.join(self.names)}")
            chosen.append(self.having(rows, name, split)[0])
        return chosen

    def baseline(self, settings: Settings, train: list[Rows], strata: list[np.ndarray] | None) -> dict:
        counts = self._counts(strata)
        # A class without a training galaxy counts as half a galaxy: unlikely, not impossible.
        return {"log_priors": (counts.clamp_min(0.5) / counts.sum()).log().tolist()}

    def _counts(self, strata: list[np.ndarray] | None) -> torch.Tensor:
        assert strata is not None, "galaxies with a class have strata"
        return torch.bincount(torch.from_numpy(np.concatenate(strata)), minlength=len(self.names))

    def model(
        self, settings: Settings, fields: dict, baseline: dict, strata: list[np.ndarray] | None
    ) -> GalaxyForImageClassification:
        weights = settings.class_weights
        names = dict(id2label=dict(enumerate(self.names)), label2id={name: i for i, name in enumerate(self.names)})
        changes = dict(
            label_smoothing=settings.label_smoothing,
            class_weights=balanced_weights(self._counts(strata)) if weights == "balanced" else weights,
        )
        return GalaxyForImageClassification(GalaxyConfig(**names, **changes, **fields))

    def metrics(self, record: RunRecord, config: GalaxyConfig, before: Before | None = None) -> ClassMetrics:
        if before is None and config.calibration is not None:
            before = partial(torch.mul, config.calibration["temperature"])
        return ClassMetrics(list(self.names), torch.tensor(record.baseline["log_priors"]), before)

    def predicted(self, target: torch.Tensor, predictions: torch.Tensor, config: GalaxyConfig) -> ImageClassifierOutput:
        return ImageClassifierOutput(logits=predictions)

    def to_calibrate(
        self, batch: dict[str, torch.Tensor], outputs: Any, config: GalaxyConfig
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) indices of classes, and (B, C) logits."""
        return batch["labels"], outputs.logits

    def fit_calibration(
        self, target: np.ndarray, predictions: np.ndarray, keys: np.ndarray, config: GalaxyConfig
    ) -> FittedCalibration:
        return fit_classes(predictions, target, keys)

    def description(self) -> dict:
        return {"classes": list(self.names)}


def balanced_weights(counts: torch.Tensor) -> list[float]:
    """(C,) the weights with which all classes together count the same, and a galaxy 1 on average; 1 for a class without any."""
    shares = counts.sum() / (counts.count_nonzero() * counts.clamp_min(1))
    return torch.where(counts > 0, shares, 1).tolist()


def _classes_in(rows: Rows, column: str, dataset: str) -> list[str]:
    feature = rows.features.get(column)
    if feature is None:
        missing = f"has no class label {column!r}" if column else "name its class label with --label"
        columns = ", ".join(class_columns(rows.features)[:20]) or "none"
        others = [name for name, kind in rows.features.items() if getattr(kind, "dtype", "") != "int32"]  # no votes
        if near := difflib.get_close_matches(column, others, 1):
            columns += f"; did you mean {near[0]!r}?"
        raise BadInput(f"--dataset {dataset}: {missing}; its label columns: {columns}")
    if isinstance(feature, datasets.ClassLabel):
        return feature.names
    if not may_hold_classes(feature):
        raise BadInput(
            f"--dataset {dataset}: column {column!r} holds {getattr(feature, 'dtype', feature)}, but classes are a ClassLabel, texts, "
            "whole numbers or bools"
        )
    table = rows.select_columns([column]).with_format("arrow")[:]
    texts = class_texts(table, column, feature, lambda row: f"--dataset {dataset}, {name_in(rows, row)}")
    names = in_order(texts.drop_null().unique().to_pylist(), feature)
    if not 1 < len(names) <= MOST:
        hint = f"; for numbers to estimate give --values {column}" if is_number(feature) else ""
        raise BadInput(
            f"--dataset {dataset}: column {column!r} holds {len(names):,} different {_content(feature)}; classes are 2 to {MOST:,}{hint}"
        )
    return names


def _content(feature: object) -> str:
    return "numbers" if is_number(feature) else "bools" if is_bool(feature) else "texts"


def label_columns(rows: Rows) -> list[str]:
    """The columns of type ClassLabel; others may hold classes, too."""
    return [column for column, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
