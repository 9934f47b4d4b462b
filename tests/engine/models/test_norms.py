"""Patch of RMS norms: the fused kernel computes the same as the library's norms."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl.backends.local import load
from qwen_vl_suite.qwenvl.inference.model_runner import ModelRunner
from qwen_vl_suite.qwenvl.models.patches import norms
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Sampling
from torch.nn.functional import rms_norm
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

# Every family by the norms that it brings; the vision towers of some have them too.
FAMILY_NAMES = list(tiny.CONFIGS)
NO_WORK = {
    "_unsafe_view", "alias", "as_strided", "detach", "empty", "expand", "lift_fresh", "permute",
    "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose",
    "unbind", "unsqueeze", "view",
}  # fmt: skip


def loaded(folder, precision: str = "fp32"):
    return load(LocalSpec(str(folder), precision=precision, device="cpu"))


def norms_of(model: torch.nn.Module) -> list[Any]:
    return [part for part in model.modules() if "RMSNorm" in type(part).__name__]


def inputs(norm: Any, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = 2 if "Gated" in type(norm).__name__ else 1
    shape = (5, len(norm.weight))
    return [3 * torch.randn(shape, generator=generator).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
@torch.no_grad()
def test_every_norm_of_every_family_is_replaced(checkpoint, model_type: str) -> None:
    model = loaded(checkpoint(model_type)).model
    found = norms_of(model)
    for norm in found:
        norm.weight.add_(torch.linspace(-0.4, 0.7, len(norm.weight)))
    before = [norm(*inputs(norm, torch.float32, seed)) for seed, norm in enumerate(found)]
    norms.apply(model)
    assert found
    assert {type(norm).__name__[:5] for norm in found} == {"Quick"}
    for seed, (norm, wanted) in enumerate(zip(found, before, strict=True)):
        got = norm(*inputs(norm, torch.float32, seed))
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("model_type", ["qwen3_vl", "qwen3_5"])
@torch.no_grad()
def test_half_types_lose_no_more_than_by_the_library(checkpoint, model_type, precision) -> None:
    model = loaded(checkpoint(model_type), precision).model
    found = {type(norm): norm for norm in norms_of(model)}.values()
    for norm in found:
        norm.weight.add_(torch.linspace(-0.4, 0.7, len(norm.weight)).to(norm.weight.dtype))
        given = inputs(norm, norm.weight.dtype, 0)
        theirs = norm(*given)
        exact = type(norm).forward(norm.double(), *(part.double() for part in given))
        norm.to(theirs.dtype)
        norms.apply(norm)
        ours = norm(*given)
        assert ours.dtype == theirs.dtype
        error, least = ((made.double() - exact).pow(2).mean().sqrt() for made in (ours, theirs))
        assert error < 1.1 * least


def test_it_is_for_devices_that_have_the_kernel() -> None:
    assert not norms.applies(torch.device("cpu"))
    assert norms.applies(torch.device("cuda")) == (torch.version.cuda is not None)


@torch.no_grad()
def test_mixed_dtypes_are_left_to_the_library(checkpoint) -> None:
    norm = norms_of(loaded(checkpoint("qwen3_vl"), "bf16").model)[0]
    (given,) = inputs(norm, torch.float32, 0)
    wanted = norm(given)
    norms.apply(norm)
    torch.testing.assert_close(norm(given), wanted, atol=0, rtol=0)


def test_what_computes_something_else_stays_as_it_is(checkpoint) -> None:
    model = loaded(checkpoint("qwen3_vl")).model
    kind = type(norms_of(model)[0])

    class DoubledRMSNorm(kind):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(hidden_states)

    DoubledRMSNorm.__module__ = kind.__module__
    doubled, wrapped = DoubledRMSNorm(8), kind(8)
    wrapped.forward = moved = lambda hidden_states: hidden_states  # as accelerate does
    norms.apply(torch.nn.ModuleList([doubled, wrapped]))
    assert type(doubled) is DoubledRMSNorm
    assert type(wrapped) is kind
    assert wrapped.forward is moved


def test_norms_of_other_makers_are_not_even_tried() -> None:
    class FusedRMSNorm(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            raise AssertionError("a kernel that runs on a graphics card only")

    norm = FusedRMSNorm()
    norms.apply(norm)
    assert type(norm) is FusedRMSNorm


class Work(TorchDispatchMode):
    """Counts operations that are kernels on a graphics card, where a norm is one."""

    def __init__(self) -> None:
        super().__init__()
        self.done: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name not in NO_WORK:
            self.done[name] += 1
        return func(*args, **(kwargs or {}))

    def norm(self, *given: Any) -> torch.Tensor:
        self.done["rms_norm"] += 1
        with _disable_current_modes():
            return rms_norm(*given)


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_a_step_is_far_fewer_kernels_and_says_the_same(
    checkpoint, monkeypatch, model_type: str
) -> None:
    backend = loaded(checkpoint(model_type))
    works: list[Counter[str]] = []
    step = ModelRunner.step

    def counted(*given: Any) -> torch.Tensor:
        with Work() as work:
            monkeypatch.setattr(norms, "rms_norm", work.norm)
            out = step(*given)
        works.append(work.done)
        return out

    def said() -> str:
        backend.prefix_cache.clear()
        (answer,) = backend.generate([Request.ask((), "A few words.", sampling=Sampling(12))])
        monkeypatch.setattr(norms, "rms_norm", rms_norm)
        return answer.text

    monkeypatch.setattr(ModelRunner, "step", counted)
    long, many = said(), works[-1]
    norms.apply(backend.model)
    short, few = said(), works[-1]
    assert short == long
    layers = len(backend.model.get_decoder().layers)
    assert few["rms_norm"] >= 2 * layers + 1
    assert many.total() - few.total() >= 4 * few["rms_norm"]
    assert few["where"] == many["where"] == 1, "a mask becomes numbers once, not in every layer"
