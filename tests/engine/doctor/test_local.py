"""What is told of a local model: fast paths, attention, bytes that a decode step reads, speed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from asking import Always, Never
from qwen_vl_suite.qwenvl.backends.local import load, open_checkpoint
from qwen_vl_suite.qwenvl.doctor import bandwidth, fast_paths, model_facts, speed
from qwen_vl_suite.qwenvl.doctor.time_limit import TimeIsUp, TimeLimit
from qwen_vl_suite.qwenvl.inference import cuda_graphs
from qwen_vl_suite.qwenvl.models.patches import norms
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import LocalSpec

CUDA = torch.device("cuda", 0)


def states(backend):
    return {path.name: path.state for path in fast_paths.fast_paths(backend)}


def reasons(backend):
    return {path.name: path.reason for path in fast_paths.fast_paths(backend)}


def test_a_model_on_the_processor(backend):
    loaded = backend("qwen3_vl")
    assert states(loaded) == {
        "scheduler": "on",
        "patch embedding": "on",
        "fused RMS norms": "not applicable",
        "linear attention kernels": "not applicable",
        "CUDA graphs": "not applicable",
        "prompt lookup": "on" if loaded.adaptive_lookup.pays else "off",
        "MTP drafts": "not applicable",
    }


def test_a_model_as_it_comes(checkpoint):
    loaded = load(LocalSpec(str(checkpoint("qwen3_5", mtp=True)), device="cpu", optimize="off"))
    assert "on" not in states(loaded).values()
    assert reasons(loaded)["scheduler"] == "optimize is off"


def test_what_the_check_of_a_card_found(checkpoint, monkeypatch):
    loaded = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"))
    found = {"scheduler": "", "prompt lookup": "token 3 was 5 and not 6", "CUDA graphs": ""}
    monkeypatch.setattr(type(loaded), "fast_path_problems", found)
    assert states(loaded)["prompt lookup"] == "failed"
    assert reasons(loaded)["prompt lookup"] == "token 3 was 5 and not 6"
    assert reasons(loaded)["scheduler"].endswith("checked: agrees with the plain path")
    loaded.plain_reason, loaded.has_failed = "a fast path failed (RuntimeError: x)", True
    assert states(loaded)["scheduler"] == "failed"


def test_drafts_are_on_while_they_pay(backend):
    loaded = backend("qwen3_vl")
    lookups = []
    for kind in (Always, Never):
        loaded.adaptive_lookup, kept = kind(), loaded.adaptive_lookup
        lookups.append(states(loaded)["prompt lookup"])
        loaded.adaptive_lookup = kept
    assert lookups == ["on", "off"]


def test_an_mtp_head_that_is_there_and_one_that_is_not(backend):
    with_head, without = backend("qwen3_5", mtp=True), backend("qwen3_5")
    assert "MTP head" not in reasons(with_head)["MTP drafts"]
    assert reasons(without)["MTP drafts"] == "the checkpoint has no MTP head that fits"
    assert states(without)["MTP drafts"] == "off"


class Pretended:
    """A loaded model that is said to be on a card."""

    device = CUDA
    plain_reason, has_failed, fast_path_problems = "", False, None

    def __init__(self, backend):
        self.model, self.family = backend.model, backend.family
        self.adaptive_lookup, self.adaptive_mtp = backend.adaptive_lookup, backend.adaptive_mtp
        self.weights = type("Weights", (), {"shares": {CUDA: 1}})


def test_a_model_on_a_card(checkpoint, monkeypatch):
    loaded = open_checkpoint(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"))
    loaded.load_weights(0, Observer())
    card = Pretended(loaded)
    monkeypatch.setattr(norms, "applies", lambda device: device.type == "cuda")
    assert (states(card)["CUDA graphs"], states(card)["fused RMS norms"]) == ("on", "off")
    norms.apply(card.model)
    cuda_graphs.CudaGraphs(CUDA, card.model)._disable("a test says so")
    assert (states(card)["CUDA graphs"], states(card)["fused RMS norms"]) == ("off", "on")
    card.weights.shares = {CUDA: 1, torch.device("cuda", 1): 1}
    assert states(card)["CUDA graphs"] == "not applicable"


def test_linear_attention_on_a_card_names_the_packages_that_it_lacks(backend, monkeypatch):
    card = Pretended(backend("qwen3_5"))
    there = {"fla"}
    monkeypatch.setattr(fast_paths, "find_spec", lambda name: name if name in there else None)
    assert reasons(card)["linear attention kernels"] == "not installed: causal-conv1d"
    there.add("causal_conv1d")
    assert states(card)["linear attention kernels"] == "on"


WHY = {
    ("auto", "cpu"): "no flash_attention_2: it runs on CUDA devices only",
    ("auto", "mps"): "sdpa fails on MPS",
    ("eager", "cpu"): "as asked for",
}


@pytest.mark.parametrize(("attention", "device"), WHY)
def test_the_choice_of_attention_has_a_reason(attention, device):
    spec = LocalSpec("x", attention=attention)
    reason = fast_paths.attention_reason(spec, torch.device(device), torch.bfloat16)
    assert reason.startswith(WHY[attention, device])


def test_a_decode_step_reads_the_decoder_and_the_output_layer(backend):
    model = backend("qwen3_vl").model
    decoder = sum(p.nbytes for p in model.get_decoder().layers.parameters())
    others = model.get_decoder().norm.weight.nbytes + model.lm_head.weight.nbytes
    assert bandwidth.bytes_a_step(model) == decoder + others


def test_of_a_mixture_it_reads_the_experts_of_one_token(backend):
    model = backend("qwen3_vl_moe").model
    text = model.config.get_text_config()
    experts = sum(p.nbytes for n, p in model.get_decoder().named_parameters() if ".experts." in n)
    every = sum(p.nbytes for p in model.get_decoder().layers.parameters())
    every += model.get_decoder().norm.weight.nbytes + model.lm_head.weight.nbytes
    share = text.num_experts_per_tok / text.num_experts
    assert 0 < share < 1 and experts
    assert bandwidth.bytes_a_step(model) == pytest.approx(every - experts * (1 - share), abs=1)


def test_bandwidth_needs_room_for_two_buffers():
    cpu = torch.device("cpu")
    assert bandwidth.measure_bandwidth(cpu, 2**20) is None
    assert bandwidth.measure_bandwidth(cpu, 2**24) > 10**7


def test_speed_counts_prompt_and_new_tokens(backend):
    found = speed.measure(backend("qwen3_vl"), Observer())
    assert 0 < found.image_tokens < found.prompt_tokens
    assert found.new_tokens >= speed._ENOUGH_TOKENS
    assert found.prefill > 0 and found.decode > 0
    floor = speed.Floor(10**9, 10**7)
    assert dataclasses.replace(found, floor=floor).floor.tokens_a_second == 100


def test_speed_is_given_up_when_the_time_is_up(backend):
    with pytest.raises(TimeIsUp):
        speed.measure(backend("qwen3_vl"), TimeLimit(-1))


def test_facts_name_public_checkpoints_only(backend, tmp_path):
    (tmp_path / "Qwen3-VL-2B-Instruct").mkdir()
    assert model_facts.public_name(str(tmp_path / "Qwen3-VL-2B-Instruct")) == (
        "Qwen/Qwen3-VL-2B-Instruct"
    )
    assert model_facts.public_name(str(tmp_path / "ours")) is None
    facts = model_facts.model_facts(backend("qwen2_5_vl"), LocalSpec(str(tmp_path / "ours")))
    assert (facts["name"], facts["family"], facts["coordinates"]) == (
        None, "Qwen2.5-VL", "input_pixels",
    )  # fmt: skip
    assert (facts["dtype"], facts["devices"], facts["layers"]) == ("float32", ["cpu"], 2)


@pytest.mark.parametrize(
    ("asked", "own", "told"),
    [
        ("none", None, "none"),
        ("4bit", {"quant_method": "bitsandbytes"}, "4bit"),
        ("none", {"quant_method": "fp8"}, "fp8"),
    ],
)
def test_quantization_is_the_one_asked_for_or_the_checkpoints_own(
    backend, monkeypatch, asked, own, told
):
    loaded = backend("qwen3_vl")
    if own:
        monkeypatch.setattr(loaded.model.config, "quantization_config", own, raising=False)
    facts = model_facts.model_facts(loaded, LocalSpec("x", quantization=asked))
    assert facts["quantization"] == told
