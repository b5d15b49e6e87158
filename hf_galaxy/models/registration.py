"""Register the models and the pipeline with transformers, as soon as it can use them.

The models need torch, timm and transformers, whose import takes seconds, and which a decision tree or the help of a command do not
need. So `import hf_galaxy` imports none of them. It watches the imports of transformers instead, and registers the models when
the Auto classes have been imported, and the pipeline when the pipelines have.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def _register_models() -> None:
    from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

    from hf_galaxy.models.model import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes
    from hf_galaxy.models.regression import GalaxyForRegression

    AutoConfig.register("galaxy", GalaxyConfig)
    # One configuration, several models: from_pretrained takes the one that config.json names under "architectures".
    AutoModel.register(GalaxyConfig, (GalaxyForVotes, GalaxyForImageClassification, GalaxyForRegression))
    AutoModelForImageClassification.register(GalaxyConfig, GalaxyForImageClassification)


def _register_pipeline() -> None:
    from transformers import AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    from hf_galaxy.models.pipeline import GalaxyMorphologyPipeline

    PIPELINE_REGISTRY.register_pipeline(
        "galaxy-morphology", pipeline_class=GalaxyMorphologyPipeline, pt_model=AutoModel, type="image"
    )


class _ImportWatcher(MetaPathFinder):
    """Runs each action of `pending` once the module that it waits for has been imported.

    It waits until the outermost import of transformers or of hf_galaxy is complete: modules of transformers import each other, and
    the models, imported from among them, would meet one of them half initialised.
    """

    def __init__(self, pending: dict[str, Callable[[], None]]) -> None:
        self.pending = pending
        self.depth = 0  # imports of transformers and hf_galaxy that are not complete yet

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders return, with the execution of the module counted."""
        if not self.pending or fullname.partition(".")[0] not in ("transformers", "hf_galaxy"):
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = self._counted(spec.loader.exec_module)  # type: ignore[method-assign, assignment]
        return spec

    def _counted(self, execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
        def counted(module: ModuleType) -> None:
            self.depth += 1
            try:
                execute(module)
            finally:
                self.depth -= 1
            self.run_due_actions()

        return counted

    def run_due_actions(self) -> None:
        """Run the actions whose modules have been imported, unless an import is in progress."""
        while self.depth == 0 and (module := next(filter(sys.modules.__contains__, self.pending), None)):
            self.pending.pop(module)()  # which may import the next


def register_when_imported() -> None:
    """Register the models and the pipeline: now if transformers is imported, else as soon as it is."""
    watcher = _ImportWatcher(
        {
            "transformers.models.auto.configuration_auto": _register_models,
            "transformers.pipelines": _register_pipeline,
        }
    )
    watcher.run_due_actions()
    sys.meta_path.insert(0, watcher)
