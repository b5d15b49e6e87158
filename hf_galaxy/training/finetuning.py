"""What of a pretrained model is trained, and what its head keeps: the whole model, its head, its last layers, or adapters."""

import re

import torch
from timm.layers import Conv2dSame
from torch import nn

from hf_galaxy.errors import BadInput
from hf_galaxy.models.backbones import layer_groups
from hf_galaxy.models.model import GalaxyForRegression, GalaxyForVotes, GalaxyPreTrainedModel
from hf_galaxy.models.start import load_model
from hf_galaxy.training.settings import TrainableParts

# Adapters are added to what these compute, and merged into their weights. Kinds derived from them may do something to the
# weights first, as the standardised filters of NFNets, and an adapter would not stay the same when merged.
ADAPTED = (nn.Linear, nn.Conv2d, Conv2dSame)


def prepare(model: GalaxyPreTrainedModel, trained: TrainableParts) -> int:
    """Freeze what of the model is not trained, or add adapters to it; how many parameters are trained.

    Raises:
        BadInput: the backbone has not so many layer groups, or no layer that such adapters are smaller than.
    """
    parameters = dict(model.backbone.named_parameters())
    if trained.kind == "head":
        model.freeze(parameters.values())
    elif trained.kind == "last":
        groups = layer_groups(model.backbone)
        if trained.number >= len(groups):
            raise BadInput(
                f"--train last:{trained.number}: {model.config.backbone} has {len(groups)} layer groups; "
                "--train all trains them all"
            )
        model.freeze(parameters[name] for group in groups[: -trained.number] for name in group)
    elif trained.kind == "lora":
        _add_adapters(model, trained.number)
        model.freeze(parameters.values())
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _add_adapters(model, rank):
    """Low-rank adapters (papers/2106.09685), with alpha = rank: W x becomes W x + B A x, and B is 0 at first."""
    from peft import LoraConfig, inject_adapter_in_model  # takes a second, and is not always installed

    names = _adaptable(model, rank)
    if not names:
        raise BadInput(
            f"--train lora:{rank}: {model.config.backbone} has no linear layer or convolution of the usual kind that an "
            "adapter of this rank is smaller than; choose --train last:N"
        )
    exactly = "|".join(map(re.escape, names))  # a list would mean every name that ends in one of them
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=exactly)
    inject_adapter_in_model(config, model.backbone)


@torch.no_grad()
def _adaptable(model, rank):
    """The names of the backbone's layers that take an adapter smaller than they are themselves.

    Only of what is called as a module: BEiT's attention, for one, multiplies with the weight of a layer that it never calls,
    and an adapter there would not be heard of.
    """
    layers = {name: layer for name, layer in model.backbone.named_modules() if type(layer) in ADAPTED}
    called: set[nn.Module] = set()
    hooks = [layer.register_forward_hook(lambda layer, *_: called.add(layer)) for layer in layers.values()]
    size = model.config.image_size
    model.eval().features(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()

    def takes_one(layer):
        # peft cannot merge into a convolution in groups, and makes none with holes. Those by channel are small anyway.
        plain = isinstance(layer, nn.Linear) or (layer.groups == 1 and layer.dilation == (1, 1))
        outputs, inputs = len(layer.weight), layer.weight[0].numel()
        return plain and rank * (outputs + inputs) < outputs * inputs

    return [name for name, layer in layers.items() if layer in called and takes_one(layer)]


def merge_adapters(model: GalaxyPreTrainedModel) -> None:
    """Add the adapters to the weights that they stand beside: the model is again what `from_pretrained` makes, without peft."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.backbone.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            model.backbone.set_submodule(name, layer.get_base_layer())


@torch.no_grad()
def keep_head(model: GalaxyPreTrainedModel, start: str) -> list[str]:
    """Give the head the weights of another run's head where both have the same column: an answer, a class or a value.

    Args:
        model: with that run's backbone.
        start: the run's folder or Hub id.

    Returns:
        The columns that the other head does not have, which stay as they are.

    Raises:
        BadInput: it is no run of ours, or one whose head means something else.
    """
    old = load_model(start)
    if type(old) is not type(model):
        raise BadInput(f"--keep-head: {start} is a {type(old).__name__}, but a {type(model).__name__} is to be trained")
    if isinstance(model, GalaxyForVotes) and old.config.likelihood != model.config.likelihood:
        raise BadInput(
            f"--keep-head: {start} has --likelihood {old.config.likelihood}, whose outputs mean something else"
        )
    columns, theirs = model.columns, old.columns
    if isinstance(model, GalaxyForRegression) and old.config.unit_interval != model.config.unit_interval:
        raise BadInput(
            f"--keep-head: of {start} and this run one has --unit-interval; their outputs mean different things"
        )
    if not (shared := [column for column in columns if column in theirs]):
        raise BadInput(f"--keep-head: {start} has none of the columns {', '.join(columns[:3])}, ...; leave it out")
    ours, rows = ([each.index(column) for column in shared] for each in (columns, theirs))
    weight, bias = old.head.weight[rows], old.head.bias[rows]
    if isinstance(model, GalaxyForRegression):
        weight, bias = _in_other_units(weight, bias, old, rows, model, ours)
    model.head.weight[ours], model.head.bias[ours] = weight, bias
    return [column for column in columns if column not in theirs]


def _in_other_units(weight, bias, old, rows, model, ours):
    """Rows of a regression's head so that the model answers with them as the old one did: each has its own mean and deviation."""
    mean, std, before, spread = model.value_mean[ours], model.value_std[ours], old.value_mean[rows], old.value_std[rows]
    if model.config.unit_interval:
        return weight, bias + before.logit() - mean.logit()
    return weight * (spread / std)[:, None], (before + spread * bias - mean) / std
