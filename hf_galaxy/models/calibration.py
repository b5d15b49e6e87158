"""Calibration: a few numbers, fitted on galaxies that a model was not trained on, that correct how certain its predictions are.

Of votes, each question q has a scale s_q, and each of its answers i a shift t_i. With x_i the logarithm of a concentration, or with the
multinomial likelihood of a fraction (up to a constant),

    x_i' = s_q x_i + t_i

Of classes, the logits are divided by one temperature (Guo et al. 2017, huggingface.co/papers/1706.04599). `config.calibration` holds these
numbers, by name: "scales" and "shifts", or "temperature". Legend: B galaxies, A answers, Q questions.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.losses import constant, question_of_answer

LARGEST = 9.0  # |logarithm of a concentration|: beyond it float32 has too few digits for the likelihood


def check_calibration(calibration: Mapping[str, Any], numbers: Mapping[str, int]) -> None:
    """Refuse a calibration of another model.

    Args:
        calibration: of the configuration.
        numbers: name -> how many numbers the model needs.

    Raises:
        BadInput: it has other names, or another number of numbers; or one is not finite, or a scale or temperature is not above 0.
    """
    for name, count in numbers.items():
        values = calibration.get(name)
        values = values if isinstance(values, list | tuple) else [values]
        least = -math.inf if name == "shifts" else 0.0
        good = [isinstance(each, int | float) and least < each < math.inf for each in values]
        if len(values) != count or not all(good) or calibration.keys() != numbers.keys():
            wanted = " and ".join(f"{count} {name}" for name, count in numbers.items())
            raise BadInput(f"calibration: is not that of this model, which has {wanted}; load it with calibration=None")


def calibrated_logs(logs: torch.Tensor, calibration: Mapping[str, Any], tree: DecisionTree) -> torch.Tensor:
    """(B, A) x -> (B, A) x', in the same precision."""
    scales, shifts = (
        constant(tuple(map(float, calibration[name])), logs.device).to(logs.dtype) for name in ("scales", "shifts")
    )
    return logs * scales.index_select(0, question_of_answer(tree, logs.device)) + shifts


def uncalibrated_logs(logs: torch.Tensor, calibration: Mapping[str, Any], tree: DecisionTree) -> torch.Tensor:
    """(B, A) x' -> (B, A) x: what the model would have predicted without its calibration."""
    scales, shifts = (
        constant(tuple(map(float, calibration[name])), logs.device).to(logs.dtype) for name in ("scales", "shifts")
    )
    return (logs - shifts) / scales.index_select(0, question_of_answer(tree, logs.device))


def composed(first: Mapping[str, Any] | None, second: Mapping[str, Any], tree: DecisionTree | None) -> dict[str, Any]:
    """The calibration that does what the first one does, and then the second.

    Args:
        tree: of a votes model.
    """
    if first is None:
        return dict(second)
    if tree is None:
        return {"temperature": _rounded(first["temperature"] * second["temperature"])}
    scales = [_rounded(one * other) for one, other in zip(first["scales"], second["scales"], strict=True)]
    shifts = [
        _rounded(second["scales"][question] * one + other)
        for question, one, other in zip(tree.question_of_answer, first["shifts"], second["shifts"], strict=True)
    ]
    return {"scales": scales, "shifts": shifts}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def calibrated_concentrations(
    concentrations: torch.Tensor, calibration: Mapping[str, Any], tree: DecisionTree
) -> torch.Tensor:
    """(B, A) concentrations -> (B, A), within what float32 can work with."""
    return calibrated_logs(concentrations.log(), calibration, tree).clamp(-LARGEST, LARGEST).exp()
