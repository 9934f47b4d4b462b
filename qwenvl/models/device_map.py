"""One model over several devices: which part goes where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..checkpoints.files import readable_size
from ..errors import Unavailable

_TOWERS = ("visual", "audio_tower")
_WORK = 0.2  # the share of a device's free memory that is left for the KV cache and pictures


def balanced_device_map(
    model: torch.nn.Module,
    free: Mapping[Any, int],
    size: Callable[[str, torch.nn.Parameter], float],
) -> dict[str, Any]:
    """A ``device_map`` (part of ``model``: device) that spreads ``model`` over the devices of
    ``free``, which holds their free bytes, in the order in which they work.

    Every device is filled to the same share, a fifth of it left for work. What sees pictures
    stands on the first device, decoder layers are never torn, tied weights stay together.
    ``model`` may be on the meta device: ``size`` tells a parameter's bytes, once loaded, from its
    name and shape. Raises ``Unavailable`` where the model does not fit.
    """
    parts: list[_Part] = []
    owner: dict[int, int] = {}  # of each parameter the part that holds it first
    for name, weights in _parts(model):
        own = {key: weight for key, weight in weights.items() if id(weight) not in owner}
        like = owner[id(next(iter(weights.values())))] if weights and not own else None
        owner |= dict.fromkeys(map(id, own.values()), len(parts))
        parts.append(_Part(name, sum(size(*item) for item in own.items()), like))
    room = {device: (1 - _WORK) * nbytes for device, nbytes in free.items()}
    found, low, high = _fill(parts, room), 0.0, 1.0
    if found is None:
        raise Unavailable(_shortage(parts, room))
    while high - low > 0.001:
        middle = (low + high) / 2
        fits = _fill(parts, {device: middle * nbytes for device, nbytes in room.items()})
        found, low, high = (fits, low, middle) if fits else (found, middle, high)
    return found


@dataclass(frozen=True)
class _Part:
    """What goes to one device whole. ``like``: the number of the part that holds its weights."""

    name: str
    nbytes: float
    like: int | None

    @property
    def is_tower(self) -> bool:
        return self.name.rpartition(".")[2] in _TOWERS


def _parts(
    module: torch.nn.Module, prefix: str = ""
) -> Iterator[tuple[str, dict[str, torch.nn.Parameter]]]:
    """Names and weights of the parts, in the order of work."""
    for name, weight in module.named_parameters(recurse=False):
        yield prefix + name, {prefix + name: weight}
    for name, _ in module.named_buffers(recurse=False):
        yield prefix + name, {}
    for name, child in module.named_children():
        is_layer = isinstance(module, torch.nn.ModuleList) or not any(child.children())
        if is_layer or name in _TOWERS:
            yield prefix + name, dict(child.named_parameters(prefix + name))
        else:
            yield from _parts(child, f"{prefix}{name}.")


def _shortage(parts: list[_Part], room: Mapping[Any, float]) -> str:
    need, there, eyes, first = (
        readable_size(nbytes)
        for nbytes in (
            sum(part.nbytes for part in parts),
            sum(room.values()),
            sum(part.nbytes for part in parts if part.is_tower),
            next(iter(room.values())),
        )
    )
    return (
        f"The model needs {need}, of which what sees pictures, {eyes}, must be on the first "
        f"device. {len(room)} devices have room for {there} beside their work, the first for "
        f"{first}. Free memory there, or choose 8bit or 4bit."
    )


def _fill(parts: list[_Part], room: Mapping[Any, float]) -> dict[str, Any] | None:
    """Fills one device after another; None where ``room`` is too small."""
    devices = list(room)
    found: dict[str, Any] = {}
    at, used = 0, 0.0
    for part in parts:
        if part.like is not None:
            found[part.name] = found[parts[part.like].name]
        elif not part.nbytes:  # tables that all layers share are made where the work begins
            found[part.name] = devices[0]
        else:
            while used + part.nbytes > room[devices[at]]:
                at, used = at + 1, 0.0
                if at == len(devices) or part.is_tower:
                    return None
            found[part.name] = devices[at]
            used += part.nbytes
    return found
