"""Tensors of a loaded model: all of them, their size, and moving them between devices in place.

All means also what ``model.to`` leaves behind: the scales that bitsandbytes keeps beside quantised
weights, and tensors that are plain attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import Unavailable


def move(model: torch.nn.Module, device: torch.device | str) -> None:
    """Moves all tensors of ``model`` to ``device``, in place.

    Nothing is converted or quantised anew, tensors that share memory still share it, and
    parameters stay the same objects. All or nothing: where ``device`` has no room
    (``torch.OutOfMemoryError``), the model stays as it was.

    Raises ``Unavailable`` for a 4-bit model that has computed on the CPU and is to leave it.
    """
    device = torch.device(device)
    # A host may call this inside inference mode; weights made there could not be used outside.
    with torch.inference_mode(False), torch.no_grad():
        tensors = list(_tensors(model))
        if device.type != "cpu":
            _refuse_repacked(model)
        moved: dict[_Memory, Tensor] = {}
        for tensor, _ in tensors:
            if (key := _memory(tensor)) not in moved:
                moved[key] = tensor.to(device)
        for tensor, replace in tensors:
            replace(moved[_memory(tensor)])


def model_bytes(model: torch.nn.Module, device: torch.device | None = None) -> int:
    """Bytes of all tensors of ``model``, shared memory counted once; only of those on ``device``,
    if one is given."""
    tensors = {_memory(tensor): tensor for tensor, _ in _tensors(model)}.values()
    return sum(tensor.nbytes for tensor in tensors if device in (None, tensor.device))


def mapped_bytes(model: torch.nn.Module) -> int:
    """Bytes of memory-mapped tensors. They change with their file, and where such a file is cut
    short, the process that reads on is killed."""
    tensors = {_memory(t): t for t, _ in _tensors(model) if _is_mapped(t)}.values()
    return sum(tensor.nbytes for tensor in tensors)


def unmap(model: torch.nn.Module) -> None:
    """Copies memory-mapped tensors into memory of their own; shared ones stay shared."""
    copies: dict[_Memory, Tensor] = {}
    with torch.inference_mode(False), torch.no_grad():
        for tensor, replace in _tensors(model):
            if _is_mapped(tensor):
                if (key := _memory(tensor)) not in copies:
                    copies[key] = tensor.clone()
                replace(copies[key])


def _is_mapped(tensor: Tensor) -> bool:
    # Storage that torch itself has allocated can be resized; a mapped file cannot.
    return tensor.device.type == "cpu" and not tensor.untyped_storage().resizable()


_Memory = tuple[Any, ...]


def _memory(tensor: Tensor) -> _Memory:
    """Equal for tensors that are the same view of the same memory."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


_Replaceable = tuple[Tensor, Callable[[Tensor], None]]


def _tensors(model: torch.nn.Module) -> Iterator[_Replaceable]:
    """Each tensor of ``model`` with a function that puts another in its place. Shared ones come
    once for each place that holds them."""
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                yield parameter.data, partial(setattr, parameter, "data")
                yield from _attributes(vars(parameter))
        yield from _attributes(module._buffers)
        yield from _attributes(vars(module))


def _attributes(holder: MutableMapping[str, Any]) -> Iterator[_Replaceable]:
    for name, value in holder.items():
        if isinstance(value, Tensor) and not isinstance(value, torch.nn.Parameter):
            yield value, partial(holder.__setitem__, name)
        elif type(value).__name__ in ("MatmulLtState", "QuantState"):  # those of bitsandbytes
            yield from _attributes(vars(value))


def _refuse_repacked(model: torch.nn.Module) -> None:
    """On some processors bitsandbytes repacks 4-bit weights when they first compute on the CPU,
    and rounds their scales: other devices can no longer compute with them."""
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            raise Unavailable(
                "This 4-bit model has computed on the CPU, where bitsandbytes packed it in a form "
                "that no other device reads. Load it again for the device that it is to run on."
            )
