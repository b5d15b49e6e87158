"""Calibration: a few numbers, fitted on galaxies that a model was not trained on, that correct how certain its predictions are.

Of votes, each question q has a scale s_q, and each of its answers i a shift t_i. With x_i the logarithm of a concentration, or with the
multinomial likelihood of a fraction (up to a constant),

    x_i' = s_q x_i + t_i

in both distributions of a mixture alike.

Of classes, the logits are divided by one temperature (Guo et al. 2017, huggingface.co/papers/1706.04599). Of values, each has a scale and a
shift of the logarithm x of the scale of its distribution, which is Student's t, and its tail, 1 / degrees of freedom. `config.calibration` holds
these numbers, by name: "scales" and "shifts", of values also "tails"; or "temperature" and for how many "classes" it is.

Legend: B galaxies, A answers, Q questions, K values.
"""

from collections.abc import Mapping
from typing import Any

import torch

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.losses import constant, question_of_answer

MOST = 100.0  # of scales, shifts and temperatures: far beyond what is fitted
LARGEST = 9.0  # |logarithm of a concentration|: beyond it float32 has too few digits for the likelihood
TAIL = 1 / 8  # 1 / degrees of freedom of values before a calibration says it
MOST_TAIL = 0.4  # with heavier tails a standard deviation says nothing
RANGES = {"shifts": (-MOST, MOST), "tails": (0.0, MOST_TAIL)}


def check_calibration(calibration: Any, numbers: Mapping[str, int | None]) -> None:
    """Refuse a calibration of another model, or of nobody's.

    Args:
        calibration: of the configuration.
        numbers: name -> how many numbers the model needs; None: a single one.

    Raises:
        BadInput: it has other names, or another number of numbers; or one is none that a calibration can have.
    """
    good = isinstance(calibration, Mapping) and calibration.keys() == numbers.keys()
    for name, count in numbers.items() if good else ():
        values = [calibration[name]] if count is None else calibration[name]
        least, most = RANGES.get(name, (1 / MOST, MOST))
        good &= isinstance(values, list | tuple) and len(values) == (count or 1)
        good = good and all(type(each) in (int, float) and least <= each <= most for each in values)
    if not good:
        wanted = " and ".join(f"one {name}" if count is None else f"{count} {name}" for name, count in numbers.items())
        raise BadInput(f"calibration: is not that of this model, which has {wanted}; load it with calibration=None")


def calibrated_logs(logs: torch.Tensor, calibration: Mapping[str, Any], tree: DecisionTree) -> torch.Tensor:
    """(..., A) x -> (..., A) x', in the same precision."""
    scales, shifts = _of_answers(calibration, tree, logs)
    return logs * scales + shifts


def uncalibrated_logs(logs: torch.Tensor, calibration: Mapping[str, Any], tree: DecisionTree) -> torch.Tensor:
    """(..., A) x' -> (..., A) x: what the model would have predicted without its calibration."""
    scales, shifts = _of_answers(calibration, tree, logs)
    return (logs - shifts) / scales


def _of_answers(
    calibration: Mapping[str, Any], tree: DecisionTree, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(A,) the scale and the shift of each answer, on the device and in the precision of another tensor."""
    scales, shifts = _numbers(calibration, like)
    return scales.index_select(0, question_of_answer(tree, like.device)), shifts


def calibrated_concentrations(
    concentrations: torch.Tensor, calibration: Mapping[str, Any], tree: DecisionTree
) -> torch.Tensor:
    """(..., A) concentrations -> (..., A), within what float32 can work with."""
    return calibrated_logs(concentrations.log(), calibration, tree).clamp(-LARGEST, LARGEST).exp()


def calibrated_log_scales(logs: torch.Tensor, calibration: Mapping[str, Any]) -> torch.Tensor:
    """(B, K) x -> (B, K) x' of values, in the same precision."""
    scales, shifts = _numbers(calibration, logs)
    return logs * scales + shifts


def uncalibrated_log_scales(logs: torch.Tensor, calibration: Mapping[str, Any]) -> torch.Tensor:
    """(B, K) x' -> (B, K) x of values."""
    scales, shifts = _numbers(calibration, logs)
    return (logs - shifts) / scales


def std_of(logs: torch.Tensor, tails: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """(B, K) standard deviations of Student's t distributions.

    Args:
        logs: (B, K) x, logarithms of their scales in the unit.
        tails: (K,) or (B, K), 1 / degrees of freedom.
        unit: (K,) of the scales.
    """
    return unit * (logs - 0.5 * torch.log1p(-2 * tails)).exp()


def log_scales_of(std: torch.Tensor, tails: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """(B, K) x: the inverse of `std_of`."""
    return (std / unit).log() + 0.5 * torch.log1p(-2 * tails)


def _numbers(calibration: Mapping[str, Any], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and shifts, on the device and in the precision of another tensor."""
    scales, shifts = (
        constant(tuple(map(float, calibration[name])), like.device).to(like.dtype) for name in ("scales", "shifts")
    )
    return scales, shifts
