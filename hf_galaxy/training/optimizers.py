"""Parameter groups, each with its learning rate and weight decay, and the optimiser of them."""

import fnmatch
import warnings

import timm.optim
import torch
from torch import nn

from hf_galaxy.errors import BadInput

ADAMW = "adamw"


def parameter_groups(
    model: nn.Module, weight_decay: float, layers: list[list[str]] | None = None, layer_decay: float = 1.0
) -> list[dict]:
    """Every trainable parameter in exactly one group, for `make_optimizer`; the order depends on the model alone.

    Weight decay applies to matrices and filters, which multiply inputs and are called "weight" or "..._weight" in both libraries. It
    does not apply to vectors of any shape (biases, norms, scales of channels or heads); to tables that are added or looked up (position
    embeddings, `nn.Embedding`, relative position biases; class, register and other tokens); and to names in timm's `no_weight_decay`.

    Layer-wise decay is that of BEiT (papers/2106.08254, `LayerDecayValueAssigner` in its code): the learning rate of parameters
    in no layer (the head) is multiplied with 1, of the last layer with `layer_decay`, of the one before with its square, and so on.

    Args:
        weight_decay: of the parameters that it applies to.
        layers: names of parameters as in `model.named_parameters()`, from input to output.
        layer_decay: in (0, 1]; 1 trains every layer at the same rate.

    Returns:
        For each group its "params", "weight_decay" and "lr_scale"; the loop sets "lr" to rate times "lr_scale".

    Raises:
        ValueError: a name in a layer is no parameter of the model; else the parameter that is meant would train like the head.
    """
    layers = layers or []
    scales = {name: layer_decay ** (len(layers) - i) for i, names in enumerate(layers) for name in names}
    if unknown := scales.keys() - dict(model.named_parameters()).keys():
        raise ValueError(f"{min(unknown)} is in a layer but is no parameter of the model")
    exempt = _without_weight_decay(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (0.0 if name in exempt else weight_decay, scales.get(name, 1.0))
            groups.setdefault(key, []).append(parameter)
    return [{"params": params, "weight_decay": decay, "lr_scale": scale} for (decay, scale), params in groups.items()]


def _without_weight_decay(model: nn.Module) -> set[str]:
    tables = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    patterns = [
        f"{prefix}.{pattern}".removeprefix(".")
        for prefix, module in model.named_modules()
        if hasattr(module, "no_weight_decay")  # timm's models and a few of their parts
        for pattern in module.no_weight_decay()
    ]

    def decays(name: str, parameter: nn.Parameter) -> bool:
        multiplies = name.endswith("weight") or "weight_" in name.rpartition(".")[2]  # "weight_ih_l0" of an LSTM
        # ConvNeXt V2 of transformers keeps a vector as (1, 1, 1, D); a head with one output is a matrix (1, D).
        vector = parameter.ndim <= 1 or (parameter.ndim > 2 and parameter.shape[:-1].numel() == 1)
        named = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        return multiplies and not vector and not named and id(parameter) not in tables

    return {name for name, parameter in model.named_parameters() if not decays(name, parameter)}


def make_optimizer(name: str, groups: list[dict]) -> torch.optim.Optimizer:
    """An optimiser over `parameter_groups`, with a learning rate of 0 until the loop sets one.

    Args:
        name: "adamw", or another of timm's that `check_optimizer` accepts. Its other settings (betas, momentum) are timm's
            defaults. Weight decay is decoupled in some and added to the gradient in others ("sgd" adds it to the gradient,
            "sgdw" decouples it).
    """
    if name == ADAMW:
        return torch.optim.AdamW(groups, lr=0.0, fused=True)
    return timm.optim.create_optimizer_v2(groups, opt=name, lr=0.0)


def check_optimizer(name: str) -> None:
    """Refuse an optimiser that does not work with the training loop, after two trial steps.

    Among these are optimisers that need second derivatives (adahessian), a learning rate above 0 before the first step (madgrad,
    adamc), or another library (fused..., bnb...), and timm's wrapper lookahead_....

    Raises:
        BadInput: names optimisers that work.
    """
    good = f"{ADAMW}, lion, muon, nadamw and sgd are among those that work"
    # apex and bitsandbytes are neither among our requirements nor tested.
    if name not in timm.optim.list_optimizers(exclude_filters=["fused*", "bnb*"]):
        raise BadInput(f"--optimizer {name}: not an optimiser of timm that can be used here; {good}")
    weight = nn.Parameter(torch.eye(4))
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # of libraries that would make it faster
            optimizer = make_optimizer(name, [{"params": [weight], "weight_decay": 0.0, "lr_scale": 1.0}])
            optimizer.param_groups[0]["lr"] = 0.1
            for _ in range(2):  # the first of ADOPT only starts its averages
                weight.square().sum().backward()
                optimizer.step()
    except Exception as error:  # each has exceptions of its own
        reason = " ".join(str(error).split())[:100]
        raise BadInput(f"--optimizer {name}: does not work with this training loop ({reason}); {good}") from error
    if any(isinstance(value, torch.dtype) for group in optimizer.param_groups for value in group.values()):
        raise BadInput(f"--optimizer {name}: its state cannot be saved with a checkpoint; {good}")
    if torch.equal(weight, torch.eye(4)) or not weight.isfinite().all():
        raise BadInput(f"--optimizer {name}: two steps with it do not train; {good}")
