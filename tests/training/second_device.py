"""A device besides the CPU, where there is none: tensors on "meta" that have values, and that do not mix with those of the CPU."""

import contextlib
from collections.abc import Iterator

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
aten = torch.ops.aten
CROSSING = {aten._to_copy, aten.to, aten.copy_, aten.index, aten.index_put_}  # which take tensors of both devices


class Elsewhere(torch.Tensor):
    """A tensor on the second device; the values are computed on the CPU."""

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "Elsewhere":
        layout = dict(strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype)
        tensor = torch.Tensor._make_wrapper_subclass(cls, values.shape, **layout, device=DEVICE)
        tensor.values = values
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


class _Device(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


class _Constants(TorchFunctionMode):
    """`torch.tensor` makes what it is asked for on "meta" without an operation that could be seen."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.tensor and kwargs and "device" in kwargs:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **(kwargs or {}))


def _compute(func, args, kwargs):
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    asked = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    devices = {isinstance(tensor, Elsewhere) for tensor in tensors if tensor.dim() or isinstance(tensor, Elsewhere)}
    if len(devices) == 2 and func.overloadpacket not in CROSSING:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    there = asked[0] == DEVICE if asked else True in devices
    here = tree_map_only(torch.device, lambda device: torch.device("cpu"), (args, kwargs))
    here_args, here_kwargs = tree_map_only(Elsewhere, lambda tensor: tensor.values, here)
    result = func(*here_args, **here_kwargs)
    first, *_ = (*func._schema.arguments, None)
    if first is not None and first.alias_info is not None and first.alias_info.is_write:
        return args[0]
    return tree_map_only(torch.Tensor, Elsewhere, result) if there else result


@contextlib.contextmanager
def second_device() -> Iterator[torch.device]:
    """Meanwhile there is a second device; a tensor of it and one of the CPU in one operation are an error, as on a GPU."""
    with _Device(), _Constants():
        yield DEVICE
