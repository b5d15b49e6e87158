"""hf_galaxy: galaxy pictures, volunteers' votes, and the models that predict them, in the Hugging Face way."""

from importlib import import_module
from typing import TYPE_CHECKING

from hf_galaxy.models.registration import register_when_imported

if TYPE_CHECKING:
    from hf_galaxy.calls.finetune import finetune
    from hf_galaxy.calls.predict import embed, predict
    from hf_galaxy.calls.prevalence import prevalence
    from hf_galaxy.calls.run import Run
    from hf_galaxy.decision_tree import DecisionTree, load_tree
    from hf_galaxy.errors import BadInput
    from hf_galaxy.models.configuration import GalaxyConfig
    from hf_galaxy.models.model import GalaxyForImageClassification, GalaxyForVotes
    from hf_galaxy.models.pipeline import GalaxyMorphologyPipeline
    from hf_galaxy.models.regression import GalaxyForRegression

__version__ = "0.1.0"
__all__ = [
    "BadInput",
    "DecisionTree",
    "GalaxyConfig",
    "GalaxyForImageClassification",
    "GalaxyForRegression",
    "GalaxyForVotes",
    "GalaxyMorphologyPipeline",
    "Run",
    "embed",
    "finetune",
    "load_tree",
    "predict",
    "prevalence",
]

# Where each public name is defined. It is imported when it is first used: torch and transformers take seconds to import.
_MODULES = {
    "BadInput": "errors",
    "DecisionTree": "decision_tree",
    "GalaxyConfig": "models.configuration",
    "GalaxyForImageClassification": "models.model",
    "GalaxyForRegression": "models.regression",
    "GalaxyForVotes": "models.model",
    "GalaxyMorphologyPipeline": "models.pipeline",
    "Run": "calls.run",
    "embed": "calls.predict",
    "finetune": "calls.finetune",
    "load_tree": "decision_tree",
    "predict": "calls.predict",
    "prevalence": "calls.prevalence",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
