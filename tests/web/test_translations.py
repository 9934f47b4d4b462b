"""Translated panels and lists, and the size of nodes. ComfyUI's scripts are faked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.web
ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("zh", "ja")
STARTED = """async ([locale, texts, model]) => {
  const { api } = await import("/scripts/api.js");
  const { app } = await import("/scripts/app.js");
  app.locale = locale;
  api.fetchApi = async (route) =>
    new Response(JSON.stringify(route === "/i18n" ? texts : {}), { status: 200 });
  const lists = { style: ["short", "detailed"], model: [model] };
  app.registerExtension({
    nodeCreated(node) {
      for (const [name, values] of Object.entries(lists)) {
        node.widgets.push({ name, type: "combo", options: { values }, callback() {} });
      }
    },
  });
  await import("/extensions/qwen-vl-suite/node_appearance.js");
  await import("/extensions/qwen-vl-suite/answer_panel.js");
  await import("/extensions/qwen-vl-suite/box_panel.js");
  await import("/extensions/qwen-vl-suite/model_panel.js");
  globalThis.test = { app };
}"""


def main(language: str) -> Any:
    return json.loads((ROOT / "locales" / language / "main.json").read_text(encoding="utf-8"))


def start(page: Any, locale: str, model: str = "own/model") -> None:
    """A page in that language, whose nodes have two lists: styles, and that model."""
    texts = {language: main(language) for language in LANGUAGES}
    page.evaluate(STARTED, [locale, texts, model])


@pytest.mark.parametrize(
    ("locale", "waits", "previous"),
    [
        ("en", "The answer appears here", "Previous picture"),
        ("zh", "回答会显示在这里", "上一张图像"),
        ("ja", "ここに回答が表示されます", "前の画像"),
        ("fr", "The answer appears here", "Previous picture"),
    ],
)
def test_panels_speak_the_language_of_the_page(
    bare: Any, locale: str, waits: str, previous: str
) -> None:
    start(bare, locale)
    bare.evaluate("test.app.rootGraph.add(5, 'QVL_Describe')")
    assert bare.locator(".qvl-text-status").text_content() == waits
    assert bare.locator(".qvl-text-previous").get_attribute("title") == previous


def test_a_sentence_with_values_is_found_by_its_words(bare: Any) -> None:
    start(bare, "zh")
    said = bare.evaluate(
        """async () => {
          const { translate } = await import("/extensions/qwen-vl-suite/translate.js");
          return [
            translate("Looking at 12 pictures"),
            translate("{on} of {all} on", { on: 1, all: 3 }),
            translate("Nothing of ours (at all) {here}"),
            translate("10_a/b.png: 3 done, 0 failed, 2 left, 0.50/s, 0:00:04 to go"),
            translate("There is nothing at this address: see that it is right, and free"),
            translate("The server showed the model at most 9 tokens of pictures that are worth 64: "
              + "it makes them smaller. Small things and text may be missed; see the server's "
              + "settings."),
          ];
        }"""
    )
    assert said == [
        "正在查看 12 张图像",
        "已启用 1 / 3",
        "Nothing of ours (at all) {here}",
        "10_a/b.png：已完成 3，失败 0，剩余 2，0.50/秒，还需 0:00:04",
        "There is nothing at this address: see that it is right, and free",
        "图像值 64 个 token，服务器最多只给模型看了 9 个：它把图像缩小了。"
        "细小的东西和文字可能漏掉；请查看服务器的设置。",
    ]


def test_words_of_the_pack_are_told_from_those_of_a_model(bare: Any) -> None:
    start(bare, "zh")
    words = "5 captioned, 1 skipped, 0 failed\na.png: It is no picture."
    shown = bare.evaluate(
        """async (text) => {
          const { AnswerView } = await import("/extensions/qwen-vl-suite/answer_view.js");
          const { AnswerState } = await import("/extensions/qwen-vl-suite/answer_state.js");
          return [true, false].map((own_words) => {
            const [view, answer] = [new AnswerView(), new AnswerState()];
            answer.finish([{ text, own_words }]);
            view.draw(answer);
            return view.text.textContent;
          });
        }""",
        words,
    )
    assert shown == ["已写标注 5，跳过 1，失败 0\na.png: It is no picture.", words]


@pytest.mark.parametrize(
    ("locale", "name", "label"), [("ja", "画像 1", None), ("en", "image_1", "image_1")]
)
def test_slots_that_grow_are_named_as_they_come(
    bare: Any, locale: str, name: str, label: str | None
) -> None:
    """Whatever label ComfyUI gives a slot stands in the saved workflow."""
    start(bare, locale)
    slots = bare.evaluate(
        """() => {
          const node = test.app.rootGraph.add(5, "QVL_Chat");
          const named = ["images.image_1", "images.image_2", "model", "task.style"];
          node.inputs = named.map((name) => ({ name, label: name.split(".")[1] }));
          node.inputs[1].label = "the cat"; // by the user
          node.onConnectionsChange();
          return node.inputs.map((slot) => [slot.label ?? null, slot.localized_name ?? null]);
        }"""
    )
    assert slots == [[label, name], ["the cat", None], [None, None], ["style", None]]


@pytest.mark.parametrize(
    ("locale", "name"), [("zh", "详细 (detailed)"), ("ja", "詳しく (detailed)")]
)
def test_choices_are_named_in_it_and_keep_their_own_name_and_value(
    bare: Any, locale: str, name: str
) -> None:
    """Messages and help pages speak of choices by their own names."""
    start(bare, locale)
    named = bare.evaluate(
        """() => {
          const [style, model] = test.app.rootGraph.add(5, "QVL_Describe").widgets;
          const { getOptionLabel: nameOf, values } = style.options;
          const names = [nameOf("detailed"), nameOf("of an older release"), nameOf(null)];
          return [values, ...names, model.options.getOptionLabel];
        }"""
    )
    assert named == [["short", "detailed"], name, "of an older release", "", None]


def test_in_english_nothing_is_renamed(bare: Any) -> None:
    start(bare, "en")
    nameless = "test.app.rootGraph.add(5, 'QVL_Describe').widgets[0].options.getOptionLabel == null"
    assert bare.evaluate(nameless)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        pytest.param("own/model", 300, 300, id="short names"),
        pytest.param(
            "Qwen/Qwen3-VL-30B-A3B-Instruct (download, 62.1 GB)", 350, 479, id="long ones"
        ),
        pytest.param("x" * 500, 480, 480, id="no end of a name"),
    ],
)
def test_a_node_is_as_wide_as_its_longest_choice_needs(
    bare: Any, name: str, least: int, most: int
) -> None:
    start(bare, "en", name)
    width = bare.evaluate("test.app.rootGraph.add(5, 'QVL_Loader').size[0]")
    assert least <= width <= most, width
    assert bare.evaluate("test.app.rootGraph.add(6, 'LoadImage').size[0]") == 300


def test_choices_that_bring_inputs_do_not_take_height_away(bare: Any) -> None:
    """ComfyUI asks for the least size with the one that the node has, also as it opens a graph."""
    start(bare, "en")
    heights = bare.evaluate(
        """() => {
          const node = test.app.rootGraph.add(5, "QVL_Describe");
          return [node.computeSize([300, 708])[1], node.computeSize([300, 9])[1]];
        }"""
    )
    assert heights == [708, 200]


def test_every_word_of_the_panels_is_translated_and_no_other() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "web").glob("*.js"))
    said = set(re.findall(r"""\btranslate\(\s*"([^"]+)\"""", code))
    assert len(said) > 20
    for language in LANGUAGES:
        known = main(language)["qwenVlSuite"]["panels"]
        assert said - set(known) == set(), language
        for text, translation in known.items():
            held = re.findall(r"{\w+}", text)
            assert sorted(held) == sorted(re.findall(r"{\w+}", translation)), text
