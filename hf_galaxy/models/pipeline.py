"""The transformers pipeline "galaxy-morphology": from a picture in any format to the votes of volunteers.

Legend of shapes: S side of the view.
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import Pipeline, PreTrainedModel
from transformers.utils import ModelOutput

from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.pixels import pixels_of
from hf_galaxy.data.views import eval_view, to_canvases
from hf_galaxy.errors import BadInput
from hf_galaxy.models.morphology import check_options, morphology

OPTIONS = ("asked", "credible", "campaign", "volunteers")  # of `morphology`


class GalaxyMorphologyPipeline(Pipeline):
    """`pipeline("galaxy-morphology", model=...)`: for each galaxy the result of `morphology.morphology`.

    Accepts the path or URL of a JPEG, PNG, WebP, TIFF, GIF, BMP or FITS file, its bytes, a PIL image, a numpy array (see `pixels_of`), a list of these,
    a generator, or a torch dataset such as transformers' KeyDataset. Pictures are framed as in training and evaluation.

    Args:
        asked, credible, campaign, volunteers: options of `morphology`; here or in each call.
        rendering: how a picture becomes one such as those of the training set: a `pictures.Rendering`, or a dictionary with some of its
            values, such as {"stretch": "sqrt"}, beside those of the model. By default that of the training set, as far as it is known. Pictures
            that a published dataset holds have been rendered: of these, give {"crop": 1} if the dataset was cropped.
        timeout: seconds that a download may take; 20 by default.

    Raises:
        BadInput: the model does not predict votes, or sees fluxes; a picture cannot be read, which the message names; or an option is invalid.
    """

    _load_processor = False
    _load_image_processor = (
        True  # it is not used, as `views` frames the pictures, but transformers batches with it only
    )
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, model: PreTrainedModel, **kwargs: Any) -> None:
        if model.config.model_type != "galaxy" or model.config.tree is None:
            raise BadInput(
                f"galaxy-morphology needs a model of votes, and a {type(model).__name__} is not one; "
                'for classes use pipeline("image-classification")'
            )
        if model.config.bands:
            raise BadInput(
                f"galaxy-morphology reads pictures of 8 bits, and this model sees fluxes in {' '.join(model.config.bands)}; use "
                "hf_galaxy.predict, or call the model: model(pixel_values=fluxes)"
            )
        super().__init__(model.eval(), **kwargs)

    def _sanitize_parameters(
        self, rendering: Rendering | Mapping[str, Any] | None = None, timeout: float | None = None, **options: Any
    ) -> tuple[dict, dict, dict]:
        if unknown := options.keys() - OPTIONS:
            options_of_all = ", ".join([*OPTIONS, "rendering", "timeout"])
            raise BadInput(
                f"galaxy-morphology has no option {', '.join(sorted(unknown))}; its options are {options_of_all}"
            )
        check_options(self.model.tree, **options)
        if isinstance(rendering, Mapping):
            rendering = self.model.config.file_rendering.with_values(rendering)
        elif rendering is not None:
            rendering.check()
        reading = {"rendering": rendering, "timeout": timeout}
        return {name: value for name, value in reading.items() if value is not None}, {}, options

    def preprocess(
        self, picture: Any, rendering: Rendering | None = None, timeout: float = 20
    ) -> dict[str, torch.Tensor]:
        """`pixel_values` (1, 3, S, S) of one picture."""
        config = self.model.config
        pixels = pixels_of(picture, rendering or config.file_rendering, timeout)
        return {"pixel_values": eval_view(to_canvases([pixels], config.framing), config.framing)}

    def _forward(self, inputs: dict[str, torch.Tensor]) -> ModelOutput:
        return self.model(**inputs)

    def postprocess(self, answer: ModelOutput, **options: Any) -> list[dict]:
        """`morphology` of one galaxy, for each campaign."""
        # The multinomial likelihood has no concentrations, and a single Dirichlet has no weights.
        concentrations, weights = (
            None if (values := answer.get(name)) is None else values[0].numpy()
            for name in ("concentrations", "weights")
        )
        fractions = answer["fractions"][0].numpy()
        return morphology(fractions, concentrations, self.model.tree, weights=weights, **options)
