"""Scaling laws: run records become laws, figures and a page, and a budget of labels."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_galaxy.scaling.laws import (
        EXPONENT,
        FALLS,
        FEWEST,
        LEFT,
        JointLaw,
        LeaveOut,
        PowerLaw,
        fit_joint_law,
        fit_power_law,
        leave_out,
    )

__all__ = [
    "EXPONENT",
    "FALLS",
    "FEWEST",
    "LEFT",
    "JointLaw",
    "LeaveOut",
    "PowerLaw",
    "fit_joint_law",
    "fit_power_law",
    "leave_out",
]


def __getattr__(name: str) -> object:
    # On first use, as scipy takes a second to import and options of commands need none of it.
    if name in __all__:
        return getattr(import_module("hf_galaxy.scaling.laws"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
