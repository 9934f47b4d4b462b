"""Memory in a real ComfyUI: on a card that is only pretended, which holds one model at a time."""

from __future__ import annotations

from typing import Any

import pytest
from graphs import describe, load, loader, preview

pytestmark = pytest.mark.comfyui
seeds = iter(range(1000, 2000))


def looking(**model: Any) -> dict[str, Any]:
    """A graph that describes a picture, never one that ComfyUI has cached."""
    return {
        "picture": load("shapes.png"),
        "model": loader(device="auto", precision="auto", **model),
        "describe": describe(seed=next(seeds)),
        "show": preview("describe", 0),
    }


def sampling(**inputs: Any) -> dict[str, Any]:
    values = {"megabytes": 298, "seed": next(seeds), **inputs}
    return {"class_type": "PretendSampling", "inputs": values}


def text_of(server: Any, prompt: dict[str, Any]) -> str:
    return server.run(prompt)["show"]["text"][0]


def state(server: Any) -> dict[str, Any]:
    return server.get("/pretend_card")


def on_card(server: Any) -> list[str]:
    return [item["model"] for item in state(server)["comfyui"] if item["bytes"]]


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_sampling_evicts_the_model_and_the_next_question_brings_it_back(
    card: Any, quantization: str
) -> None:
    calm = text_of(card, looking(quantization=quantization))
    assert on_card(card) == ["QwenVL"]
    (ours,) = state(card)["ours"]
    assert ours["place"] == "device" and ours["bytes"] > 5_000_000
    graph = {"sample": sampling(), "show": preview("sample", 0)}
    # In one graph, so that the model is held while it is evicted.
    both = {**looking(quantization=quantization), **graph, "say": preview("describe", 0)}
    both["sample"]["inputs"]["after"] = ["describe", 0]
    assert card.run(both)["say"]["text"] == [calm]
    assert on_card(card) == ["Diffusion"]
    assert state(card)["ours"] == [{**ours, "place": "ram"}]
    assert text_of(card, looking(quantization=quantization)) == calm
    assert "QwenVL" in on_card(card)


def test_a_graph_may_go_back_and_forth(card: Any) -> None:
    """Describe, sample, describe again: each finds its model, whoever had the card between."""
    graph = looking()
    graph["sample"] = sampling(after=["describe", 0])
    # The style comes out of the sampling, so that this must wait for it.
    graph["style"] = {"class_type": "PretendStyle", "inputs": {"after": ["sample", 0]}}
    graph["again"] = describe(seed=next(seeds), style=["style", 0])
    graph["say"] = preview("again", 0)
    outputs = card.run(graph)
    assert outputs["say"]["text"] == outputs["show"]["text"]
    assert on_card(card) == ["QwenVL"]


def test_a_model_that_is_loaded_first_asks_for_room(card: Any) -> None:
    card.run({"sample": sampling(), "show": preview("sample", 0)})
    assert on_card(card) == ["Diffusion"]
    text_of(card, looking(attention="eager"))  # which no other test has loaded
    assert on_card(card) == ["QwenVL"]


def places(server: Any) -> list[str]:
    """Where our models are: on the device, in RAM, on disk only."""
    return [item["place"] for item in state(server)["ours"]]


def test_unload_models_empties_the_card_and_free_memory_the_ram(card: Any) -> None:
    calm = text_of(card, looking())
    assert "QwenVL" in on_card(card)
    card.free(lambda: places(card) == ["ram"], unload_models=True)
    assert on_card(card) == []
    card.free(lambda: places(card) == [], free_memory=True)
    assert state(card)["comfyui"] == []
    assert text_of(card, looking()) == calm


@pytest.mark.parametrize(("after_use", "place"), [("unload", "disk"), ("offload to RAM", "ram")])
def test_the_loader_can_give_the_memory_back_after_every_use(
    card: Any, after_use: str, place: str
) -> None:
    calm = text_of(card, looking())
    assert text_of(card, looking(after_use=after_use)) == calm
    assert [item["place"] for item in state(card)["ours"]] == [place]
    assert "QwenVL" not in on_card(card)


def test_the_unload_node_frees_at_its_place_in_the_graph(card: Any) -> None:
    graph = looking()
    graph["free"] = {
        "class_type": "QVL_Unload",
        "inputs": {"after": ["describe", 0], "where_to": "unload"},
    }
    graph["passed"] = preview("free", 0)
    outputs = card.run(graph)
    assert outputs["passed"]["text"] == outputs["show"]["text"]
    assert [item["bytes"] for item in state(card)["ours"]] == [0]


def test_more_pictures_than_fit_are_answered_in_turns(card: Any) -> None:
    """ComfyUI is told what a batch takes, and a card that is too small for one is not overrun."""
    graph = looking(max_pixels=65536)
    graph["picture"] = {
        "class_type": "RepeatImageBatch",
        "inputs": {"image": ["one", 0], "amount": 24},
    }
    graph["one"] = load("shapes.png")
    texts = card.run(graph)["show"]["text"]
    assert len(texts) == 24 and len(set(texts)) == 1


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A checkpoint of 260 MB, which is seen in a process's memory."""
    import tiny

    return tiny.make_large(tmp_path_factory.mktemp("large") / "large")


def test_memory_is_really_given_back(card: Any, large: Any) -> None:
    """Not only in the books: the process shrinks by what the weights took."""
    folder = card.base / "models" / "LLM" / "large"
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(large)
    card.free(lambda: places(card) == [])
    text_of(card, looking())  # whatever is imported once is there now
    card.free(lambda: places(card) == [])
    before = state(card)["resident"]
    text_of(card, looking(model="large"))
    loaded = state(card)
    (ours,) = loaded["ours"]
    assert ours["bytes"] > 250_000_000
    assert loaded["resident"] - before > 0.8 * ours["bytes"]
    card.free(lambda: state(card)["resident"] - before < 0.1 * ours["bytes"])
