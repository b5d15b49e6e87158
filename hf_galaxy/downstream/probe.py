"""A linear probe: the head of a frozen backbone, trained to its optimum and not for some epochs.

Legend of shapes: N galaxies, D features, O outputs of the head.
"""

import math
from collections.abc import Callable, Sequence

import torch

from hf_galaxy.data.targets import LABEL_NAMES
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.training.features import GalaxyFeatures, without_backbone

PATIENCE = 2  # penalties in a row without a better validation loss, after which the search ends; each starts at the optimum of the one before
STEPS = 100  # of L-BFGS, at most


def probe(
    model: GalaxyPreTrainedModel, train: GalaxyFeatures, validation: GalaxyFeatures, pool: torch.Tensor,
    penalties: tuple[float, ...],
) -> dict[float, float]:  # fmt: skip
    """Give the model the head with the best validation loss, of those that minimise

        loss(W, b) + penalty / 2 * loss(0, b0) * |W|^2

    where loss is the model's own, a mean over galaxies, b0 the bias that the model came with, and W (O, D) is applied to features
    of mean 0 and standard deviation 1. By L-BFGS on all galaxies at once, as in "Do better ImageNet models transfer better?" (huggingface.co/papers/1805.08974), so
    no learning rate, batch size or number of epochs favours a backbone; and larger features are not penalised
    less.

    Args:
        model: on the device where it is to be trained.
        pool: (N, D) features for the mean and the standard deviation: also of galaxies without labels, as there are more of them.

    Returns:
        The validation loss for each penalty that was tried.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    weight, bias = model.head.weight, model.head.bias
    pool = pool.to(weight.device)
    mean, std = pool.mean(dim=0), pool.std(dim=0, correction=0)
    std = std.clamp_min(1e-3 * std.mean()).clamp_min(torch.finfo(std.dtype).tiny)  # some features are never active
    columns = [{k: v.to(weight.device) for k, v in each.columns.items()} for each in (train, validation)]
    train_features, validation_features = ((each["features"] - mean) / std for each in columns)
    targets = [{k: v for k, v in each.items() if k in LABEL_NAMES} for each in columns]
    losses: dict[float, float] = {}
    best: tuple[torch.Tensor, torch.Tensor] | None = None
    model.eval()
    with without_backbone(model):
        torch.nn.init.zeros_(weight)
        with torch.no_grad():
            scale = model(train_features, **targets[0]).loss.item()
        for penalty in sorted(penalties, reverse=True):
            l2 = penalty * scale
            _minimise(lambda: model(train_features, **targets[0]).loss + l2 / 2 * weight.square().sum(), [weight, bias])  # noqa: B023
            with torch.no_grad():
                losses[penalty] = model(validation_features, **targets[1]).loss.item()
            if not math.isfinite(losses[penalty]):
                raise FloatingPointError(
                    f"the validation loss of a linear probe with penalty {penalty:g} is not finite"
                )
            if losses[penalty] == min(losses.values()):
                best = weight.detach() / std, bias.detach() - (weight.detach() / std) @ mean
            if list(losses.values()).index(min(losses.values())) < len(losses) - PATIENCE:
                break
    assert best is not None, "the first penalty is the best until another one is"
    with torch.no_grad():
        for parameter, value in zip((weight, bias), best, strict=True):
            parameter.copy_(value)
    return losses


def _minimise(objective: Callable[[], torch.Tensor], parameters: Sequence[torch.nn.Parameter]) -> None:
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=STEPS, tolerance_grad=1e-5, tolerance_change=1e-7, history_size=10,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    optimizer.step(closure)
