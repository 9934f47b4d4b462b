"""Loading gives what the files hold, and happens once."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl.backends.local import load, open_checkpoint
from qwen_vl_suite.qwenvl.checkpoints.files import read_settings
from qwen_vl_suite.qwenvl.families import family_of
from qwen_vl_suite.qwenvl.model_cache import ModelCache
from qwen_vl_suite.qwenvl.models import loading
from qwen_vl_suite.qwenvl.models.patches.patch_embedding import PatchEmbedding
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Sampling

FAMILY_NAMES = list(tiny.CONFIGS)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.fixture
def tokenizers(monkeypatch) -> list[str]:
    """Folders that a tokenizer is loaded from."""
    from transformers import AutoTokenizer

    official, folders = AutoTokenizer.from_pretrained, []

    def counted(folder, *args, **options):
        folders.append(str(folder))
        return official(folder, *args, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", counted)
    return folders


def request(seed: int = 0) -> Request:
    picture = torch.randint(
        0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return Request.ask(images=(picture,), prompt="what", sampling=Sampling(max_new_tokens=4))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_weights_are_those_of_the_official_loader(checkpoint, model_type, precision) -> None:
    import transformers

    folder = checkpoint(model_type)
    family = family_of(read_settings(folder, "config.json"))
    spec = LocalSpec(str(folder), precision=precision, device="cpu")
    ours = loading.load_model(folder, spec, family)
    name = family.transformers_class or "AutoModelForImageTextToText"
    official = getattr(transformers, name).from_pretrained(folder, dtype=PRECISIONS[precision])
    mine, theirs = ours.state_dict(), official.state_dict()
    (own,) = [at for at, part in ours.named_modules() if isinstance(part, PatchEmbedding)]
    (kernel,) = [at for at in theirs if at.startswith(own) and at.endswith("weight")]
    moving, still = mine.pop(f"{own}.moving"), mine.pop(f"{own}.still")
    assert torch.equal(moving, theirs.pop(kernel).reshape(moving.shape))
    assert still.dtype == moving.dtype
    if f"{own}.bias" in mine:
        assert torch.equal(mine.pop(f"{own}.bias"), theirs.pop(kernel.replace("weight", "bias")))
    assert mine.keys() == theirs.keys()
    for key, tensor in mine.items():
        assert tensor.dtype == theirs[key].dtype, key
        assert torch.equal(tensor, theirs[key]), key
    buffers = dict(official.named_buffers())
    for key, tensor in ours.named_buffers():
        assert torch.equal(tensor, buffers[key]), key


def test_a_tokenizer_is_loaded_once(checkpoint, tokenizers) -> None:
    folder = checkpoint("qwen3_vl")
    backend = load(LocalSpec(str(folder), device="cpu"))
    backend.generate([request(), request(1)])
    backend.release()
    backend.generate([request()])
    assert tokenizers == [str(folder)], "weights came a second time, the tokenizer did not"


def test_a_second_loader_with_an_equal_spec_does_nothing(checkpoint, tmp_path, tokenizers) -> None:
    folder = shutil.copytree(checkpoint("qwen3_vl"), tmp_path / "model")
    cache = ModelCache(open_checkpoint)
    with cache.lease(LocalSpec(str(folder), device="cpu")) as first:
        answer = first.generate([request()])
    shutil.rmtree(folder)
    told: list[tuple[int, int]] = []

    class Heard(Observer):
        def loading(self, done: int, total: int) -> None:
            told.append((done, total))

    with cache.lease(LocalSpec(str(folder), device="cpu")) as second:
        assert second is first
        assert second.generate([request()], Heard()) == answer
    assert not told
    assert len(tokenizers) == 1


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen3_vl"])
def test_a_second_model_of_a_family_imports_nothing(checkpoint, model_type: str) -> None:
    def answer(folder: Path) -> None:
        load(LocalSpec(str(folder), device="cpu")).generate([request()])

    answer(checkpoint(model_type))
    before = dict(sys.modules)
    answer(checkpoint(model_type, "switch"))
    assert sys.modules.keys() == before.keys()
    assert all(sys.modules[name] is module for name, module in before.items())
