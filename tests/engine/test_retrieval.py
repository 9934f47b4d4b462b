"""Rerankers and embedding models, against the arithmetic of their makers' code: prompts spelt out,
pictures by the library's own processor, the library's own forward pass."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from asking import picture
from qwen_vl_suite.qwenvl import run, score
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, open_checkpoint
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import (
    BadOption,
    Unavailable,
    UnsuitableModel,
    UnsupportedModel,
)
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.retrieval import RETRIEVAL, as_retrieval
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.types import LocalSpec

Make = Callable[..., Path]
SHOWN = [picture(64, 96), picture(200, 90)]
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    def made(model_type: str, name: str, head: bool = True, **config: Any) -> Path:
        folder = tiny.make(model_type, tmp_path_factory.mktemp("models") / name)
        _add_answers(folder)
        if not head:
            _drop_head(folder)
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | config))
        return folder

    return made


def _add_answers(folder: Path) -> None:
    """The makers' vocabularies have one token for each answer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["yes", "no"])
    tokenizer.save_pretrained(folder)


def _drop_head(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    weights = {name: tensor for name, tensor in load_file(file).items() if "lm_head" not in name}
    save_file(weights, file, metadata={"format": "pt"})


def opened(folder: Path) -> LocalBackend:
    return open_checkpoint(LocalSpec(str(folder), precision="fp32", device="cpu"))


def pairs(*texts: str, instruction: str = "") -> list[score.Pair]:
    return [score.Pair(shown, text, instruction) for text in texts for shown in SHOWN]


class Official:
    """The parts that the makers' code is made of."""

    def __init__(self, folder: Path, bounds: tuple[int, int]):
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        low, high = bounds
        size = {"shortest_edge": low, "longest_edge": high}
        self.images = AutoImageProcessor.from_pretrained(folder, size=size)

    @torch.no_grad()
    def state(self, text: str, *pictures: torch.Tensor) -> torch.Tensor:
        """The last hidden state of the last token."""
        given: dict[str, Any] = {}
        if pictures:
            given = dict(self.images(images=list(pictures), return_tensors="pt"))
            (grid,) = given["image_grid_thw"]
            text = text.replace("<|image_pad|>", "<|image_pad|>" * (int(grid.prod()) // 4))
        ids = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        if tiny.available("qwen3_5"):  # release 5 wants to be told which tokens are pictures
            pad = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
            given["mm_token_type_ids"] = (ids == pad).int()
        out = self.model.model(input_ids=ids, attention_mask=torch.ones_like(ids), **given)
        state: torch.Tensor = out.last_hidden_state[0, -1]
        return state

    def vector(self, *given: Any) -> torch.Tensor:
        return torch.nn.functional.normalize(self.state(*given), p=2, dim=-1)


def chat(system: str, user: str, ending: str = "") -> str:
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
        f"<|im_start|>assistant\n{ending}"
    )


@pytest.mark.parametrize("wanted", ["", "Find pages."])
def test_a_reranker_gives_the_sigmoid_of_yes_less_no(make: Make, wanted: str) -> None:
    folder = make("qwen3_vl", "Qwen3-VL-Reranker-2B")
    found = score.score_all(opened(folder), pairs("a red cat", "night", instruction=wanted))
    official = Official(folder, (4 * 32**2, 1800 * 32**2))
    head = official.model.lm_head.weight.detach()
    vocabulary = official.tokenizer.get_vocab()
    score_linear = head[vocabulary["yes"]] - head[vocabulary["no"]]
    judge = (
        "Judge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".'
    )
    expected = []
    for text in ("a red cat", "night"):
        for shown in SHOWN:
            instruct = wanted or "Retrieve images or text relevant to the user's query."
            user = f"<Instruct>: {instruct}<Query>:{text}\n<Document>:{PICTURE}"
            expected.append(
                float(torch.sigmoid(official.state(chat(judge, user), shown) @ score_linear))
            )
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


EMBEDDING: dict[str, tuple[str, str, tuple[int, int], tuple[str, str, str]]] = {
    "Qwen3-VL-Embedding-8B": (
        "qwen3_vl",
        "",
        (4 * 32**2, 1800 * 32**2),
        (
            "Retrieve images or text relevant to the user's query.",
            "Represent the user's input.",
            "Find pages.",  # a full stop is added
        ),
    ),
    "gme-Qwen2-VL-2B-Instruct": (
        "qwen2_vl",
        "<|endoftext|>",
        (256 * 28**2, 1280 * 28**2),
        (
            "Find an image that matches the given text.",
            "You are a helpful assistant.",
            "Find pages",
        ),
    ),
}


@pytest.mark.parametrize("name", EMBEDDING)
def test_an_embedding_model_gives_the_cosine_of_last_hidden_states(make: Make, name: str) -> None:
    model_type, ending, bounds, (query, document, own) = EMBEDDING[name]
    folder = make(model_type, name, head=False)
    backend = opened(folder)
    texts = ("a red cat", "night")
    found = score.score_all(backend, pairs(*texts) + pairs("a red cat", instruction="Find pages"))
    official = Official(folder, bounds)
    shown = [official.vector(chat(document, PICTURE, ending), picture) for picture in SHOWN]
    asked = [official.vector(chat(query, text, ending)) for text in texts]
    asked.append(official.vector(chat(own, "a red cat", ending)))
    expected = [float(text @ picture) for text in asked for picture in shown]
    assert found == pytest.approx(expected, abs=1e-4)
    assert len(set(expected)) == len(expected)


def test_a_text_that_fills_the_limit_costs_its_own_pairs_only(make: Make) -> None:
    backend = opened(make("qwen2_vl", "gme-Qwen2-VL-2B-Instruct"))
    found = score.score_all(backend, pairs("a red cat", "night " * 2000))
    assert [isinstance(value, float) for value in found] == [True, True, False, False]
    assert isinstance(found[2], BadOption) and "1800" in str(found[2])


def files(folder: Path, modules: Sequence[str], pooling: str = "") -> Path:
    entries = [{"idx": at, "type": f"sentence_transformers.models.{name}", "path": ""}
               for at, name in enumerate(modules)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(entries))
    if pooling:
        (folder / "1_Pooling").mkdir()
        settings = {"word_embedding_dimension": 64, f"pooling_mode_{pooling}": True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return folder


def test_its_files_tell_what_a_model_is_whatever_its_name(make: Make) -> None:
    plain = make("qwen3_vl", "Qwen3-VL-2B-Instruct")
    assert opened(plain).family.retrieval is None
    told = {
        "Qwen3-VL-Reranker": files(make("qwen3_vl", "one"), ["Transformer", "LogitScore"]),
        "Qwen3-VL-Embedding": files(
            make("qwen3_vl", "two"), ["Transformer", "Pooling", "Normalize"], "lasttoken"
        ),
        "gme-Qwen2-VL": make("qwen2_vl", "three", architectures=["GmeQwen2VLForVision"]),
    }
    for title, folder in told.items():
        retrieval = opened(folder).family.retrieval
        assert retrieval is not None and retrieval.title == title
    other = files(make("qwen3_vl", "four"), ["Transformer", "Pooling"], "mean_tokens")
    with pytest.raises(UnsupportedModel, match="mean_tokens"):
        opened(other)


@pytest.mark.parametrize(
    ("model_type", "name", "classes", "modules"),
    [
        ("qwen2_5_vl", "some-embedding", [], ["Pooling"]),
        ("qwen3_vl", "converted", ["Qwen3VLForSequenceClassification"], []),
    ],
)
def test_a_kind_that_is_not_known_is_refused(
    model_type: str, name: str, classes: list[str], modules: list[str]
) -> None:
    with pytest.raises(UnsupportedModel, match=f"{name} is .*Known are Qwen3-VL-Reranker"):
        as_retrieval(FAMILIES[model_type], name, classes, modules)
    # A name alone is no sign: the family has to be the one that it was made from.
    named = as_retrieval(FAMILIES["qwen3_5"], "Qwen3-VL-Embedding-2B", [], [])
    assert named.retrieval is None


@pytest.mark.parametrize(
    ("name", "said"),
    [("Qwen3-VL-Reranker-2B", "a reranker"), ("Qwen3-VL-Embedding-2B", "an embedding model")],
)
def test_what_writes_no_text_refuses_to_describe_before_it_is_loaded(
    make: Make, name: str, said: str
) -> None:
    backend = opened(make("qwen3_vl", name))
    with pytest.raises(
        UnsuitableModel, match=rf"^{name} is {said}: .*writes nothing.*Qwen-VL Score.*such as"
    ):
        run.answer(backend, describe("short"), SHOWN)
    assert backend.place == "disk"


def test_a_model_whose_numbers_are_elsewhere_is_refused() -> None:
    class Mute(ScriptedBackend):
        score = None  # type: ignore[assignment]

    for row in (None, *RETRIEVAL):
        family = dataclasses.replace(FAMILIES["qwen3_vl"], retrieval=row)
        with pytest.raises(Unavailable, match="does not tell its numbers"):
            score.score_all(Mute("", family=family), pairs("a cat"))


@pytest.mark.parametrize(
    ("name", "classes", "modules"),
    [
        ("Qwen3-Reranker-0.6B", ["Qwen3ForCausalLM"], []),
        ("Qwen3-Embedding-8B", ["Qwen3ForCausalLM"], []),
        ("my-embedding", ["Qwen2Model"], ["Pooling"]),
        ("my-reranker", ["Qwen3ForSequenceClassification"], []),
    ],
)
def test_models_that_compare_texts_alone_are_refused_with_what_to_take(
    name: str, classes: list[str], modules: list[str]
) -> None:
    family = FAMILIES["qwen2" if "Qwen2Model" in classes else "qwen3"]
    with pytest.raises(UnsupportedModel, match=f"{name} .*with one another.*Qwen3-VL-Embedding"):
        as_retrieval(family, name, classes, modules)
    assert as_retrieval(family, "Qwen3-8B", ["Qwen3ForCausalLM"]) is family
