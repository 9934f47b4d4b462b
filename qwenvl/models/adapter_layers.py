"""Adapter layers: which modules of a model the tensors of a LoRA adapter belong to, by names and
shapes, so that nothing of an adapter is ever left out in silence.

peft adds layers where an adapter's config says, and only warns of tensors that have no place. Here
the tensors decide: each must have its module, or the adapter is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..checkpoints.adapters import AdapterFiles
from ..errors import UnsupportedModel

# A tensor of peft's: the module that it belongs to, and which one of that module's it is.
_TENSOR = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+?)\.(?P<part>lora_(?:A|B|embedding_A|embedding_B|"
    r"magnitude_vector))(?:\.default)?(?P<end>\.weight|\.bias)?"
)
_LORA_A, _LORA_B = ("lora_A", "lora_embedding_A"), ("lora_B", "lora_embedding_B")
# What stands before the names that all releases of transformers have in common.
_PREFIXES = re.compile(r"(?:model\.|language_model\.|thinker\.)+")


@dataclass
class AdapterPlan:
    """Where an adapter goes. ``keys``: for each tensor of the file its name in the model at hand,
    as peft takes it; ``ranks`` and ``modules``: of each module that gets a low-rank pair, by its
    name in the model, its rank and its name in the file; ``replaced``: parameters that the adapter
    brings whole. ``copies``: of tensors in the file that are no part of the adapter, the parameter
    that each is a copy of: peft saves embeddings with what was trained on them."""

    keys: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    copies: dict[str, str] = field(default_factory=dict)


def plan_adapter(files: AdapterFiles, model: nn.Module, model_name: str) -> AdapterPlan:
    """The places of all tensors of an adapter in ``model``, which may be without weights. Raises
    ``UnsupportedModel`` where some have none, or do not fit there."""
    places, plan, lost = _Places(model), AdapterPlan(), []
    for name, entry in files.tensors.items():
        found = _TENSOR.fullmatch(name)
        module = found["module"] if found else name.removeprefix("base_model.model.")
        plain = _plain(module)
        own = places.of(plain)
        if own is None or (found and own in places.parameters):
            lost.append(plain)
            continue
        if not found and files.replaces(plain):
            plan.replaced.add(own)
            plan.keys[name] = own
            continue
        if not found:
            plan.copies[name] = own
            continue
        # An adapter of a module's second parameter lies around that of its first.
        around = module.removeprefix(plain)
        plan.keys[name] = f"{own}{around}.{found['part']}{found['end'] or ''}"
        _check_shape(files, model, model_name, own, found["part"], entry["shape"])
        if found["part"] in _LORA_A:
            plan.modules[own], plan.ranks[own] = module, entry["shape"][0]
    if lost:
        raise UnsupportedModel(_lost(files, model_name, sorted(set(lost))))
    _check_pairs(files)
    return plan


class _Places:
    """Modules and parameters of a model, by the names that adapters have for them.
    ``parameters``: the names that are of parameters."""

    def __init__(self, model: nn.Module):
        names = [name for name, _ in model.named_modules() if name]
        self.parameters = {_plain(name) for name, _ in model.named_parameters()}
        names += self.parameters
        self._names = {_plain(name): _plain(name) for name in names}
        shared: dict[str, set[str]] = {}
        for name in self._names:
            shared.setdefault(_PREFIXES.sub("", name, count=1), set()).add(name)
        self._shared = {key: found.pop() for key, found in shared.items() if len(found) == 1}

    def of(self, name: str) -> str | None:
        """The name in the model of what an adapter calls ``name``: that itself, or the only one
        that differs from it in what releases of transformers put before it."""
        if name in self._names:
            return name
        return self._shared.get(_PREFIXES.sub("", name, count=1))


def _plain(name: str) -> str:
    """A name in a model as it is without adapters that are on it already."""
    return name.replace(".base_layer", "")


def _check_shape(
    files: AdapterFiles, model: nn.Module, model_name: str, place: str, part: str, shape: list[int]
) -> None:
    if part not in (*_LORA_A, *_LORA_B):
        return
    if len(shape) < 2:
        raise UnsupportedModel(
            f"{files.path.name} is damaged: its {part} of {place} has the shape {shape}, and is no "
            "matrix. Save or download it again."
        )
    module = model.get_submodule(place)
    if part in _LORA_A:
        names, given = ("in_features", "num_embeddings", "in_channels"), shape[1]
    else:
        names, given = ("out_features", "embedding_dim", "out_channels"), shape[0]
    sizes = (getattr(module, name, None) for name in names)
    expected = next((size for size in sizes if isinstance(size, int)), given)
    if expected != given:
        raise UnsupportedModel(
            f"{files.path.name} does not fit {model_name}: its {part} of {place} has the size "
            f"{given}, and the layer {expected}. {_made_for(files)}"
        )


def _check_pairs(files: AdapterFiles) -> None:
    """Half of a pair would be made up by peft."""
    halves: dict[str, set[str]] = {}
    for name in files.tensors:
        if (found := _TENSOR.fullmatch(name)) and found["part"] in (*_LORA_A, *_LORA_B):
            halves.setdefault(found["module"], set()).add(found["part"][-1])
    if broken := sorted(module for module, parts in halves.items() if len(parts) != 2):
        raise UnsupportedModel(
            f"{files.path.name} is not whole: of {broken[0]} it holds one matrix of two. Save or "
            "download it again."
        )


def _lost(files: AdapterFiles, model_name: str, lost: list[str]) -> str:
    return (
        f"{files.path.name} cannot be put on {model_name}: {len(lost)} of the layers that it "
        f"changes are not in this model, such as {lost[0]}, and without them it would do something "
        f"else than it was trained for. {_made_for(files)}"
    )


def _made_for(files: AdapterFiles) -> str:
    base = files.base or "a model that it does not name"
    return f"It was made for {base}: choose that in the Loader, or another adapter."


def alphas(plan: AdapterPlan, config: Mapping[str, Any]) -> dict[str, float]:
    """lora_alpha of each module, by its name in the model; patterns in the config mean the names
    of the file."""
    patterns, default = config.get("alpha_pattern") or {}, config.get("lora_alpha", 8)
    found = {}
    for own, module in plan.modules.items():
        # As peft's get_pattern_key: the first pattern that is the whole name or the end of it.
        fitting = (a for p, a in patterns.items() if re.match(rf"(.*\.)?({p})$", module))
        found[own] = next(fitting, default)
    return found
