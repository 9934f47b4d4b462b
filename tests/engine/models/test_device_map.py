"""Device map: planned with simulated memory, run on simulated devices."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl.backends import local_model
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.errors import Unavailable
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.models import devices, loading, precision
from qwen_vl_suite.qwenvl.models.device_map import balanced_device_map
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Sampling

FAMILY_NAMES = list(tiny.CONFIGS)
TOWERS = FAMILIES["qwen3_vl"].towers
LAYERS = 12
SIZE = 1_000_000


def deep(model_type: str, tied: bool = False) -> torch.nn.Module:
    """A model on the meta device with layers enough to be spread."""
    import transformers

    if not tiny.available(model_type):
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    row, config = FAMILIES[model_type], copy.deepcopy(tiny.CONFIGS[model_type])
    part = config.get(row.config_section, config)
    text = part.get("text_config", part)
    text["num_hidden_layers"] = LAYERS
    if "layer_types" in text:
        text["layer_types"] *= LAYERS // 2
    if tied:
        config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    with torch.device("meta"):
        if row.transformers_class:
            cls = getattr(transformers, row.transformers_class)
            return cls(cls.config_class(**part))
        parsed = transformers.AutoConfig.for_model(model_type, **config)
        return transformers.AutoModelForImageTextToText.from_config(parsed)


def nbytes(name: str, weight: torch.Tensor) -> int:
    return weight.nbytes


def filled(model: torch.nn.Module, places: dict) -> dict:
    """Bytes on each device, tied weights counted once."""
    found: dict = {}
    for name, weight in model.named_parameters():
        place = places[part_of(name, places)]
        found[place] = found.get(place, 0) + weight.nbytes
    return found


def part_of(name: str, places: dict) -> str:
    (part,) = [part for part in places if name == part or name.startswith(part + ".")]
    return part


BUDGETS = {
    "two alike": [1.0, 1.0],
    "a large and a small one": [1.2, 0.6],
    "a small and a large one": [0.6, 1.2],
    "three alike": [0.6, 0.6, 0.6],
    "four unlike": [0.9, 0.3, 0.5, 0.3],
}


@pytest.mark.parametrize("case", BUDGETS)
@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_parts_fit_in_order_and_evenly(model_type: str, case: str) -> None:
    model = deep(model_type)
    whole = sum(weight.nbytes for weight in model.parameters())
    free = {number: int(whole * share) for number, share in enumerate(BUDGETS[case])}
    places = balanced_device_map(model, free, nbytes, FAMILIES[model_type].towers)
    from accelerate.utils import check_device_map

    check_device_map(model, places)
    used = filled(model, places)
    shares = [used.get(number, 0) / nbytes for number, nbytes in free.items()]
    assert max(shares) <= 0.8, "no room is left for work"
    layers = [place for part, place in places.items() if ".layers." in part and "tower" not in part]
    assert layers == sorted(layers) and len(layers) == LAYERS, "torn, or to and fro"
    towers = {place for part, place in places.items() if "visual" in part or "tower" in part}
    assert towers == {0}
    # As even as parts allow: the fullest could not give its last one to another.
    largest = max(
        sum(w.nbytes for n, w in model.named_parameters() if part_of(n, places) == part)
        for part in places
    )
    even = whole / sum(free.values())
    assert max(shares) <= even + 2 * largest / min(free.values())


def test_tied_weights_stay_together_and_count_once() -> None:
    model = deep("qwen3_vl", tied=True)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    whole = sum(weight.nbytes for weight in model.parameters())
    places = balanced_device_map(model, {0: whole, 1: whole}, nbytes, TOWERS)
    assert places["lm_head"] == places["model.language_model.embed_tokens"]
    assert set(places.values()) == {0, 1}


@pytest.mark.parametrize("free", [[0.5, 0.5], [0.2, 2.0]])
def test_what_does_not_fit_is_refused_with_both_numbers(free: list[float]) -> None:
    """Too little in all; or too little where what sees pictures must stand."""
    model = deep("qwen3_vl")
    whole = sum(weight.nbytes for weight in model.parameters())
    with pytest.raises(Unavailable, match=r"needs [\d.]+ MB, .* 2 devices have room for [\d.]+ MB"):
        balanced_device_map(
            model, {n: int(whole * share) for n, share in enumerate(free)}, nbytes, TOWERS
        )


@pytest.mark.parametrize(("count", "said"), [(0, "none"), (1, "1 here")])
def test_without_two_gpus_the_wish_is_refused_with_advice(checkpoint, monkeypatch, count, said):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(Unavailable, match=f"{said}.*Choose auto"):
        load(LocalSpec(str(checkpoint("qwen3_vl")), device="split"))


def picture(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def questions() -> list[Request]:
    sampling = Sampling(max_new_tokens=12)
    return [
        Request.ask((picture(50, 80),), "what is it?", sampling=sampling),
        Request.ask((picture(100, 100), picture(200, 64)), "both", sampling=sampling),
        Request.ask((), "only words", sampling=sampling),
    ]


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned for two devices, but each is the CPU; every part runs behind accelerate's hooks."""
    import accelerate

    plain = loading._from_pretrained

    def hooked(cls, path, options):
        model, report = plain(cls, path, options)
        if places := options.get("device_map"):
            accelerate.dispatch_model(model, places, force_hooks=True)
        return model, report

    pretend = [torch.device("cpu"), torch.device("cpu", 0)]
    for module in (devices, loading, local_model):
        monkeypatch.setattr(module, "pick_devices", lambda wish: pretend[: 1 + (wish == "split")])
    monkeypatch.setattr(loading, "least_capable", lambda devices: devices[0])
    monkeypatch.setattr(loading, "free_memory", lambda: {0: SIZE, 1: SIZE})
    monkeypatch.setattr(
        loading,
        "balanced_device_map",
        lambda *given: dict.fromkeys(balanced_device_map(*given), "cpu"),
    )
    monkeypatch.setattr(loading, "_from_pretrained", hooked)


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_a_split_model_answers_as_a_whole_one(checkpoint, two_devices, model_type: str) -> None:
    folder = str(checkpoint(model_type))
    whole = load(LocalSpec(folder, device="cpu"))
    parted: LocalBackend = load(LocalSpec(folder, device="split"))
    assert hasattr(parted.model.get_input_embeddings(), "_hf_hook"), "nothing was dispatched"
    assert len(parted.model.hf_device_map) > 5
    assert parted.generate(questions()) == whole.generate(questions())


def test_the_weakest_device_decides_what_all_compute_in(checkpoint, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: [(9, 0), (7, 5), (8, 6)][device.index]
    )
    places = devices.pick_devices("split")
    assert devices.pick_device("split") == places[0] == torch.device("cuda:0")
    assert precision.pick_dtype("auto", devices.least_capable(places)) is torch.float16
