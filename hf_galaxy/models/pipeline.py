"""The transformers pipeline "galaxy-morphology": from any kind of picture to what volunteers would say of the galaxy.

Legend of shapes: S side of the view.
"""

import torch
from transformers import Pipeline

from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.pixels import DEFAULT, pixels_of
from hf_galaxy.data.views import eval_view, to_canvases
from hf_galaxy.errors import BadInput
from hf_galaxy.models.morphology import check_options, morphology

OPTIONS = ("asked", "credible", "campaign", "volunteers")  # of `morphology`


class GalaxyMorphologyPipeline(Pipeline):
    """`pipeline("galaxy-morphology", model=...)`: for each galaxy what `morphology.morphology` says of it.

    Takes the path or the URL of a JPEG, PNG or FITS file, its bytes, a PIL image, a numpy array (`pixels_of` says of what), a
    list of these, a generator or a torch dataset such as transformers' KeyDataset. Pictures are framed as in training and
    evaluation.

    Args:
        asked, credible, campaign, volunteers: as of `morphology`; here or with each call.
        rendering: `pictures.Rendering`, how FITS files and 16-bit PNGs become pictures: as those that the model learnt from.
        timeout: seconds after which a download is given up; 20 by default.

    Raises:
        BadInput: the model predicts no votes; a picture cannot be read, which the message names; or an option is wrong.
    """

    _load_processor = False
    _load_image_processor = (
        True  # it is not used, as `views` frames the pictures, but transformers batches with it only
    )
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, model, **kwargs):
        if model.config.model_type != "galaxy" or model.config.tree is None:
            raise BadInput(
                f"galaxy-morphology is for models of votes, and a {type(model).__name__} is none; "
                'for classes take pipeline("image-classification")'
            )
        super().__init__(model.eval(), **kwargs)

    def _sanitize_parameters(self, rendering=None, timeout=None, **options):
        if unknown := options.keys() - OPTIONS:
            known = ", ".join([*OPTIONS, "rendering", "timeout"])
            raise BadInput(f"galaxy-morphology has no option {', '.join(sorted(unknown))}; its options are {known}")
        check_options(self.model.tree, **options)
        if rendering is not None:
            rendering.check()
        reading = {"rendering": rendering, "timeout": timeout}
        return {name: value for name, value in reading.items() if value is not None}, {}, options

    def preprocess(self, picture, rendering: Rendering = DEFAULT, timeout: float = 20) -> dict[str, torch.Tensor]:
        """`pixel_values` (1, 3, S, S) of one picture."""
        framing = self.model.config.framing
        view = eval_view(to_canvases([pixels_of(picture, rendering, timeout)], framing), framing)
        return {"pixel_values": view.to(self.dtype)}

    def _forward(self, inputs):
        return self.model(**inputs)

    def postprocess(self, answer, **options) -> list[dict]:
        """What is said of one galaxy, for each campaign."""
        concentrations = answer.get("concentrations")  # the multinomial likelihood has none
        return morphology(
            answer["fractions"][0].numpy(),
            None if concentrations is None else concentrations[0].numpy(),
            self.model.tree,
            **options,
        )
