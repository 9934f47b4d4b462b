"""LoRA adapters on a loaded model, by the library peft: put on, switched and taken off without
reading the model again.

They are layers around the model's own, never merged into its weights: quantised weights stay as
they are, and a model whose adapters were taken off is the one that was loaded.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.adapters import WEIGHTS, AdapterFiles, check_adapters, fingerprint, read_adapter
from ..errors import BadOption, QwenVLError, Unavailable, UnsupportedModel
from ..types import Adapter
from .adapter_layers import AdapterPlan, alphas, plan_adapter
from .memory import is_out_of_memory
from .patches.patch_embedding import NAME as PATCH_EMBEDDING
from .quantization import allow_packing

log = logging.getLogger(__name__)

Scope = tuple[tuple[object, ...], ...]
"""Equal for equal adapters with equal files and strengths: what the model's answers depend on
besides its own weights."""


def wanted_scope(adapters: Sequence[Adapter]) -> Scope:
    """Of ``adapters``, without those of strength 0, which change nothing."""
    on = [adapter for adapter in adapters if adapter.strength]
    return tuple((a.path, fingerprint(Path(a.path)), a.strength) for a in on)


def read_adapters(adapters: Sequence[Adapter]) -> list[AdapterFiles]:
    """The files of ``adapters``, those of strength 0 as well: a wrong one is told at once. Raises
    ``BadOption``, ``CheckpointError``, and ``Unavailable`` without peft."""
    check_adapters(adapters)
    found = [read_adapter(Path(adapter.path)) for adapter in adapters]
    if found and importlib.util.find_spec("peft") is None:
        raise Unavailable(
            "Adapters need the package peft, which is not installed. Install it with: "
            "pip install peft"
        )
    return found


def check_fit(adapters: Sequence[Adapter], model: nn.Module, model_name: str) -> None:
    """Raises what putting ``adapters`` on ``model`` would raise, as far as their headers tell;
    ``model`` may be without weights."""
    for files in read_adapters(adapters):
        plan_adapter(files, model, model_name)


def change_patched(adapters: Sequence[Adapter]) -> bool:
    """Whether one of ``adapters`` that are on changes a layer that ``patch_embedding`` replaces.
    Raises as ``read_adapters``."""
    on = [adapter for adapter in adapters if adapter.strength]
    return any(PATCH_EMBEDDING in name for files in read_adapters(on) for name in files.tensors)


class Adapters:
    """The adapters on one model. ``scope``: of those that are on now; ``nbytes``: what they
    occupy. Moves and goes with the model's weights (see ``weights.Offloadable``): their tensors lie
    in the model's modules."""

    def __init__(self) -> None:
        self.scope: Scope = ()
        self.nbytes = 0
        self._tuner: Any = None
        self._names: dict[tuple[object, ...], str] = {}
        self._whole: dict[str, str] = {}  # of adapters that bring whole layers one of these

    def offload(self) -> None:
        """Nothing is left to do: whoever moves the model has moved them."""

    def clear(self) -> None:
        """The model is gone, and they with it."""
        self.__init__()  # type: ignore[misc]

    def switch(self, model: nn.Module, adapters: Sequence[Adapter], model_name: str) -> bool:
        """Puts on ``model``, whose weights are on their device, these adapters and no others, and
        tells whether that changed anything. Raises as ``read_adapters`` and ``UnsupportedModel``;
        the model is then without any."""
        scope = wanted_scope(adapters)
        if scope == self.scope:
            return False
        with torch.inference_mode(False), torch.no_grad():
            try:
                self._switch(model, adapters, scope, model_name)
            except BaseException:
                self.take_off(model)
                raise
        self.scope = scope
        return True

    def coming_bytes(self, adapters: Sequence[Adapter]) -> int:
        """About how many bytes ``switch`` will add."""
        if wanted_scope(adapters) == self.scope:
            return 0
        on = [adapter for adapter in adapters if adapter.strength]
        return sum(files.nbytes for files in read_adapters(on))

    def take_off(self, model: nn.Module) -> None:
        """``model`` is what it was, also where putting an adapter on broke off half way. (peft's
        own way would leave layers that an adapter brought.)"""
        if self._names:
            for name, module in _wrappers(model):
                parent, _, last = name.rpartition(".")
                setattr(model.get_submodule(parent), last, _original(module))
            vars(model).pop("peft_config", None)
            allow_packing(model, True)
        self.clear()

    def _switch(
        self, model: nn.Module, adapters: Sequence[Adapter], scope: Scope, model_name: str
    ) -> None:
        read_adapters(adapters)
        on = [adapter for adapter in adapters if adapter.strength]
        if not self._names.keys() <= {key[:2] for key in scope}:
            self.take_off(model)
        for adapter in on:
            found = read_adapter(Path(adapter.path))
            key = (adapter.path, fingerprint(found.path))
            if key not in self._names:
                log.info("Putting the adapter %s on %s", found.path.name, model_name)
                if note := found.other_base(model_name):
                    log.warning("%s Its layers fit.", note)
                name = f"adapter_{len(self._names):03}"
                self._names[key] = name
                self._put_on(model, found, name, model_name)
        if self._tuner is not None:
            self._set_strengths(
                model, {self._names[a.path, fingerprint(Path(a.path))]: a for a in on}
            )

    def _put_on(self, model: nn.Module, files: AdapterFiles, name: str, model_name: str) -> None:
        plan = plan_adapter(files, model, model_name)
        if plan.replaced:
            self._whole[name] = min(plan.replaced)
        tensors = _read(files, plan, _compute_dtype(model))
        _check_effect(files, plan, tensors, model)
        _check_copies(files, plan, model, model_name)
        try:
            self._inject(model, files, plan, tensors, name)
        except (QwenVLError, MemoryError):
            raise
        except Exception as error:  # what an adapter can make the library raise has no common base
            if is_out_of_memory(error):
                raise
            raise UnsupportedModel(
                f"{files.path.name} cannot be put on {model_name}: {error}"
            ) from error
        self.nbytes += sum(tensor.nbytes for tensor in tensors.values())

    def _inject(
        self,
        model: nn.Module,
        files: AdapterFiles,
        plan: AdapterPlan,
        tensors: dict[str, Tensor],
        name: str,
    ) -> None:
        from peft import LoraModel, set_peft_model_state_dict

        config = _peft_config(files, plan)
        allow_packing(model, False)  # peft reads the state_dict
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is checked here
            if self._tuner is None:
                self._tuner = LoraModel(model, {name: config}, name, low_cpu_mem_usage=True)
            else:
                self._tuner.peft_config[name] = config
                self._tuner.inject_adapter(model, name, low_cpu_mem_usage=True)
            result = set_peft_model_state_dict(
                model, tensors, adapter_name=name, low_cpu_mem_usage=True
            )
        mark = f".{name}"
        empty = [key for key, value in model.named_parameters() if mark in key and value.is_meta]
        if result.unexpected_keys or empty:
            lost = min([*result.unexpected_keys, *empty])
            raise UnsupportedModel(
                f"{files.path.name}: peft found no place for some of its tensors, such as {lost}."
            )
        for key, value in model.named_parameters():
            if mark in key and value.dtype.itemsize == 1:  # as small as the weights of an FP8 model
                own = tensors[key.replace(mark, "")]
                value.data = own.to(value.device)
        # DoRA compares lengths with those of the model's own weights at each use.
        allow_packing(model, not any(one.use_dora for one in self._tuner.peft_config.values()))

    def _set_strengths(self, model: nn.Module, adapters: dict[str, Adapter]) -> None:
        from peft.tuners.lora import LoraLayer

        whole = [name for name in adapters if name in self._whole]
        for name in whole:
            strength, folder = adapters[name].strength, Path(adapters[name].path).name
            if strength != 1:
                raise BadOption(
                    f"{folder} brings whole layers ({self._whole[name]}), which have no strength "
                    f"in between: set its strength to 1 or 0, and not {strength:g}."
                )
        if len(whole) > 1:
            folders = " and ".join(Path(adapters[name].path).name for name in whole)
            raise BadOption(
                f"{folders} each bring whole layers in the place of the model's own, and cannot "
                "be put on together. Choose one of them."
            )
        self._tuner.set_adapter(list(adapters), inference_mode=True)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                for name, adapter in adapters.items():
                    module.set_scale(name, adapter.strength)


def _wrappers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that peft has put around others, the outermost ones, by their names."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in found[-1:])
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)) and not inside:
            found.append((name, module))
    return found


def _original(module: Any) -> nn.Module:
    """What peft has put ``module`` around."""
    while True:
        inner = getattr(module, "base_layer", None) or getattr(module, "original_module", None)
        if inner is None:
            return module
        module = inner


def _peft_config(files: AdapterFiles, plan: AdapterPlan) -> Any:
    """peft's config of an adapter, for exactly the modules of ``plan``."""
    from peft import LoraConfig

    config = LoraConfig.from_pretrained(str(files.path), local_files_only=True)
    parameters = tuple(config.target_parameters or ())
    own_alphas = alphas(plan, files.config)
    targets = {
        own for own in plan.modules if not any(_holds(own, parameter) for parameter in parameters)
    }
    config.target_modules = targets or None
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    exact = {own: re.escape(own) for own in sorted(targets)}
    config.rank_pattern = {exact[own]: plan.ranks[own] for own in exact} | (
        config.rank_pattern or {} if parameters else {}
    )
    config.alpha_pattern = {exact[own]: own_alphas[own] for own in exact} | (
        config.alpha_pattern or {} if parameters else {}
    )
    config.init_lora_weights = True
    config.inference_mode = True
    return config


def _holds(module: str, parameter: str) -> bool:
    """Whether a parameter of ``module`` is one of those that ``parameter`` names by their end."""
    holder = parameter.rpartition(".")[0]
    return not holder or f".{module}".endswith(f".{holder}")


def _compute_dtype(model: Any) -> torch.dtype:
    """What the model computes in, whatever its weights are stored in."""
    floats = (p.dtype for p in model.parameters() if p.dtype.is_floating_point)
    return next(dtype for dtype in floats if dtype.itemsize > 1)


def _read(files: AdapterFiles, plan: AdapterPlan, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of an adapter by their names in the model, in memory of their own."""
    from safetensors import safe_open

    with safe_open(files.path / WEIGHTS, "pt") as opened:
        read = {own: opened.get_tensor(name) for name, own in plan.keys.items()}
    return {name: tensor.to(dtype, copy=True) for name, tensor in read.items()}


def _check_effect(
    files: AdapterFiles, plan: AdapterPlan, tensors: dict[str, Tensor], model: nn.Module
) -> None:
    """Raises ``UnsupportedModel`` for an adapter that leaves ``model`` as it is, and for numbers
    that are none."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UnsupportedModel(f"{files.path.name} holds NaN or infinite numbers in {name}.")
    if any("magnitude_vector" in name for name in tensors):
        return  # what DoRA's lengths change shows beside the model's own weights only
    if not (_adds(files, plan, tensors) or _replaces(plan, tensors, model)):
        raise UnsupportedModel(
            f"{files.path.name} changes nothing: all that it adds is zero, as before training."
        )


_SECOND = re.compile(r"(.*)\.lora_(embedding_)?B(.*)")
"""The second matrix of a pair."""


def _adds(files: AdapterFiles, plan: AdapterPlan, tensors: dict[str, Tensor]) -> bool:
    """Whether a low-rank pair adds anything: alpha times the product of its matrices."""
    scales = alphas(plan, files.config)
    filled = {name for name, tensor in tensors.items() if ".lora_" in name and tensor.any()}
    seconds = [found for name in filled if (found := _SECOND.fullmatch(name))]
    return any(
        scales.get(found[1], 1) and f"{found[1]}.lora_{found[2] or ''}A{found[3]}" in filled
        for found in seconds
    )


def _replaces(plan: AdapterPlan, tensors: dict[str, Tensor], model: nn.Module) -> bool:
    """Whether a layer that the adapter brings is another than the model's own."""
    own = dict(model.named_parameters())
    return any(
        name not in own or not torch.equal(own[name].cpu(), tensors[name].to(own[name].dtype).cpu())
        for name in plan.replaced
    )


def _check_copies(
    files: AdapterFiles, plan: AdapterPlan, model: nn.Module, model_name: str
) -> None:
    """Raises ``UnsupportedModel`` where the embeddings that were saved with an adapter are not
    those of the model: its tokens then mean something else."""
    from safetensors import safe_open

    parameters = dict(model.named_parameters())
    with safe_open(files.path / WEIGHTS, "pt") as opened:
        for name, own in plan.copies.items():
            place, _, last = own.rpartition(".")
            value = parameters.get(own, parameters.get(f"{place}.base_layer.{last}"))
            copy = opened.get_tensor(name)
            if value is None or value.shape != copy.shape:
                same = False
            else:
                same = torch.equal(value.cpu(), copy.to(value.dtype))
            if not same:
                raise UnsupportedModel(
                    f"{files.path.name} cannot be put on {model_name}: it was trained with other "
                    f"weights of {own}, which it brings along. It was made for "
                    f"{files.base or 'another model'}."
                )
