"""Benchmarks tell the truth: equal results first, real shapes, and a page that shows what was
measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import tiny
import torch
from qwen_vl_suite.benchmarks import __main__ as command
from qwen_vl_suite.benchmarks import (
    constrained,
    decoding,
    figures,
    folders,
    models,
    plan,
    report,
    speculation,
    speed,
)
from qwen_vl_suite.qwenvl.backends.local import load
from qwen_vl_suite.qwenvl.checkpoints.catalogue import CATALOGUE
from qwen_vl_suite.qwenvl.models.patches import norms
from qwen_vl_suite.qwenvl.types import LocalSpec

MACHINE = {
    "processor": "A processor",
    "threads": 2,
    "card": None,
    "torch": "2.11.0",
    "transformers": "5.23.0",
}
LINES = [
    {
        "benchmark": "batch",
        "kind": "ratio",
        "name": "16 pictures",
        "ours": 0.5,
        "theirs": 2.125,
        "ratio": 4.25,
        "spread": [4.0, 4.4],
        "wanted": 2.5,
        "note": "against one by one",
        "machine": MACHINE,
    },
    {
        "benchmark": "slow",
        "kind": "ratio",
        "name": "something slow",
        "ours": 0.0125,
        "theirs": 0.3125,
        "ratio": 25.0,
        "spread": [24.0, 26.0],
        "wanted": 30,
        "note": "",
        "machine": MACHINE,
    },
    {
        "benchmark": "threads",
        "kind": "ratio",
        "name": "threads",
        "ours": 1.0,
        "theirs": 1.5,
        "ratio": 1.5,
        "spread": [1.4, 1.6],
        "wanted": None,
        "note": "",
        "machine": {**MACHINE, "threads": 1, "card": "A card"},
    },
    {
        "benchmark": "growth",
        "kind": "growth",
        "name": "a batch",
        "of": "pictures",
        "sizes": [1, 64],
        "seconds": [0.1, 6.4],
        "exponent": 1.0,
        "wanted": 1.1,
        "machine": MACHINE,
    },
    {
        "benchmark": "card",
        "kind": "missing",
        "name": "32 pictures",
        "wanted": 8,
        "at_most": False,
        "why": "there is no CUDA device",
        "machine": MACHINE,
    },
]
TABLES = """\
**A processor, 1 thread, A card; torch 2.11.0, transformers 5.23.0**

| what | measured | wanted | ours | theirs | |
|---|---|---|---|---|---|
| threads | **1.50×** (1.40×–1.60×) |  | 1.00 s | 1.50 s |  |

**A processor, 2 threads, no graphics card; torch 2.11.0, transformers 5.23.0**

| what | measured | wanted | ours | theirs | |
|---|---|---|---|---|---|
| 16 pictures | **4.25×** (4.00×–4.40×) | ≥ 2.5× ✓ | 500 ms | 2.12 s | against one by one |
| something slow | **25×** (24×–26×) | ≥ 30× ✗ | 12.5 ms | 312 ms |  |
| a batch | exponent **1.00** | ≤ 1.1 ✓ |  |  | 100 ms at 1, 6.40 s at 64 pictures |

**Not measured**, for there is no CUDA device here:

- 32 pictures (wanted: ≥ 8×)"""


class Clock:
    """Time that passes only where somebody says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 0.0
        monkeypatch.setattr(figures.time, "perf_counter", lambda: self.now)

    def takes(self, *seconds: float, result: Any = None) -> Callable[[], Any]:
        """What takes so long when it is first done, and so on."""
        left = list(seconds)

        def work() -> Any:
            self.now += left.pop(0)
            return result

        return work


def test_a_ratio_is_of_medians_and_leaves_the_first_turn_out(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    ours = clock.takes(100, 1, 2, 4, result="same")
    theirs = clock.takes(1, 6, 8, 10, result="same")
    figure = figures.compare("name", ours, theirs, wanted=2, repeats=3)
    assert (figure.ours, figure.theirs, figure.ratio) == (2, 8, 4)
    assert figure.spread == (2.5, 6)
    assert figure.line() == ("name: 4.00x (2.50-6.00, wanted 2x); ours 2.000 s, theirs 8.000 s.")


def test_the_first_turn_counts_after_a_warm_up(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    ours, theirs = clock.takes(1, 2), clock.takes(4, 4)
    figure = figures.compare("name", ours, theirs, wanted=2, repeats=2, warm_up=clock.takes(100))
    assert (figure.ours, figure.theirs, figure.spread) == (1.5, 4, (2, 4))


def test_no_figure_where_results_differ():
    with pytest.raises(AssertionError, match="name: 1 is not 2"):
        figures.compare("name", lambda: 1, lambda: 2, wanted=2)


def test_the_figure_notes_how_far_answers_agree():
    mine, others = [[1, 2, 3, 4], [1, 2, 3, 4]], [[1, 2, 3, 4], [1, 9, 3, 4]]
    figure = figures.compare(
        "name", lambda: mine, lambda: others, wanted=2, note="bf16", agreement=figures.agreement
    )
    assert figure.note == (
        "bf16; 1 of 2 answers are equal, 62 % of the tokens come before a first difference"
    )


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_an_exponent_is_that_of_the_power_law(power: float):
    sizes = [1, 4, 16, 64]
    assert figures.exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


def test_growth_takes_the_best_of_several_times(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    costs = {0: clock.takes(1, 9), 1: clock.takes(50, 10)}
    growth = figures.measure_growth(
        "name", 1.1, "pixels", [1, 10], lambda index: costs[index](), repeats=2
    )
    assert growth == figures.Growth("name", "pixels", [1, 10], [1, 10], pytest.approx(1.0), 1.1)


@pytest.mark.parametrize("size", models.FULL)
def test_full_shapes_have_the_weights_of_the_real_models(size: str, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    model = models.random_model(tmp_path, models.FULL[size], "meta", torch.bfloat16, "sdpa")
    nbytes = sum(weight.nbytes for weight in model.parameters())
    real = CATALOGUE[f"Qwen/Qwen3-VL-{size}-Instruct"].nbytes
    assert nbytes == pytest.approx(real, abs=5e7)  # which are rounded to 0.1 GB


@pytest.fixture
def tiny_model(checkpoint: Callable[..., Path]) -> models.Model:
    return models.open_model(checkpoint("qwen3_vl"), device="cpu", precision="fp32")


def test_weights_made_in_place_answer_as_a_loaded_model_does(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Callable[..., Path]
):
    monkeypatch.setitem(models.FULL, "tiny", tiny.CONFIGS["qwen3_vl"])
    monkeypatch.setattr(models, "_full_files", lambda: checkpoint("qwen3_vl"))
    model = models.full("tiny", device="cpu")
    weights = model.backend.model.state_dict()
    assert weights["lm_head.weight"].dtype == torch.bfloat16 and not model.exact
    assert weights["lm_head.weight"].float().std() == pytest.approx(0.02, rel=0.05)
    # Its answers have the length that was asked for.
    (said,) = speed.generated_ids(model.backend, speed.questions(1, 64, 6))
    assert len(said) == 6


def test_weights_quantised_in_place_are_those_that_loading_makes(checkpoint: Callable[..., Path]):
    from qwen_vl_suite.qwenvl import families
    from qwen_vl_suite.qwenvl.models import loading, quantization

    path = checkpoint("qwen3_vl")
    family = families.FAMILIES["qwen3_vl"]
    whole, wanted = (
        loading.load_model(
            path,
            LocalSpec(str(path), device="cpu", precision="fp32", quantization=quantization),
            family,
        )
        for quantization in ("none", "4bit")
    )
    wish = quantization.bitsandbytes_config("4bit", torch.float32, family)
    models.quantize_in_place(whole, wish)
    kinds = [{n: type(m) for n, m in model.named_modules()} for model in (whole, wanted)]
    assert kinds[0] == kinds[1]
    ids = torch.arange(20)[None]
    with torch.no_grad():
        mine, theirs = (model(input_ids=ids).logits for model in (whole, wanted))
    assert torch.equal(mine, theirs)


def test_batches_and_questions_are_measured_after_they_were_equal(tiny_model: models.Model):
    for figure in (
        speed.batch("batch", None, tiny_model, pictures=2, side=64, tokens=3),
        speed.second_question("second", None, tiny_model, side=64),
        speed.next_turn("next", None, tiny_model, side=64, turns=3),
        speed.three_tasks("after", None, tiny_model, side=64, tokens=2, together=False),
        speed.three_tasks("at once", None, tiny_model, side=64, tokens=2, together=True),
    ):
        assert figure.ours > 0 and figure.theirs > 0


def test_folders_are_measured_after_the_captions_were_equal(
    monkeypatch: pytest.MonkeyPatch, tiny_model: models.Model
):
    measured = folders.folder("folder", 0.9, tiny_model, pictures=3, side=64, tokens=2)
    assert measured.ours > 0 and measured.theirs > 0
    ended = folders._ended
    count = iter(range(1000))
    monkeypatch.setattr(
        folders, "_ended", lambda response: ended(dataclasses.replace(response, tokens=()))
        if next(count) == 0 else ended(response),
    )  # fmt: skip
    with pytest.raises(AssertionError, match="folder"):
        folders.folder("folder", 0.9, tiny_model, pictures=2, side=64, tokens=2)


def test_streams_are_measured_after_the_answers_were_equal(tiny_model: models.Model):
    measured = folders.stream("stream", 1, tiny_model, pictures=9, side=64, tokens=(2, 5), lot=3)
    assert measured.ours > 0 and measured.theirs > 0


def test_memory_does_not_grow_with_a_folder():
    found = folders.memory(160, 60, most=4, side=512)
    assert found["pictures"] == [60, 160] and found["growth"] < 0.05


def test_answers_of_random_weights_hold_no_thoughts(tiny_model: models.Model):
    (think,) = tiny_model.backend.chat_template.tokenizer.encode("<think>")
    head = tiny_model.backend.model.get_output_embeddings()
    likely = torch.zeros(head.out_features)
    likely[think] = 1e6
    hook = head.register_forward_hook(lambda _module, _inputs, logits: logits + likely)
    (said,) = speed.generated_ids(tiny_model.backend, speed.questions(1, 64, 6))
    hook.remove()
    assert len(said) == 6 and think not in said


def test_the_plain_road_is_measured_after_it_was_equal(tiny_model: models.Model):
    plain = models.open_model(tiny_model.folder, device="cpu", optimize="off")
    figure = speed.plain_road("plain", None, tiny_model, plain, pictures=2, side=64, tokens=3)
    assert figure.ours > 0 and figure.theirs > 0
    other = models.open_model(tiny_model.folder, device="cpu", optimize="off")
    weight = other.backend.model.get_output_embeddings().weight
    weight.data.neg_()
    with pytest.raises(AssertionError, match="plain"):
        speed.plain_road("plain", None, tiny_model, other, pictures=1, side=64, tokens=3)


def test_a_batch_with_one_wrong_token_has_no_figure(
    monkeypatch: pytest.MonkeyPatch, tiny_model: models.Model
):
    ask = speed.PlainGenerate.ask
    monkeypatch.setattr(speed.PlainGenerate, "ask", lambda *of: [*ask(*of)[:-1], -1])
    with pytest.raises(AssertionError, match="batch"):
        speed.batch("batch", None, tiny_model, pictures=2, side=64, tokens=3)


def test_growth_is_measured_from_new_pictures(tiny_model: models.Model):
    seen = tiny_model.backend.prefix_cache
    growth = speed.batch_growth("g", None, tiny_model, counts=[1, 2], side=64, tokens=2)
    assert growth.sizes == [1, 2] and seen.hits == 0 and seen.misses
    growth = speed.picture_growth("g", None, tiny_model, sides=[64, 128])
    assert growth.sizes == [64**2, 128**2] and seen.hits == 0


def test_constrained_decoding_is_measured_and_leaves_the_model_as_it_was():
    held = constrained.of_vocabulary(tiny.EXAMPLES["qwen3_vl"], 700)
    tokenizer = held.backend.chat_template.tokenizer
    assert len(tokenizer) == 700
    assert len(tokenizer.encode('{"bbox_2d": [', add_special_tokens=False)) == 7
    own = held.backend.adaptive_forced, held.backend.adaptive_lookup
    assert constrained.masks("m", None, held, rows=2, tokens=30).ours > 0
    assert constrained.forced("f", None, held, boxes=2).ours > 0
    assert (held.backend.adaptive_forced, held.backend.adaptive_lookup) == own


def test_speculation_is_measured_and_leaves_the_model_as_it_was(tiny_model: models.Model):
    own = tiny_model.backend.adaptive_lookup
    assert speculation.prompt_lookup("boxes", None, tiny_model, boxes=2).ours > 0
    assert tiny_model.backend.adaptive_lookup is own
    growth = speculation.cost_of_verifying("check", None, tiny_model, lengths=[1, 3])
    assert growth.sizes == [1, 3] and min(growth.seconds) > 0


def test_a_token_reads_all_of_the_language_model_but_unused_embeddings(tiny_model: models.Model):
    model = tiny_model.backend.model
    embeddings = model.model.language_model.embed_tokens.weight
    norm = model.model.language_model.norm.weight
    rest = sum(weight.nbytes for weight in model.model.language_model.parameters())
    assert embeddings is not model.lm_head.weight
    expected = rest - embeddings.nbytes - norm.nbytes + model.lm_head.weight.nbytes
    assert decoding.bytes_per_token(model) == expected


def test_decoding_is_measured_without_the_prompt(
    monkeypatch: pytest.MonkeyPatch, tiny_model: models.Model
):
    spent: list[int] = []

    def seconds(_model: models.Model, asked: list[Any]) -> float:
        spent.append(asked[0].sampling.max_new_tokens)
        return 10 + 0.5 * spent[-1]

    monkeypatch.setattr(decoding, "_seconds", seconds)
    assert decoding.decode_timer(tiny_model, 20)() == 0.5
    assert sorted(spent) == [1, 21]


def test_one_thread_is_for_the_work_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert decoding.single_threaded(torch.get_num_threads)() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_needs_a_card_is_not_made_up_without_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows = [row for row in plan.plan().values() if row.card]
    assert {row.wanted for row in rows} == {None, 0.75, 0.77, 0.9, 1.1, 1.2, 2, 5, 8, 10}
    for row in rows:
        found = command.record(row.key, command.measured(row))
        assert found["kind"] == "missing" and found["why"] == "there is no CUDA device"
        assert found["machine"]["card"] is None and "ratio" not in found


def test_what_needs_much_room_is_not_begun_without_it(monkeypatch: pytest.MonkeyPatch):
    row = plan.plan()["start"]
    assert not row.card and row.nbytes > 17e9
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: MagicMock(free=10**9))
    assert "20 GB of memory" in row.obstacle
    assert command.record(row.key, command.measured(row))["kind"] == "missing"


def test_plain_sides_have_the_librarys_norms(checkpoint):
    model = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu")).model
    norms.apply(model)
    kinds = [type(part) for part in model.modules()]
    assert {kind.__name__[:5] for kind in kinds} >= {"Quick"}
    with models.without_patches(model):
        theirs = {type(part).__name__ for part in model.modules()}
        assert not any(name.startswith("Quick") for name in theirs)
    assert [type(part) for part in model.modules()] == kinds


def test_a_line_is_complete_json():
    figure = figures.Figure("name", 1.0, 2.0, 2.0, (1.9, 2.1), 2, "note")
    line = json.loads(json.dumps(command.record("key", figure)))
    assert line == {
        "benchmark": "key",
        "kind": "ratio",
        "name": "name",
        "ours": 1.0,
        "theirs": 2.0,
        "ratio": 2.0,
        "spread": [1.9, 2.1],
        "wanted": 2,
        "note": "note",
        "machine": figures.machine(),
    }
    assert all(line["machine"][name] for name in ("processor", "threads", "torch", "transformers"))


def test_tables_show_what_was_measured_by_machine():
    assert report.tables(LINES) == TABLES


def test_a_measured_line_stays_until_it_is_measured_again():
    batch, slow, *_, card = LINES
    unmeasured = {**slow, "kind": "missing"}
    quicker, found = {**batch, "ratio": 9}, {**card, "kind": "ratio"}
    assert report.merged([batch, slow, card], [unmeasured, quicker, found]) == [
        slow,
        quicker,
        found,
    ]
    assert report.merged([card], [batch, {**card, "name": "renamed"}]) == [
        batch,
        {**card, "name": "renamed"},
    ]


def test_the_page_shows_the_results_that_lie_beside_it():
    text = report.PAGE.read_text("utf-8")
    assert report.page(text, report.read(report.KEPT)) == text
    for name in ("ratios.svg", "growth.svg"):
        assert f"performance/{name}" in text and (report.KEPT.parent / name).is_file()


def test_the_results_are_of_all_that_is_planned():
    kept = {line["benchmark"]: (line["name"], line["wanted"]) for line in report.read(report.KEPT)}
    assert kept == {row.key: (row.name, row.wanted) for row in plan.plan().values()}


def test_plots_of_the_same_results_are_the_same(tmp_path: Path):
    pytest.importorskip("matplotlib")  # comes with `make bench`
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        made.append([path.read_text() for path in report.plots(LINES, tmp_path / name)])
    ratios, growth = made[0]
    assert made[0] == made[1]
    assert ">16 pictures<" in ratios and ">4.25×<" in ratios
    assert ">a batch: 1.00<" in growth
