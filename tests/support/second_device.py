"""A second device for tests on machines without one: tensors on it meet tensors of the processor in no operator.

It goes by the name of "meta", the one device besides the processor that every build of PyTorch knows, and computes.
`Away.waits` lists the operators that would make the processor wait for an accelerator.
"""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

aten = torch.ops.aten
SCALARS = ("add", "sub", "mul", "div", "pow", "rsub")  # take one number of the processor beside a tensor
COPIES = ("aten::copy_", "aten::_to_copy")
AWAY = torch.device("meta")


class Remote(torch.Tensor):
    """A tensor on the second device; `here` holds its values."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=AWAY,
            requires_grad=False,
        )

    def __init__(self, here):
        self.here = here

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} on the second device outside of Away")


class Away(TorchDispatchMode):
    """Gives "meta" values while it is entered."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = []
        tree_map(lambda t: tensors.append(t) if isinstance(t, torch.Tensor) else None, (args, kwargs))
        wanted = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if not any(isinstance(t, Remote) for t in tensors) and wanted != AWAY:
            return func(*args, **kwargs)
        name = func.overloadpacket._qualified_op_name
        short = name.removeprefix("aten::").rstrip("_")
        if name not in COPIES:
            for tensor in tensors:
                if not isinstance(tensor, Remote) and (tensor.ndim or short not in SCALARS):
                    raise RuntimeError(f"{name} meets tensors on two devices")
        if name == "aten::_local_scalar_dense" or (wanted is not None and wanted.type == "cpu"):
            self.waits.append(name)
        if wanted == AWAY:
            kwargs["device"] = torch.device("cpu")
        known = {id(t.here): t for t in tensors if isinstance(t, Remote)}
        plain = tree_map(lambda t: t.here if isinstance(t, Remote) else t, (args, kwargs))
        found = func(*plain[0], **plain[1])
        if name == "aten::_to_copy" and wanted is not None and wanted.type == "cpu":
            return found
        if name == "aten::copy_" and not isinstance(args[0], Remote):
            self.waits.append(name)
            return args[0]

        def back(t):
            if not isinstance(t, torch.Tensor):
                return t
            return known[id(t)] if id(t) in known else Remote(t)

        return tree_map(back, found)
