"""Linear layers that take the quicker of two ways give what they gave."""

from __future__ import annotations

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl.backends.local import load
from qwen_vl_suite.qwenvl.models.patches import linears
from qwen_vl_suite.qwenvl.models.patches.linears import FEW, MANY, QuickLinear
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Sampling
from torch import nn

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def paying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linears, "_pays", lambda: True)


def quick(layer: nn.Linear) -> nn.Linear:
    linears.apply(layer)
    assert type(layer) is QuickLinear
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, FEW, FEW + 1, MANY - 1, MANY, 3 * MANY])
@torch.no_grad()
def test_whatever_the_rows(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    layer, x = nn.Linear(512, 640, bias=bias), torch.randn(rows, 512)
    exact = x.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    got = quick(layer)(x)
    torch.testing.assert_close(got, exact.float(), atol=1e-4, rtol=1e-4)
    for shape in ((1, rows, 512), (rows, 1, 512)):
        assert torch.equal(layer(x.reshape(shape)), got.reshape(*shape[:2], 640))
    other = torch.randn(512, rows)  # not laid out row by row
    torch.testing.assert_close(layer(other.T), layer(other.T.contiguous()), atol=1e-4, rtol=1e-4)


def test_one_row_goes_by_onednn_and_some_rows_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    onednn = linears._onednn
    monkeypatch.setattr(
        linears, "_onednn", lambda x, *given: rows.append(len(x)) or onednn(x, *given)
    )
    layer = quick(nn.Linear(512, 512))
    with torch.no_grad():
        for count in (1, FEW, FEW + 1, MANY - 1, MANY):
            layer(torch.ones(count, 512))
    assert rows == [1, FEW, MANY]


def test_only_large_plain_float32_layers_change() -> None:
    class Own(nn.Linear):
        pass

    wrapped = nn.Linear(512, 512)
    wrapped.forward = moved = lambda x: x  # as accelerate does
    model = nn.ModuleList(
        [nn.Linear(16, 16), nn.Linear(512, 512, dtype=torch.bfloat16), Own(512, 512), wrapped]
    )
    kinds = [type(part) for part in model]
    linears.apply(model)
    assert [type(part) for part in model] == kinds
    assert wrapped.forward is moved


def test_where_it_does_not_pay_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linears, "_pays", lambda: False)
    layer = nn.Linear(512, 512)
    linears.apply(layer)
    assert type(layer) is nn.Linear


@pytest.mark.parametrize("model_type", list(tiny.CONFIGS))
def test_every_family_says_the_same(
    checkpoint, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    picture = torch.arange(3 * 90 * 130).reshape(3, 90, 130).remainder(251).to(torch.uint8)
    asked = [
        Request.ask((picture,), "Describe this image.", sampling=Sampling(24)),
        Request.ask((), "Only words.", sampling=Sampling(30)),
    ]

    def said() -> list[str]:
        backend = load(LocalSpec(str(checkpoint(model_type)), device="cpu"))
        count = sum(isinstance(part, QuickLinear) for part in backend.model.modules())
        assert bool(count) == (linears._LARGE == 0)
        return [response.text for response in backend.generate(asked)]

    calm = said()
    monkeypatch.setattr(linears, "_LARGE", 0)
    assert said() == calm
