"""Scaling laws: run records become laws, figures and a page, and a budget of labels."""

from hf_galaxy.scaling.joint_law import JointLaw, fit_joint_law
from hf_galaxy.scaling.laws import EXPONENT, FALLS, FEWEST, FORM, LEFT, LeaveOut, PowerLaw, fit_power_law, leave_out

__all__ = [
    "EXPONENT",
    "FALLS",
    "FEWEST",
    "FORM",
    "LEFT",
    "JointLaw",
    "LeaveOut",
    "PowerLaw",
    "fit_joint_law",
    "fit_power_law",
    "leave_out",
]
