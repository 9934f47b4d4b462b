"""Server detection, from what servers of each kind answered."""

from __future__ import annotations

import own_loop
import pytest
from qwen_vl_suite.qwenvl.servers.detection import detect, kind_of_models
from qwen_vl_suite.qwenvl.servers.faults import Fault


def models(owner, *ids):
    data = [{"id": name, "object": "model", "owned_by": owner} for name in ids or ("m",)]
    return {"object": "list", "data": data}


LISTS = {
    "vllm": models("vllm", "Qwen/Qwen3-VL-8B-Instruct"),
    "sglang": models("sglang", "Qwen/Qwen3-VL-8B-Instruct"),
    "llama.cpp": models("llamacpp", "qwen2_5_vl.gguf"),
    "ollama": models("library", "qwen3-vl:8b", "qwen2.5vl:7b"),
    "lmstudio": models("organization_owner", "qwen/qwen3-vl-8b"),
}
LMSTUDIO_ERROR = {"error": "Unexpected endpoint or method. (GET /version)"}

# What each answers at the paths that it has, where its list of models does not tell its kind.
ROUTES = {
    "vllm": {"/version": {"version": "0.32.0"}, "/openapi.json": {"paths": {"/version": {}}}},
    "sglang": {
        "/get_server_info": {"model_path": "Qwen/Qwen3-VL-8B-Instruct", "version": "0.5.23"},
        "/openapi.json": {"paths": {"/v1/chat/completions": {}}},
    },
    "llama.cpp": {
        "/props": {"default_generation_settings": {}, "total_slots": 4, "chat_template": "x"}
    },
    "ollama": {"/api/version": {"version": "0.33.0"}},
    "lmstudio": dict.fromkeys(
        ("/version", "/api/version", "/props", "/openapi.json", "/get_server_info"), LMSTUDIO_ERROR
    )
    | {"/api/v0/models": {"data": [{"id": "a", "arch": "qwen3vl", "state": "loaded"}]}},
    "transformers": {
        "/openapi.json": {"paths": {"/load_model": {}, "/v1/chat/completions": {}, "/reset": {}}}
    },
    "other": {"/version": "1.0", "/props": [], "/openapi.json": {"paths": None}},
}


def found(routes, listed=None):
    asked = []

    async def get(path):
        asked.append(path)
        return routes.get(path)

    return own_loop.run(detect(get, listed)), asked


@pytest.mark.parametrize("kind", LISTS)
def test_most_say_it_in_their_list_of_models(kind):
    assert kind_of_models(LISTS[kind]) == kind
    assert found({}, LISTS[kind]) == (kind, [])
    assert found({"/v1/models": LISTS[kind]}) == (kind, ["/v1/models"])


@pytest.mark.parametrize("kind", ROUTES)
def test_others_are_told_by_what_they_answer(kind):
    assert found(ROUTES[kind], models("Qwen"))[0] == kind
    assert found(ROUTES[kind], {"object": "list", "data": []})[0] == kind


def test_one_that_has_ollama_s_routes_too_is_not_taken_for_it():
    imitation = ROUTES["llama.cpp"] | ROUTES["ollama"]
    assert found(imitation, models("me"))[0] == "llama.cpp"


@pytest.mark.parametrize("listed", [None, [], {"data": None}, {"data": ["x"]}, {"error": "no"}])
def test_what_is_no_list_of_models_tells_nothing(listed):
    assert kind_of_models(listed) == ""
    assert found({}, listed)[0] == "other"


def test_a_question_that_fails_tells_nothing_once_the_models_are_listed():
    async def get(path):
        if path == "/props":
            return ROUTES["llama.cpp"][path]
        if path == "/v1/models":
            return models("me")
        raise Fault("slow" if path == "/version" else "busy", "no")

    assert own_loop.run(detect(get)) == "llama.cpp"

    async def silent(path):
        raise Fault("unreachable", "nobody is there")

    with pytest.raises(Fault):
        own_loop.run(detect(silent))


def test_a_list_of_several_servers_tells_nothing():
    both = {"data": LISTS["vllm"]["data"] + LISTS["ollama"]["data"]}
    assert kind_of_models(both) == ""
