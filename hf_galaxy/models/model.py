"""The galaxy models of votes and classes, and what all have in common: a backbone, a head, and their outputs. Legend: B galaxies,
A answers, Q questions, C classes, D features.

They are ordinary transformers models: `save_pretrained`, `from_pretrained`, `AutoModel` once hf_galaxy is imported.
"""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.clip import CLIPImageProcessor
from transformers.utils import ModelOutput

from hf_galaxy.data.band_stretch import BandStretch, stretched
from hf_galaxy.errors import BadInput
from hf_galaxy.losses import (
    class_cross_entropy,
    dirichlet_multinomial_nll,
    expected_fractions,
    masked_binary_cross_entropy,
    multinomial_nll,
    question_log_softmax,
)
from hf_galaxy.models.backbones import build, set_checkpointing
from hf_galaxy.models.calibration import calibrated_concentrations, calibrated_logs, check_calibration
from hf_galaxy.models.configuration import GalaxyConfig
from hf_galaxy.models.head_activation import HEAD_ACTIVATIONS, weights_of
from hf_galaxy.models.remote_code import save_code


@dataclass
class GalaxyVotesOutput(ModelOutput):
    """The outputs of a votes model.

    Attributes:
        loss: mean over galaxies of the summed negative log-likelihood of all questions, in nats; None without votes.
        concentrations: (B, A) of the Dirichlet over vote fractions, or (B, 2, A) of two that are mixed; None with the multinomial likelihood.
        fractions: (B, A) expected vote fractions, adding up to 1 within each question.
        nll: (B, Q) negative log-likelihood of each question, 0 where it has no votes; None without votes.
        weights: (B, 2, Q) of the two Dirichlets of each question, which add up to 1; None if there is one.
    """

    loss: torch.Tensor | None = None
    concentrations: torch.Tensor | None = None
    fractions: torch.Tensor | None = None
    nll: torch.Tensor | None = None
    weights: torch.Tensor | None = None


class GalaxyPreTrainedModel(PreTrainedModel):
    """A backbone, the normalisation of its images, and a linear head; the subclasses define the head's outputs."""

    config_class = GalaxyConfig
    # Else Trainer infers from **kwargs that the model divides the loss itself, and sums accumulated batches instead of averaging.
    accepts_loss_kwargs = False
    main_input_name = "pixel_values"
    _supports_sdpa = True
    # Of a model in half precision, too: the sky may be thousands of times its noise. So it takes fluxes in float32.
    _keep_in_fp32_modules_strict = ("band_sky", "band_noise", "band_saturation")
    supports_gradient_checkpointing = True
    gradient_checkpointing = False  # transformers reads here whether it is enabled

    def __init__(self, config: GalaxyConfig, outputs: int) -> None:
        super().__init__(config)
        # First, so that with the same seed it equals the backbone of its own library.
        self.backbone, width = build(
            config.backbone, config.backbone_config, config.image_size, config.drop_path, config.channels
        )
        self.dropout = nn.Dropout(config.head_dropout)
        self.head = nn.Linear(width, outputs)
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(-1, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(-1, 1, 1))
        if config.band_stretch:
            for name, values in BandStretch.from_dict(config.band_stretch).to_dict().items():
                self.register_buffer(f"band_{name}", torch.tensor(values).view(-1, 1, 1))
        self.frozen: list[nn.Module] = []
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # The backbone's library has initialised it. transformers would initialise every Linear and Conv2d again, in its own
        # way: here only what from_pretrained leaves unset (buffers that are not saved) is computed.
        if module is self.head:
            module.reset_parameters()
        elif hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()

    def get_input_embeddings(self) -> None:
        """None, since pictures have no table of embeddings; FSDP calls this, and the method of transformers fails."""
        return None

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable = checkpoint, every_n_layers: int = 1
    ) -> None:
        # gradient_checkpointing_enable and gradient_checkpointing_disable of transformers call it.
        set_checkpointing(self.backbone, enable, gradient_checkpointing_func, every_n_layers)
        self.gradient_checkpointing = enable

    @property
    def fitted_after_training(self) -> dict[str, torch.Tensor]:
        """Further tensors to save, which came after the model was distributed over processes."""
        return {}

    def freeze(self, parameters: Iterable[nn.Parameter]) -> None:
        """Exclude these from training. Modules all of whose parameters are frozen stay in evaluation mode, also after `train`:
        their batch norms keep their statistics, and they apply no dropout.
        """
        for parameter in parameters:
            parameter.requires_grad_(False)
        self.frozen = _frozen_modules(self)

    def train(self, mode: bool = True) -> "GalaxyPreTrainedModel":
        """As in torch, except for frozen modules."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) RGB or (B, 1, S, S) grey, in [0, 1], or the fluxes (B, K, S, S) of K bands -> (B, D): the features of the backbone."""
        if self.config.bands:
            pixel_values = stretched(pixel_values, self.band_sky, self.band_noise, self.band_saturation)
        pixel_values = pixel_values.to(self.pixel_mean.dtype)  # half precision, of such a model
        return self.backbone((pixel_values - self.pixel_mean) / self.pixel_std)  # grey is broadcast to three channels

    def head_outputs(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3 or 1, S, S) in [0, 1], or fluxes -> (B, outputs of the head), float32 under any autocast."""
        return self.head(self.dropout(self.features(pixel_values))).float()

    @property
    def columns(self) -> list[str]:
        """The names of what is predicted, in its order; `outputs_of` says which outputs of the head each comes from."""
        raise NotImplementedError

    @property
    def prediction_columns(self) -> list[str]:
        """The names of the numbers that `predictions` gives, in their order."""
        return self.columns

    def predictions(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3 or 1, S, S) in [0, 1] -> (B, numbers): what tables of predictions hold."""
        raise NotImplementedError

    def head_mismatch(self, other: "GalaxyPreTrainedModel") -> str | None:
        """Why the outputs of another model's head mean something else than this one's; None if columns alike mean the same."""
        if type(other) is not type(self):
            return f"is a {type(other).__name__}, but a {type(self).__name__} is to be trained"
        return None

    def head_rows(
        self, other: "GalaxyPreTrainedModel", ours: list[int], theirs: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and biases for some columns, with which this model predicts what the other does in its columns `theirs`."""
        rows = other.outputs_of(theirs)
        return other.head.weight[rows], other.head.bias[rows]

    def outputs_of(self, columns: list[int]) -> list[int]:
        """The outputs of the head that some columns come from."""
        return columns

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of parameters of the backbone and of the head."""
        counts = {part: sum(p.numel() for p in getattr(self, part).parameters()) for part in ("backbone", "head")}
        assert sum(counts.values()) == sum(p.numel() for p in self.parameters())
        return counts

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """As in transformers; also saves the image processor that frames pictures as in training, and the code."""
        super().save_pretrained(save_directory, **kwargs)
        framing = self.config.framing
        if not framing.bands:  # image processors know no fluxes
            CLIPImageProcessor(
                size={"shortest_edge": framing.scaled}, crop_size=framing.size, do_normalize=False  # the model normalises
            ).save_pretrained(save_directory)  # fmt: skip
        save_code(Path(save_directory), type(self))


def _frozen_modules(module: nn.Module) -> list[nn.Module]:
    """The outermost modules with parameters all of which are frozen."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return [module]
    return [frozen for child in module.children() for frozen in _frozen_modules(child)]


class GalaxyForVotes(GalaxyPreTrainedModel):
    """Predicts the votes of volunteers: for every question of the tree a mixture of two Dirichlets over its vote fractions, or one.

    concentrations = activation(linear(features)), with `config.head_activation` (`head_activation.HEAD_ACTIVATIONS`); the weights of a mixture
    are further outputs of the head, one for each question. With `likelihood="multinomial"` fractions = softmax(linear(features)) within each question. Both are corrected by
    `config.calibration` (`calibration`), if there is one.
    """

    def __init__(self, config: GalaxyConfig) -> None:
        if config.tree is None:
            raise BadInput("GalaxyForVotes needs a config with a tree, such as GalaxyConfig(backbone=..., tree='gz2')")
        self.tree = config.decision_tree
        if config.calibration is not None:
            check_calibration(
                config.calibration, {"scales": len(self.tree.questions), "shifts": len(self.tree.columns)}
            )
        outputs = len(self.tree.columns)
        super().__init__(config, 2 * outputs + len(self.tree.questions) if config.is_mixed else outputs)

    @property
    def columns(self) -> list[str]:
        """The names of the columns of concentrations and fractions."""
        return self.tree.columns

    def outputs_of(self, columns: list[int]) -> list[int]:
        """Of a mixture, those of both concentrations of each answer and, at the place of each answer, of the weights of its question."""
        if not self.config.is_mixed:
            return columns
        answers = len(self.columns)
        weights = [2 * answers + self.tree.question_of_answer[column] for column in columns]
        return [*columns, *(answers + column for column in columns), *weights]

    @property
    def prediction_columns(self) -> list[str]:
        """Each answer's expected fraction and, with the Dirichlet-multinomial likelihood, its concentrations, and of a mixture the weight of the first
        distribution of each question."""
        kinds = ["fraction"]
        if self.config.likelihood == "dirichlet_multinomial":
            kinds += ["concentration", "concentration_2"] if self.config.is_mixed else ["concentration"]
        weights = [f"{question.name}_weight" for question in self.tree.questions if self.config.is_mixed]
        return [*(f"{column}_{kind}" for kind in kinds for column in self.columns), *weights]

    def predictions(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, A) fractions, or (B, 2 A) fractions and concentrations, or (B, 3 A + Q) also the second ones, and the weight of the first distribution."""
        answer = self(pixel_values=pixel_values)
        parts = [answer.fractions]
        if answer.concentrations is not None:
            parts.append(answer.concentrations.flatten(1))
        if answer.weights is not None:
            parts.append(answer.weights[:, 0])
        return torch.cat(parts, dim=1)

    def head_mismatch(self, other: GalaxyPreTrainedModel) -> str | None:
        """Also models of another likelihood, or another activation of its concentrations."""
        if mismatch := super().head_mismatch(other):
            return mismatch
        # Without a Dirichlet distribution the activation is not used.
        names = (
            ("likelihood", "head_activation") if self.config.likelihood == "dirichlet_multinomial" else ("likelihood",)
        )
        for name in names:
            theirs = getattr(other.config, name)
            if theirs != getattr(self.config, name):
                return f"has --{name.replace('_', '-')} {theirs}, whose outputs mean something else; give it, too"
        return None

    def forward(
        self, pixel_values: torch.Tensor, votes: torch.Tensor | None = None, **kwargs: Any
    ) -> GalaxyVotesOutput:
        """Expected votes of galaxies, and the loss if their votes are given.

        Args:
            pixel_values: (B, 3, S, S) RGB, or (B, 1, S, S) grey, in [0, 1]; of a model of bands their fluxes (B, K, S, S).
            votes: (B, A) counts in the order of `config.decision_tree.columns`.
        """
        outputs, calibration = self.head_outputs(pixel_values), self.config.calibration
        if self.config.likelihood == "multinomial":
            if calibration is not None:
                outputs = calibrated_logs(outputs, calibration, self.tree)
            concentrations, weights, fractions = None, None, question_log_softmax(outputs, self.tree).exp()
            nll = None if votes is None else multinomial_nll(votes, outputs, self.tree)
        else:
            concentrations, weights = self.distributions(outputs)
            if calibration is not None:
                concentrations = calibrated_concentrations(concentrations, calibration, self.tree)
            fractions = expected_fractions(concentrations, self.tree, weights)
            nll = None if votes is None else dirichlet_multinomial_nll(votes, concentrations, self.tree, weights)
        loss = None if nll is None else nll.sum(dim=1).mean()
        return GalaxyVotesOutput(
            loss=loss, concentrations=concentrations, fractions=fractions, nll=nll, weights=weights
        )

    def distributions(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Concentrations and weights, as of `GalaxyVotesOutput` but before the calibration, from the outputs of the head."""
        activation = HEAD_ACTIVATIONS[self.config.head_activation]
        if not activation.mixed:
            return activation.concentrations(outputs), None
        of_answers, of_questions = outputs.tensor_split([2 * len(self.columns)], dim=1)
        return activation.concentrations(of_answers.unflatten(1, (2, -1))), weights_of(of_questions)

    @torch.no_grad()
    def start_from_constant(self, concentrations: torch.Tensor, fractions: torch.Tensor) -> None:
        """Set the head's bias so that an untrained model predicts about these constants (A,) for every galaxy.

        Training then starts near the baseline, as near as the activation allows. Of a mixture, one distribution is more certain and one less: two that
        are equal would stay so.
        """
        activation = HEAD_ACTIVATIONS[self.config.head_activation]
        if self.config.likelihood == "multinomial":
            bias = fractions.clamp_min(1e-3).log()
        elif activation.mixed:
            # Of constants beyond its reach, both halves would be what is nearest to them.
            within = activation.concentrations(activation.outputs(concentrations))
            halves = [activation.outputs(within * factor) for factor in (2, 0.5)]
            bias = torch.cat([*halves, concentrations.new_zeros(len(self.tree.questions))])
        else:
            bias = activation.outputs(concentrations)
        self.head.bias.copy_(bias)


class GalaxyForImageClassification(GalaxyPreTrainedModel):
    """Predicts one of several classes; their names are `config.id2label`.

    With `config.problem_type="multi_label_classification"` each is a label of its own, yes or no: probabilities are the sigmoid of
    the logits, and the loss is the binary cross-entropy (`losses.masked_binary_cross_entropy`). Logits of exclusive classes are divided by the temperature in
    `config.calibration`, if there is one (`calibration`). Of exclusive classes, in training, `config.label_smoothing` and `config.class_weights` change the loss (`losses.class_cross_entropy`).
    """

    def __init__(self, config: GalaxyConfig) -> None:
        if config.tree is not None or config.values is not None:
            # Two answers, or two values, would silently become two classes.
            raise BadInput(
                "GalaxyForImageClassification: this config is of a model of votes or values; to classify with its backbone, "
                "load it with tree=None, values=None, num_labels=... and ignore_mismatched_sizes=True"
            )
        weights = config.class_weights
        if weights and (len(weights) != config.num_labels or not all(0 < weight < math.inf for weight in weights)):
            raise BadInput(
                f"class_weights {' '.join(map(str, weights))}: must be one number above 0 for each of the {config.num_labels} classes "
                f"{', '.join(config.id2label.values())}"
            )
        if isinstance(config.calibration, dict) and self._is_of_another_head(config):
            config.calibration = None
        if config.calibration is not None:
            check_calibration(config.calibration, {"temperature": None, "classes": None})
        super().__init__(config, config.num_labels)

    @property
    def columns(self) -> list[str]:
        """The names of the columns of the logits."""
        return [self.config.id2label[i] for i in range(self.config.num_labels)]

    @staticmethod
    def _is_of_another_head(config: GalaxyConfig) -> bool:
        """Whether its calibration is that of votes, or of other classes, whose backbone gets a new head here."""
        calibration, classes = config.calibration or {}, config.num_labels
        if config.problem_type == "multi_label_classification" or calibration.keys() - {"tails"} == {
            "scales",
            "shifts",
        }:
            return True
        return "classes" in calibration and calibration["classes"] != classes

    @property
    def multi_label(self) -> bool:
        """Whether a galaxy can be of several classes at once."""
        return self.config.problem_type == "multi_label_classification"

    @property
    def prediction_columns(self) -> list[str]:
        """Each class's probability."""
        return [f"{name}_probability" for name in self.columns]

    def predictions(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, C) probabilities."""
        logits = self(pixel_values=pixel_values).logits
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)

    def head_mismatch(self, other: GalaxyPreTrainedModel) -> str | None:
        """Also exclusive classes, where these are labels of their own, or the other way round."""
        mismatch = super().head_mismatch(other)
        if mismatch is None and other.multi_label != self.multi_label:
            return f"has {'labels of their own' if other.multi_label else 'exclusive classes'}, whose outputs mean something else"
        return mismatch

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        """Class logits (B, C), and the loss if `labels` are passed: in training with smoothing and weights, else the cross-entropy.

        Args:
            pixel_values: (B, 3, S, S) RGB, or (B, 1, S, S) grey, in [0, 1]; of a model of bands their fluxes (B, K, S, S).
            labels: (B,) class indices, or (B, C) shares of the classes; of a multi-label model (B, C), 1 for yes, 0 for no, NaN where missing.
        """
        logits = self.head_outputs(pixel_values)
        if self.config.calibration is not None:
            logits = logits / self.config.calibration["temperature"]
        loss = None
        if labels is not None and self.multi_label:
            loss = masked_binary_cross_entropy(labels, logits).mean()
        elif labels is not None:
            changes = (self.config.label_smoothing, self.config.class_weights) if self.training else ()
            loss = class_cross_entropy(labels, logits, *changes).mean()
        return ImageClassifierOutput(loss=loss, logits=logits)
