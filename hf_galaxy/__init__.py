"""hf_galaxy: galaxy pictures, volunteers' votes, and the models that predict them, in the Hugging Face way."""

from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.model import GalaxyConfig, GalaxyForImageClassification, GalaxyForRegression, GalaxyForVotes

__version__ = "0.1.0"
__all__ = [
    "DecisionTree",
    "GalaxyConfig",
    "GalaxyForImageClassification",
    "GalaxyForRegression",
    "GalaxyForVotes",
    "load_tree",
]
