"""The galaxy model of values: numbers such as redshifts, by regression. Legend: B galaxies, K values, D features."""

from dataclasses import dataclass
from typing import Any

import torch

from hf_galaxy.errors import BadInput
from hf_galaxy.losses import constant, standardised_squared_error
from hf_galaxy.models.calibration import LARGEST, TAIL, calibrated_log_scales, check_calibration, std_of
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
        std: (B, K) float32, the standard deviation of the true value around the predicted one, in the same units; None of a model
            that does not predict it (`GalaxyForRegression.has_spread`).
    """

    loss: torch.Tensor | None = None
    values: torch.Tensor | None = None
    std: torch.Tensor | None = None

    def to_tuple(self) -> tuple[torch.Tensor, ...]:
        """Loss, values and standard deviations, without those that are None."""
        return tuple(part for part in (self.loss, self.values, self.std) if part is not None)

    def __getitem__(self, key: str | int | slice) -> torch.Tensor | tuple[torch.Tensor, ...]:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]


torch.export.register_dataclass(GalaxyValuesOutput)


class GalaxyForRegression(GalaxyPreTrainedModel):
    """Predicts one or several numbers for each galaxy, and how far from them the true ones may be; their names are `config.values`.

    values = value_mean + value_std * linear(features), with the mean and standard deviation of each value in the training
    split; with `unit_interval` values = sigmoid(logit(value_mean) + linear(features)). So an untrained model predicts about the
    mean, and a trained one in the units of the dataset.

    The true value follows Student's t distribution around the predicted one, whose scale is value_std * exp(x), x = linear(features) with
    weights of its own (`config.spread`; x = 0 without them), corrected by `config.calibration` (`calibration`).
    """

    def __init__(self, config: GalaxyConfig) -> None:
        if config.values is None:
            raise BadInput(
                "GalaxyForRegression needs a config with values, such as GalaxyConfig(backbone=..., values=['z'])"
            )
        count = len(config.values)
        if config.calibration is not None:
            check_calibration(config.calibration, dict.fromkeys(("scales", "shifts", "tails"), count))
        super().__init__(config, count)
        self.register_buffer("value_mean", torch.tensor(config.value_mean, dtype=torch.float32))
        self.register_buffer("value_std", torch.tensor(config.value_std, dtype=torch.float32))
        if config.spread:
            self.register_buffer("spread_weight", torch.zeros(count, self.head.in_features))
            self.register_buffer("spread_bias", torch.zeros(count))

    def set_spread(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """From now on predict standard deviations with these weights (K, D) and biases (K,), of x."""
        self.config.spread = True
        self.register_buffer("spread_weight", weight.to(self.value_std))
        self.register_buffer("spread_bias", bias.to(self.value_std))

    def forget_spread(self) -> None:
        """Undo `set_spread`."""
        self.config.spread = False
        del self.spread_weight, self.spread_bias

    @property
    def fitted_after_training(self) -> dict[str, torch.Tensor]:
        """The weights of standard deviations."""
        return {name: getattr(self, name) for name in ("spread_weight", "spread_bias") if self.config.spread}

    @property
    def has_spread(self) -> bool:
        """Whether it predicts standard deviations."""
        return self.config.spread or self.config.calibration is not None

    @property
    def tails(self) -> list[float]:
        """(K,) 1 / degrees of freedom of the t distribution of each value; 0: it is normal."""
        calibration = self.config.calibration
        return calibration["tails"] if calibration is not None else [TAIL] * len(self.config.values)

    @property
    def columns(self) -> list[str]:
        """The names of the columns of the values."""
        return list(self.config.values)

    @property
    def prediction_columns(self) -> list[str]:
        """Each value, and its standard deviation, if that is predicted."""
        return [*self.columns, *(f"{name}_std" for name in self.columns if self.has_spread)]

    def predictions(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, K) values, in the units of the dataset, or (B, 2 K) values and standard deviations."""
        answer = self(pixel_values=pixel_values)
        return torch.cat([part for part in (answer.values, answer.std) if part is not None], dim=1)

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
        """Values of galaxies with their standard deviations, and the loss if their true values are given.

        Args:
            pixel_values: (B, 3, S, S) RGB, or (B, 1, S, S) grey, in [0, 1]; of a model of bands their fluxes (B, K, S, S).
            labels: (B, K) true values in the order of `config.values`, NaN where missing.
        """
        features = self.features(pixel_values)
        outputs = self.head(self.dropout(features)).float()
        if self.config.unit_interval:
            values = (self.value_mean.logit() + outputs).sigmoid()
        else:
            values = self.value_mean + self.value_std * outputs
        loss = None if labels is None else standardised_squared_error(labels, values, self.value_std).mean()
        return GalaxyValuesOutput(
            loss=loss, values=values, std=self._std(features, outputs) if self.has_spread else None
        )

    def _std(self, features: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """(B, K) standard deviations, float32, from (B, D) features of the backbone, which does not learn from them.

        Args:
            outputs: (B, K) of the head.
        """
        features = features.detach().float()
        if self.config.spread:
            logs = torch.nn.functional.linear(features, self.spread_weight.float(), self.spread_bias.float())
        else:
            logs = torch.zeros_like(outputs.detach())
        if self.config.calibration is not None:
            logs = calibrated_log_scales(logs, self.config.calibration)
        tails = constant(tuple(map(float, self.tails)), features.device)
        return std_of(logs.clamp(-LARGEST, LARGEST), tails, self.value_std.float())
