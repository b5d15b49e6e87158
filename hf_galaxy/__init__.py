"""hf_galaxy: galaxy pictures, volunteers' votes, and the models that predict them, in the Hugging Face way."""

from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.model import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes

__version__ = "0.1.0"
__all__ = ["DecisionTree", "GalaxyConfig", "GalaxyForImageClassification", "GalaxyForVotes", "load_tree"]

AutoConfig.register("galaxy", GalaxyConfig)
# One configuration, several models: from_pretrained takes the one that config.json names under "architectures".
AutoModel.register(GalaxyConfig, (GalaxyForVotes, GalaxyForImageClassification))
AutoModelForImageClassification.register(GalaxyConfig, GalaxyForImageClassification)
