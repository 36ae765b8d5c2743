"""``train_net.py`` on a device that is none, without a GPU: the CPU computes.

As on a GPU, an operation whose tensors are on both devices raises, and no such tensor turns into an
array of numpy. PyTorch must have devices that are written in Python.
"""

import copy
import functools
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # not a package that is installed elsewhere

import d2_ssod.quiet  # noqa: F401  before what it silences

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import train_net
from d2_ssod.engine import default_argument_parser, launch

NAME = "pretended"
aten = torch.ops.aten

_INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
_JOINED = {aten.cat.default, aten.stack.default}
_COPIES = {aten.copy_.default, aten._to_copy.default}


class DeviceModule(backend_registration._DummyBackendModule):
    """What PyTorch asks such a device for."""

    def get_amp_supported_dtype(self):
        """That of a GPU."""
        return [torch.float16, torch.bfloat16]


class Pretended(Tensor):
    """A tensor of the device, which has another one of the CPU."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, held):
        """Keep the tensor of the CPU."""
        self.held = held

    def __repr__(self):
        return f"Pretended({self.held})"

    def __reduce_ex__(self, protocol):
        return self.held.__reduce_ex__(protocol)  # a file's tensors are read to the CPU first

    def __deepcopy__(self, memo):
        return Pretended(copy.deepcopy(self.held, memo)).requires_grad_(self.requires_grad)

    def tolist(self):
        """Wait for the device, as PyTorch's own, which refuses subclasses."""
        return self.held.tolist()

    def numpy(self, **_):
        """Refuse, as a tensor on a GPU does."""
        raise TypeError("a tensor of another device than the CPU has no array of numpy")

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return call(function, args, kwargs or {})


class Pretending(TorchDispatchMode):
    """Within it, tensors may be made on the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return call(function, args, kwargs or {})


def call(function, args, kwargs):
    """Have the CPU compute it, if all tensors are on one device."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    theirs = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    check_devices(function, args, tensors, theirs)
    device = kwargs.get("device")
    if device is not None:
        result_is_there = torch.device(device).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif function is aten.copy_.default:
        result_is_there = isinstance(args[0], Pretended)
    else:
        result_is_there = bool(theirs) and function is not aten._local_scalar_dense.default
    args, kwargs = tree_map_only(Pretended, lambda tensor: tensor.held, (args, kwargs))
    result = function(*args, **kwargs)
    if not result_is_there:
        return result
    given = {id(tensor.held): tensor for tensor in theirs}  # what is changed in place stays itself
    return tree_map_only(Tensor, lambda t: given[id(t)] if id(t) in given else Pretended(t), result)


def call_with(function, *args, **kwargs):
    """Call as PyTorch's dispatcher does."""
    return call(function, args, kwargs)


def check_devices(function, args, tensors, theirs):
    """Refuse what a GPU refuses: indices may be on the CPU, and most single numbers."""
    if function in _COPIES or not theirs:
        return
    if function in _INDEXED:
        tensors = [args[0], *(value for value in args[2:3] if isinstance(value, Tensor))]
    elsewhere = [tensor for tensor in tensors if not isinstance(tensor, Pretended)]
    if function._schema.name.endswith("_") and not isinstance(tensors[0], Pretended):
        raise RuntimeError(f"{function}: changes a tensor on the CPU by one on the device")
    if any(tensor.dim() > 0 or function in _JOINED for tensor in elsewhere):
        raise RuntimeError(f"{function}: its tensors are on the CPU and on the device")


def pretend():
    """Register the device, and let tensors be moved to it."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, DeviceModule())
    torch.__future__.set_swap_module_params_on_conversion(True)
    # Called where PyTorch makes a tensor outside of the mode.
    library = torch.library.Library("aten", "IMPL")
    for operator in (aten.empty_strided.default, aten.empty.memory_format, *_COPIES):
        library.impl(operator, functools.partial(call_with, operator), "PrivateUse1")
    return library


def read_config_for_it(*args, **kwargs):
    """Read a config, whose device is this one."""
    cfg = read_config(*args, **kwargs)
    cfg.MODEL.DEVICE = NAME
    return cfg


if __name__ == "__main__":
    setup = importlib.import_module("d2_ssod.engine.setup")
    read_config, setup.read_config = setup.read_config, read_config_for_it
    torch.cuda.get_device_name = lambda: "a device that is none"
    registered = pretend()
    with Pretending():
        launch(train_net.main, default_argument_parser().parse_args())
