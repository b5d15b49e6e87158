"""The trainable parts of a pretrained model (all, head, last layers, adapters), and a head initialized from another run."""

import re

import torch
from timm.layers import Conv2dSame
from torch import nn

from hf_galaxy.errors import BadInput
from hf_galaxy.models.backbones import layer_groups
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.models.start import load_model
from hf_galaxy.training.settings import TrainableParts

# Adapters are added to what these compute, and merged into their weights. Kinds derived from them may do something to the
# weights first, as the standardised filters of NFNets, and an adapter would not stay the same when merged.
ADAPTED = (nn.Linear, nn.Conv2d, Conv2dSame)


def prepare(model: GalaxyPreTrainedModel, trained: TrainableParts) -> int:
    """Freeze the other parts of the model, or add adapters to it.

    Returns:
        The number of trainable parameters.

    Raises:
        BadInput: the backbone has fewer layer groups, or no layer that is larger than its adapter would be.
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


def _add_adapters(model: GalaxyPreTrainedModel, rank: int) -> None:
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
def _adaptable(model: GalaxyPreTrainedModel, rank: int) -> list[str]:
    """The names of the backbone's layers that are larger than their adapter.

    Only layers that are called as modules: BEiT's attention multiplies with the weight of a layer that it never calls, and an
    adapter there would have no effect.
    """
    layers = {name: layer for name, layer in model.backbone.named_modules() if type(layer) in ADAPTED}
    called: set[nn.Module] = set()
    hooks = [layer.register_forward_hook(lambda layer, *_: called.add(layer)) for layer in layers.values()]
    size = model.config.image_size
    model.eval().features(torch.zeros(1, model.config.channels, size, size))
    for hook in hooks:
        hook.remove()

    def larger_than_adapter(layer: nn.Linear | nn.Conv2d) -> bool:
        # peft does not merge into grouped convolutions, and has no dilated ones. Depthwise convolutions are small anyway.
        plain = isinstance(layer, nn.Linear) or (layer.groups == 1 and layer.dilation == (1, 1))
        outputs, inputs = len(layer.weight), layer.weight[0].numel()
        return plain and rank * (outputs + inputs) < outputs * inputs

    return [name for name, layer in layers.items() if layer in called and larger_than_adapter(layer)]


def merge_adapters(model: GalaxyPreTrainedModel) -> None:
    """Merge the adapters into their layers: the model then has the layers that `from_pretrained` gives it, without peft."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.backbone.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            model.backbone.set_submodule(name, layer.get_base_layer())


@torch.no_grad()
def keep_head(model: GalaxyPreTrainedModel, start: str) -> list[str]:
    """Initialize the head from that of another run, for the columns that both have: answers, classes, labels or values.

    Args:
        model: with that run's backbone.
        start: the run's folder or Hub id.

    Returns:
        The columns that the other head does not have, which stay newly initialized.

    Raises:
        BadInput: it is no run of ours, or one whose head means something else.
    """
    old = load_model(start)
    if mismatch := model.head_mismatch(old):
        raise BadInput(f"--keep-head: {start} {mismatch}")
    columns, theirs = model.columns, old.columns
    if not (shared := [column for column in columns if column in theirs]):
        raise BadInput(f"--keep-head: {start} has none of the columns {', '.join(columns[:3])}, ...; leave it out")
    ours, rows = ([each.index(column) for column in shared] for each in (columns, theirs))
    own = model.outputs_of(ours)
    model.head.weight[own], model.head.bias[own] = model.head_rows(old, ours, rows)
    return [column for column in columns if column not in theirs]
