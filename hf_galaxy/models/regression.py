"""The galaxy model of values: numbers such as redshifts, by regression. Legend: B galaxies, K values."""

from dataclasses import dataclass
from typing import Any

import torch

from hf_galaxy.errors import BadInput
from hf_galaxy.losses import standardised_squared_error
from hf_galaxy.models.configuration import GalaxyConfig
from hf_galaxy.models.model import GalaxyPreTrainedModel


@dataclass
class GalaxyValuesOutput:
    """The outputs of a regression model, indexed by name or position like those of the other models.

    It is not a ModelOutput, since these are dictionaries: a field `values` would hide their method, which torch calls to find
    tensors in them.

    Attributes:
        loss: mean over galaxies of the squared errors in standard deviations (`losses.standardised_squared_error`); None
            without labels.
        values: (B, K) float32, in the units of the labels.
    """

    loss: torch.Tensor | None = None
    values: torch.Tensor | None = None

    def to_tuple(self) -> tuple[torch.Tensor, ...]:
        """Loss and values, without those that are None."""
        return tuple(part for part in (self.loss, self.values) if part is not None)

    def __getitem__(self, key: str | int | slice) -> torch.Tensor | tuple[torch.Tensor, ...]:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]


torch.export.register_dataclass(GalaxyValuesOutput)


class GalaxyForRegression(GalaxyPreTrainedModel):
    """Predicts one or several numbers for each galaxy; their names are `config.values`.

    values = value_mean + value_std * linear(features), with the mean and standard deviation of each value in the training
    split; with `unit_interval` values = sigmoid(logit(value_mean) + linear(features)). So an untrained model predicts about the
    mean, and a trained one in the units of the dataset.
    """

    def __init__(self, config: GalaxyConfig) -> None:
        if config.values is None:
            raise BadInput(
                "GalaxyForRegression needs a config with values, such as GalaxyConfig(backbone=..., values=['z'])"
            )
        super().__init__(config, len(config.values))
        self.register_buffer("value_mean", torch.tensor(config.value_mean, dtype=torch.float32))
        self.register_buffer("value_std", torch.tensor(config.value_std, dtype=torch.float32))

    @property
    def columns(self) -> list[str]:
        """The names of the columns of the values."""
        return list(self.config.values)

    def predictions(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, K) values, in the units of the dataset."""
        return self(pixel_values=pixel_values).values

    def head_mismatch(self, other: GalaxyPreTrainedModel) -> str | None:
        """Also models of which one has values in [0, 1]."""
        mismatch = super().head_mismatch(other)
        if mismatch is None and other.config.unit_interval != self.config.unit_interval:
            return "and this run differ in --unit-interval; their outputs mean different things"
        return mismatch

    def head_rows(
        self, other: GalaxyPreTrainedModel, ours: list[int], theirs: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Each model has its own mean and deviation of each value."""
        weight, bias = super().head_rows(other, ours, theirs)
        mean, std, their_mean, their_std = (
            self.value_mean[ours],
            self.value_std[ours],
            other.value_mean[theirs],
            other.value_std[theirs],
        )
        if self.config.unit_interval:
            return weight, bias + their_mean.logit() - mean.logit()
        return weight * (their_std / std)[:, None], (their_mean + their_std * bias - mean) / std

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> GalaxyValuesOutput:
        """Values of galaxies, and the loss if their true values are given.

        Args:
            pixel_values: (B, 3, S, S) RGB, or (B, 1, S, S) grey, in [0, 1]; of a model of bands their fluxes (B, K, S, S).
            labels: (B, K) true values in the order of `config.values`, NaN where missing.
        """
        outputs = self.head_outputs(pixel_values)
        if self.config.unit_interval:
            values = (self.value_mean.logit() + outputs).sigmoid()
        else:
            values = self.value_mean + self.value_std * outputs
        loss = None if labels is None else standardised_squared_error(labels, values, self.value_std).mean()
        return GalaxyValuesOutput(loss=loss, values=values)
