"""hf_galaxy: galaxy pictures, volunteers' votes, and the models that predict them, in the Hugging Face way."""

from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY

from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.model import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes
from hf_galaxy.pipeline import GalaxyMorphologyPipeline

__version__ = "0.1.0"
__all__ = [
    "DecisionTree",
    "GalaxyConfig",
    "GalaxyForImageClassification",
    "GalaxyForVotes",
    "GalaxyMorphologyPipeline",
    "load_tree",
]

PIPELINE_REGISTRY.register_pipeline("galaxy-morphology", GalaxyMorphologyPipeline, pt_model=AutoModel, type="image")
