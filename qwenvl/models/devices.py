"""Where a model is: its device or devices, its number type, and its way to RAM and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import BadOption, Unavailable

PRECISIONS: Mapping[str, torch.dtype | None] = {
    "auto": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


SPLIT = "split"
"""As a device: all CUDA devices, each with a part of the model."""


def pick_devices(wish: str) -> list[torch.device]:
    """The devices of a model, the one that takes its inputs first: all CUDA devices for
    ``split``, else the one of ``pick_device``. Raises ``BadOption`` and ``Unavailable``."""
    if wish != SPLIT:
        return [pick_device(wish)]
    count = torch.cuda.device_count()
    if count < 2:
        raise Unavailable(
            f"A model can be split over two or more CUDA devices, and torch sees "
            f"{count or 'none'} here. Choose auto; if the model is too large for it, 8bit or "
            "4bit, or a smaller model."
        )
    return [torch.device("cuda", index) for index in range(count)]


def least_capable(devices: Sequence[torch.device]) -> torch.device:
    """The device whose number types and kernels all of ``devices`` have. All are of one kind."""
    return devices[0] if len(devices) == 1 else min(devices, key=torch.cuda.get_device_capability)


def pick_device(wish: str) -> torch.device:
    """``auto``: the first CUDA, XPU or MPS device, else the CPU. ``split``: the first of them,
    which takes the inputs. Raises ``BadOption`` and ``Unavailable``."""
    if wish == SPLIT:
        return pick_devices(wish)[0]
    if wish == "auto":
        for kind in ("cuda", "xpu", "mps"):
            if _has(kind):
                return torch.device(kind, 0) if kind != "mps" else torch.device(kind)
        return torch.device("cpu")
    try:
        device = torch.device(wish)
    except RuntimeError as error:
        raise BadOption(f"{wish!r} is no device name. Use auto, cpu, cuda:0, cuda:1 ...") from error
    if device.type != "cpu" and not _has(device.type):
        raise Unavailable(
            f"Device {wish} was asked for, but torch {torch.__version__} sees no "
            f"{device.type} device here. Choose auto or cpu."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise Unavailable(
            f"Device {wish} was asked for, but there are only "
            f"{torch.cuda.device_count()} CUDA devices (from cuda:0)."
        )
    return device


def _has(kind: str) -> bool:
    module = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
    return module is not None and module.is_available()


def pick_dtype(wish: str, device: torch.device) -> torch.dtype:
    """``auto``: bf16 where the device computes it natively, fp16 on older CUDA cards, fp32 on
    the CPU, where half types are slower. Raises ``BadOption`` and ``Unavailable``."""
    if wish not in PRECISIONS:
        raise BadOption(f"precision is {wish!r}; use one of {', '.join(PRECISIONS)}.")
    native_bf16 = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    dtype = PRECISIONS[wish]
    if dtype is torch.bfloat16 and not native_bf16:
        raise Unavailable(
            f"{torch.cuda.get_device_name(device)} has no bf16. Choose auto, fp16 or fp32."
        )
    if dtype is not None:
        return dtype
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if native_bf16 else torch.float16


def free_memory() -> dict[int, int]:
    """Bytes that are free on each CUDA device, by its number."""
    return {i: torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())}


def move(model: torch.nn.Module, device: torch.device | str) -> None:
    """Takes everything that a loaded ``model`` holds to ``device``, in place.

    Also what ``model.to`` leaves behind: the numbers that bitsandbytes keeps beside its weights,
    and tensors that are plain attributes. Nothing is converted or quantised anew, what shares
    memory shares it afterwards, and parameters stay the same objects. All or nothing: where
    ``device`` has no room (``torch.OutOfMemoryError``), the model stays as it was.

    Raises ``Unavailable`` for a 4-bit model that has computed on the CPU and is to leave it.
    """
    device = torch.device(device)
    # A host may call this inside inference mode; weights made there could not be used outside.
    with torch.inference_mode(False), torch.no_grad():
        held = list(_held(model))
        if device.type != "cpu":
            _refuse_repacked(model)
        moved: dict[tuple[Any, ...], Tensor] = {}
        for tensor, _ in held:
            if (key := _place(tensor)) not in moved:
                moved[key] = tensor.to(device)
        for tensor, put in held:
            put(moved[_place(tensor)])


def model_bytes(model: torch.nn.Module, device: torch.device | None = None) -> int:
    """Bytes of all that ``move`` would take, shared memory counted once: the scales of quantised
    weights too, which are neither parameters nor buffers. Only what is on ``device``, if given."""
    held = {_place(tensor): tensor for tensor, _ in _held(model)}.values()
    return sum(tensor.nbytes for tensor in held if device in (None, tensor.device))


def mapped_bytes(model: torch.nn.Module) -> int:
    """Bytes of what stands in mapped files, not in memory of its own, and changes with them:
    whoever cuts such a file off ends the process that reads on."""
    held = {_place(tensor): tensor for tensor, _ in _held(model) if _is_mapped(tensor)}.values()
    return sum(tensor.nbytes for tensor in held)


def unmap(model: torch.nn.Module) -> None:
    """Gives what is mapped memory of its own; what shares memory shares it afterwards."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    with torch.inference_mode(False), torch.no_grad():
        for tensor, put in _held(model):
            if _is_mapped(tensor):
                if (key := _place(tensor)) not in copies:
                    copies[key] = tensor.clone()
                put(copies[key])


def _is_mapped(tensor: Tensor) -> bool:
    # Memory that torch itself has allocated can grow; that of files cannot.
    return tensor.device.type == "cpu" and not tensor.untyped_storage().resizable()


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tensors that are the same part of the same memory."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


_Held = tuple[Tensor, Callable[[Tensor], None]]


def _held(model: torch.nn.Module) -> Iterator[_Held]:
    """Each tensor that ``model`` holds, with what puts another in its place. Shared ones come as
    often as they are held."""
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                yield parameter.data, partial(setattr, parameter, "data")
                yield from _attributes(vars(parameter))
        yield from _attributes(module._buffers)
        yield from _attributes(vars(module))


def _attributes(holder: MutableMapping[str, Any]) -> Iterator[_Held]:
    for name, value in holder.items():
        if isinstance(value, Tensor) and not isinstance(value, torch.nn.Parameter):
            yield value, partial(holder.__setitem__, name)
        elif type(value).__name__ in ("MatmulLtState", "QuantState"):  # those of bitsandbytes
            yield from _attributes(vars(value))


def _refuse_repacked(model: torch.nn.Module) -> None:
    """On some processors bitsandbytes packs 4-bit weights anew when they first compute on the
    CPU, and rounds their scales: they are then no longer what another device computes with."""
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            raise Unavailable(
                "This 4-bit model has computed on the CPU, where bitsandbytes packed it in a form "
                "that no other device reads. Load it again for the device that it is to run on."
            )
