"""The configuration of the galaxy models."""

import math
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.views import Framing
from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.models.backbones import architecture
from hf_galaxy.models.head_activation import HEAD_ACTIVATIONS
from hf_galaxy.models.remote_code import forget_code


class GalaxyConfig(PreTrainedConfig):
    """The configuration of a galaxy model: enough to build it, and to name each of its output columns.

    Attributes:
        backbone: a timm architecture, or "transformers:" and a folder or Hub id.
        tree: for votes: a campaign's name, a list of names or a DecisionTree; config.json holds all of it.
        image_size, crop: how pictures are framed (`views.Framing`).
        likelihood: of the votes, "dirichlet_multinomial" or "multinomial".
        head_activation: from outputs of the head to Dirichlet distributions: a name in `head_activation.HEAD_ACTIVATIONS`.
        calibration: numbers that correct how certain the predictions of votes, classes or values are (`calibration`); None: none.
        label_smoothing: for classes, in training: the share of each label that is distributed over all classes.
        class_weights: for classes, in training: the weight of each class in the loss; None: all 1.
        values: for regression: their names, in the order of the outputs.
        unit_interval: for regression: the values and the outputs lie in [0, 1].
        value_mean, value_std: of each value, in its unit, for standardisation.
        spread: for regression: the model has weights from which it predicts standard deviations.
        head_dropout: dropout rate of the features before the head; 0.2 as in Zoobot 2.
        drop_path: stochastic depth rate of the backbone.
        bands: of the fluxes that the model sees, in the order of its channels; None: red, green and blue of 8-bit pictures.
        band_stretch: from fluxes to brightness: `data.band_stretch.BandStretch` as a dictionary; None without bands.
        rendering: how the files of its training set became 8-bit pictures, or were cropped and reduced to fluxes: fields of
            `data.pictures.Rendering`; None: unknown.
        backbone_config, pixel_mean, pixel_std: the latter two of what the backbone sees, in [0, 1]; None: those of the backbone's name (`backbones.architecture`).
    """

    model_type = "galaxy"
    has_no_defaults_at_init = True

    backbone: str
    tree: str | list | dict | None = None
    image_size: int = 224
    crop: float = 1.0
    likelihood: str = "dirichlet_multinomial"
    head_activation: str = "mixture"
    calibration: dict | None = None
    label_smoothing: float = 0.0
    class_weights: list | tuple | None = None
    values: list | tuple | None = None
    unit_interval: bool = False
    value_mean: list | tuple | None = None
    value_std: list | tuple | None = None
    spread: bool = False
    head_dropout: float = 0.2
    drop_path: float = 0.0
    bands: list | tuple | None = None
    band_stretch: dict | None = None
    rendering: dict | None = None
    backbone_config: dict | None = None
    pixel_mean: list | tuple | None = None
    pixel_std: list | tuple | None = None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "GalaxyConfig":
        """As in transformers. Files from before there was a choice of activations do not name theirs: it was the sigmoid."""
        return super().from_dict({"head_activation": "sigmoid"} | config_dict, **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        if self.pixel_mean is None:
            described = architecture(self.backbone)
            self.backbone_config = described.config
            self.pixel_mean, self.pixel_std = list(described.mean), list(described.std)
        if isinstance(self.tree, DecisionTree):
            self.tree = self.tree.to_dict()
        elif isinstance(self.tree, str | list | Path):
            self.tree = load_tree(self.tree).to_dict()
        if self.bands is not None:
            self._check_bands()
        if self.likelihood not in {"dirichlet_multinomial", "multinomial"}:
            raise BadInput(f"likelihood {self.likelihood!r}: choose dirichlet_multinomial or multinomial")
        if self.head_activation not in HEAD_ACTIVATIONS:
            raise BadInput(f"head_activation {self.head_activation!r}: choose {', '.join(HEAD_ACTIVATIONS)}")
        if not 0 < self.crop <= 1:
            raise BadInput(f"crop {self.crop}: must be a share of the picture's side, in (0, 1]")
        if self.values is not None:
            self.value_mean = self.value_mean or [0.5 if self.unit_interval else 0.0] * len(self.values)
            self.value_std = self.value_std or [1.0] * len(self.values)
            self._check_values()
        if not 0 <= self.label_smoothing < 1:
            raise BadInput(f"label_smoothing {self.label_smoothing}: must be a share, in [0, 1)")
        super().__post_init__(**forget_code(kwargs))

    def _check_bands(self) -> None:
        bands = self.bands or []
        if not 0 < len(set(bands)) == len(bands):
            raise BadInput(f"bands {' '.join(bands)}: must be one or several different names")
        if self.band_stretch is None or {len(each) for each in self.band_stretch.values()} != {len(bands)}:
            raise BadInput("band_stretch: must be that of the bands, as data.band_stretch.BandStretch measures it")
        if not len(self.pixel_mean or []) == len(self.pixel_std or []) == len(bands):
            raise BadInput(
                f"pixel_mean {self.pixel_mean}, pixel_std {self.pixel_std}: must be one number for each of {', '.join(bands)}"
            )

    def _check_values(self) -> None:
        values, means, stds = self.values or [], self.value_mean or [], self.value_std or []
        if not values or len(set(values)) < len(values):
            raise BadInput(f"values {' '.join(values)}: must be one or several different names")
        if not len(means) == len(stds) == len(values) or not all(0 < std < math.inf for std in stds):
            raise BadInput(
                f"value_mean {means}, value_std {stds}: must be one number for each of {', '.join(values)}, with no std of 0"
            )
        if self.unit_interval and not all(0 < mean < 1 for mean in means):
            raise BadInput(f"value_mean {means}: must be in (0, 1) with unit_interval")

    @property
    def decision_tree(self) -> DecisionTree:
        """The tree of a votes model, whose columns are those of the outputs."""
        # A name where transformers has set it after reading the configuration, as in from_pretrained(..., tree="gz2").
        if isinstance(self.tree, dict):
            return DecisionTree.from_dict(self.tree)
        return load_tree(self.tree)  # type: ignore[arg-type]  # None raises BadInput

    @property
    def is_mixed(self) -> bool:
        """Whether a votes model predicts two Dirichlet distributions for each question, and their weights."""
        return self.likelihood == "dirichlet_multinomial" and HEAD_ACTIVATIONS[self.head_activation].mixed

    @property
    def framing(self) -> Framing:
        """How pictures are framed for this model."""
        return Framing(self.image_size, self.crop, tuple(self.bands) if self.bands else None)

    @property
    def channels(self) -> int:
        """Of the pictures that the backbone sees: as many as bands, else 3."""
        return len(self.bands or "RGB")

    @property
    def file_rendering(self) -> Rendering:
        """How files become pictures for this model: as those of its training set, or by default where that is unknown."""
        return Rendering.of(self.rendering)
