"""hf_galaxy: galaxy pictures, volunteers' votes, and the models that predict them, in the Hugging Face way."""

from transformers import AutoConfig, AutoModel, AutoModelForImageClassification
from transformers.pipelines import PIPELINE_REGISTRY

from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.models.model import GalaxyConfig, GalaxyForImageClassification, GalaxyForRegression, GalaxyForVotes
from hf_galaxy.models.pipeline import GalaxyMorphologyPipeline

__version__ = "0.1.0"
__all__ = [
    "DecisionTree",
    "GalaxyConfig",
    "GalaxyForImageClassification",
    "GalaxyForRegression",
    "GalaxyForVotes",
    "GalaxyMorphologyPipeline",
    "load_tree",
]

AutoConfig.register("galaxy", GalaxyConfig)
# One configuration, several models: from_pretrained takes the one that config.json names under "architectures".
AutoModel.register(GalaxyConfig, (GalaxyForVotes, GalaxyForImageClassification, GalaxyForRegression))
AutoModelForImageClassification.register(GalaxyConfig, GalaxyForImageClassification)
PIPELINE_REGISTRY.register_pipeline(
    "galaxy-morphology", pipeline_class=GalaxyMorphologyPipeline, pt_model=AutoModel, type="image"
)
