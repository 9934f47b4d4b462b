"""Device map: spreads one model over several devices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..checkpoints.files import readable_size
from ..errors import Unavailable

_RESERVED = 0.2  # of a device's free memory: left for the KV cache and activations


def balanced_device_map(
    model: torch.nn.Module,
    free: Mapping[Any, int],
    size: Callable[[str, torch.nn.Parameter], float],
    towers: Collection[str],
) -> dict[str, Any]:
    """A ``device_map`` (module or tensor name: device) that spreads ``model`` over the devices of
    ``free``, which holds their free bytes, in the order in which the model runs through them.

    All devices are filled to the same share, a fifth of each reserved. ``towers`` (see ``Family``)
    stay on the first device, decoder layers stay whole, and tied weights stay together. ``model``
    may be on the meta device: ``size`` tells a parameter's bytes, once loaded, from its name and
    shape. Raises ``Unavailable`` where the model does not fit.
    """
    blocks: list[_Block] = []
    owners: dict[int, int] = {}  # parameter id: index of the first block that holds it
    for name, weights in _named_blocks(model, towers):
        own = {key: weight for key, weight in weights.items() if id(weight) not in owners}
        tied_to = owners[id(next(iter(weights.values())))] if weights and not own else None
        owners |= dict.fromkeys(map(id, own.values()), len(blocks))
        is_tower = name.rpartition(".")[2] in towers
        blocks.append(_Block(name, sum(size(*item) for item in own.items()), tied_to, is_tower))
    usable = {device: (1 - _RESERVED) * nbytes for device, nbytes in free.items()}
    best, low, high = _fill(blocks, usable), 0.0, 1.0
    if best is None:
        raise Unavailable(_shortage(blocks, usable))
    while high - low > 0.001:
        share = (low + high) / 2
        fitting = _fill(blocks, {device: share * nbytes for device, nbytes in usable.items()})
        best, low, high = (fitting, low, share) if fitting else (best, share, high)
    return best


@dataclass(frozen=True)
class _Block:
    """What goes to one device as a whole. ``tied_to``: index of the block that holds its
    weights."""

    name: str
    nbytes: float
    tied_to: int | None
    is_tower: bool


def _named_blocks(
    module: torch.nn.Module, towers: Collection[str], prefix: str = ""
) -> Iterator[tuple[str, dict[str, torch.nn.Parameter]]]:
    """Names and parameters of the blocks, in the order in which the model runs them."""
    for name, weight in module.named_parameters(recurse=False):
        yield prefix + name, {prefix + name: weight}
    for name, _ in module.named_buffers(recurse=False):
        yield prefix + name, {}
    for name, child in module.named_children():
        is_layer = isinstance(module, torch.nn.ModuleList) or not any(child.children())
        if is_layer or name in towers:
            yield prefix + name, dict(child.named_parameters(prefix + name))
        else:
            yield from _named_blocks(child, towers, f"{prefix}{name}.")


def _shortage(blocks: list[_Block], usable: Mapping[Any, float]) -> str:
    needed, available, towers, first = (
        readable_size(nbytes)
        for nbytes in (
            sum(block.nbytes for block in blocks),
            sum(usable.values()),
            sum(block.nbytes for block in blocks if block.is_tower),
            next(iter(usable.values())),
        )
    )
    return (
        f"The model needs {needed}, of which what sees pictures, {towers}, must be on the first "
        f"device. {len(usable)} devices have room for {available} beside their work, the first for "
        f"{first}. Free memory there, or choose 8bit or 4bit."
    )


def _fill(blocks: list[_Block], usable: Mapping[Any, float]) -> dict[str, Any] | None:
    """Fills one device after another; None where ``usable`` bytes do not suffice."""
    devices = list(usable)
    placed: dict[str, Any] = {}
    index, used = 0, 0.0
    for block in blocks:
        if block.tied_to is not None:
            placed[block.name] = placed[blocks[block.tied_to].name]
        elif not block.nbytes:  # buffers that all layers share are made on the first device
            placed[block.name] = devices[0]
        else:
            while used + block.nbytes > usable[devices[index]]:
                index, used = index + 1, 0.0
                if index == len(devices) or block.is_tower:
                    return None
            placed[block.name] = devices[index]
            used += block.nbytes
    return placed
