"""The methods that every target of training has; one file beside this one for each target."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import datasets
import numpy as np
import pyarrow as pa
import torch

from hf_galaxy.data.targets import Rows, Target

if TYPE_CHECKING:
    from hf_galaxy.models.calibration_fit import FittedCalibration
    from hf_galaxy.models.model import GalaxyConfig, GalaxyPreTrainedModel
    from hf_galaxy.reports.run_record import RunRecord
    from hf_galaxy.training.settings import Settings

logger = logging.getLogger(__name__)


Before = Callable[[torch.Tensor], torch.Tensor]


class Collected(Protocol):
    """What is collected of a model's answers, batch by batch, and joined over processes."""

    def update(self, batch: dict[str, torch.Tensor], outputs: object) -> None: ...
    def cpu(self) -> Self: ...
    def __add__(self, other: Self) -> Self: ...


class Metrics(Collected, Protocol):
    """Sums over batches that become the figures of a split; `loss` is that by which the best epoch is chosen."""

    @property
    def loss(self) -> float: ...
    def compute(self) -> dict: ...


class TrainingTarget(Target, ABC):
    """What a model learns to predict: from the columns of a dataset to the model, its baseline and its metrics.

    Attributes:
        options: fields of `Settings` that name it.
        loss_options: fields of `Settings` that change its training loss.
        is_calibrated: its models have a calibration (`models.calibration`).
        has_spread: its models predict standard deviations, by weights that are fitted to training galaxies at the end (`training.spread`).
        labels_name: of the batches' tensor that holds it.
        least: galaxies that a calibration is fitted to.
    """

    as_matrix: ClassVar[bool] = False
    is_calibrated: ClassVar[bool] = False
    has_spread: ClassVar[bool] = False
    labels_name: ClassVar[str] = "labels"
    least: ClassVar[int] = 50
    options: ClassVar[tuple[str, ...]]
    loss_options: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def check(cls, settings: Settings) -> None:
        """Refuse settings that this target cannot work with, before a dataset is opened.

        Raises:
            BadInput: names the option.
        """

    @classmethod
    def inferred_options(cls, options: Mapping[str, Any], rows: Callable[[], Rows]) -> dict[str, Any]:
        """Values for those of its options that are left out, if a dataset leaves no choice of them.

        Args:
            rows: opens the dataset.

        Raises:
            BadInput: it leaves a choice.
        """
        return {}

    @classmethod
    def rarest(cls, options: Mapping[str, Any], rows: Callable[[], Rows]) -> float | None:
        """The share of the galaxies that the rarest class has; None for a target without classes. Arguments as of `inferred_options`."""
        return None

    @classmethod
    @abstractmethod
    def of(cls, settings: Settings, splits: dict[str, list[Rows]]) -> Self:
        """The target that the settings name, in the splits of their datasets.

        Raises:
            BadInput: a dataset does not hold it, or they do not go together.
        """

    @classmethod
    @abstractmethod
    def from_record(cls, record: RunRecord, config: GalaxyConfig) -> Self:
        """The target of a run, from its record and the configuration of its model."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    def notice(self) -> str | None:
        """A sentence for the user about what is learnt; None if the settings say it all."""
        return None

    @abstractmethod
    def columns_of(self, rows: Rows) -> list[str]: ...

    @abstractmethod
    def tensors(self, table: pa.Table, features: datasets.Features) -> dict[str, torch.Tensor]: ...

    @abstractmethod
    def strata(self, table: pa.Table, features: datasets.Features) -> np.ndarray: ...

    @abstractmethod
    def labelled(self, rows: Rows, where: str, training: bool = False) -> tuple[Rows, np.ndarray | None]:
        """The rows that have the target, and their strata; None if nobody needs strata.

        Args:
            where: the dataset and the split, for the message.
            training: the rows are training galaxies.

        Raises:
            BadInput: no row has it, or one holds what cannot be learnt; names its galaxy.
        """

    def having(self, rows: Rows, dataset: str, split: str, training: bool = False) -> tuple[Rows, np.ndarray | None]:
        """`labelled` rows of a split of a dataset; how many are left out is logged."""
        kept, strata = self.labelled(rows, f"--dataset {dataset}: split {split}", training)
        if left_out := len(rows) - len(kept):
            logger.info(
                f"{left_out:,} of the {len(rows):,} galaxies of split {split} of {dataset} have no {self.name}; "
                "they are left out"
            )
        return kept, strata

    @abstractmethod
    def measurable(self, splits: list[Rows], datasets: list[str], split: str, partly: bool = False) -> list[Rows]:
        """The rows that a finished run can be measured on, of one split of some datasets, perhaps others than it was trained on.

        Args:
            partly: they may lack some questions.

        Raises:
            BadInput: they do not hold the target of the run.
        """

    @abstractmethod
    def baseline(self, settings: Settings, train: list[Rows], strata: list[np.ndarray] | None) -> dict:
        """The constant prediction of the training split, as it stands in a run record.

        Raises:
            BadInput: there is nothing to learn: all training galaxies are alike.
        """

    def least_loss(self, rows: list[Rows]) -> float:
        """The least loss that predictions of these galaxies can have, as far as the target says how well it can be known at all."""
        return 0.0

    @abstractmethod
    def model(
        self, settings: Settings, fields: dict, baseline: dict, strata: list[np.ndarray] | None
    ) -> GalaxyPreTrainedModel:
        """A fresh model.

        Args:
            fields: of its configuration that do not depend on the target.
            baseline, strata: of the training split.
        """

    @abstractmethod
    def metrics(self, record: RunRecord, config: GalaxyConfig, before: Before | None = None) -> Metrics:
        """Empty metrics of a run's model, beside the baseline in its record.

        Args:
            before: from the predictions that a calibration corrects to those without it, which are measured, too; by default by the calibration of
                the model.
        """

    def predicted(self, target: torch.Tensor, predictions: torch.Tensor, config: GalaxyConfig) -> Any:
        """The outputs of a model with these predictions, as far as metrics need them; target and predictions as of `fit_calibration`."""
        raise NotImplementedError

    def to_calibrate(
        self, batch: dict[str, torch.Tensor], outputs: Any, config: GalaxyConfig
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The target of the galaxies in a batch, and the predictions that a calibration corrects, as `fit_calibration` takes them."""
        raise NotImplementedError

    def is_known(self, target: torch.Tensor) -> torch.Tensor:
        """(B,) bool, the galaxies that say something about a calibration; of a target from `to_calibrate`."""
        return torch.ones(len(target), dtype=torch.bool, device=target.device)

    def count(self, target: torch.Tensor) -> int:
        """To how many galaxies a calibration can be fitted, of this target (`to_calibrate`)."""
        return len(target)

    def fit_calibration(
        self, target: np.ndarray, predictions: np.ndarray, keys: np.ndarray, config: GalaxyConfig
    ) -> FittedCalibration:
        """The calibration of a model of it, if there is any (`is_calibrated`).

        Args:
            target, predictions: of N galaxies, from `to_calibrate`.
            keys: (N,) `randomness.key_of` their names.
        """
        raise NotImplementedError

    @abstractmethod
    def description(self) -> dict:
        """What a run record keeps in `dataset`: the names of what is predicted."""
