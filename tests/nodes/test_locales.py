"""The nodes in other languages: every text there is, and none of one that is gone.

``locales/en`` is written from the schemas by ``QVL_RECORD=1`` and not by hand; a translator sees
in it what changed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfy_api.latest import io
from qwen_vl_suite.qwenvl.fine_tunes import FINE_TUNES

LOCALES = Path(__file__).resolve().parents[2] / "locales"
# What marks a text as written in the language, and not left in English.
LETTERS = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff\u4e00-\u9fff]"}
# Names of parameters and of other packs' formats that are the same in every language.
SAME = re.compile(r"(Top[ -]?[KP]|Min[ -]?P|SAM2|XYWH|Florence-2|SEGS|Ideogram)", re.IGNORECASE)
Texts = dict[str, Any]


def flat(inputs: list[Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Inputs by the key that ComfyUI's page looks them up with, those of choices too."""
    for item in inputs:
        yield f"{before}{item.id}", item
        for option in item.options if isinstance(item, io.DynamicCombo.Input) else []:
            yield from flat(option.inputs, f"{before}{item.id}_")


def spoken(item: Any) -> Texts:
    return {"name": item.display_name or item.id, "tooltip": item.tooltip}


def texts(schema: Any) -> Texts:
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {key: spoken(item) for key, item in flat(schema.inputs)},
        "outputs": {str(number): spoken(item) for number, item in enumerate(schema.outputs)},
    }


@pytest.fixture(scope="module")
def english(nodes: Any) -> Texts:
    return {node_id: texts(cls.define_schema()) for node_id, cls in nodes.items()}


def read(language: str) -> Texts:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def test_english_is_what_the_nodes_themselves_say(english: Texts) -> None:
    if os.environ.get("QVL_RECORD"):
        text = json.dumps(english, indent=2, ensure_ascii=False) + "\n"
        (LOCALES / "en" / "nodeDefs.json").write_text(text, encoding="utf-8")
    assert read("en") == english, "run this test once with QVL_RECORD=1 and translate what is new"


@pytest.mark.parametrize("language", LETTERS)
def test_a_translation_has_every_text_and_no_other(english: Texts, language: str) -> None:
    there = [path for path, _ in leaves(read(language))]
    wanted = [path for path, _ in leaves(english)]
    assert sorted(set(wanted) - set(there)) == [], "to be translated"
    assert sorted(set(there) - set(wanted)) == [], "of what is no longer there"
    assert there == wanted, "in the order of the nodes, so that they can be read side by side"


@pytest.mark.parametrize("language", LETTERS)
def test_nothing_is_left_in_english(language: str) -> None:
    for path, text in leaves(read(language)):
        assert re.search(LETTERS[language], text) or SAME.match(text), path


@pytest.mark.parametrize("language", LETTERS)
def test_choices_are_called_what_the_list_calls_them(nodes: Any, language: str) -> None:
    """ComfyUI does not translate them."""
    for node_id, translated in read(language).items():
        for key, item in flat(nodes[node_id].define_schema().inputs):
            options = getattr(item, "options", None) or []
            for name in (getattr(option, "key", option) for option in options):
                if f"{name}:" in item.tooltip:
                    assert name in translated["inputs"][key]["tooltip"], (node_id, key, name)


# Choices that are names of things: number types, libraries, hubs, models, file formats.
NAMES = re.compile(
    r"[a-z]*\d.*|[a-z]+_attention.*|sdpa|eager|huggingface|modelscope|mps|png|jpeg|.*\.png"
)


def is_name(choice: str) -> bool:
    """Whether a choice is a name, which is the same in all languages."""
    return choice in FINE_TUNES or NAMES.fullmatch(choice) is not None


FROM_DISK = {"adapter", "model", "device", "picture", "file", "mmproj"}


@pytest.mark.parametrize("language", LETTERS)
def test_choices_have_names_in_the_language(nodes: Any, language: str) -> None:
    """The pack's own page code shows them: ComfyUI has no place for them in ``nodeDefs``."""
    text = (LOCALES / language / "main.json").read_text(encoding="utf-8")
    named = json.loads(text)["qwenVlSuite"]["choices"]
    offered: dict[str, set[str]] = {}
    for cls in nodes.values():
        for _, item in flat(cls.define_schema().inputs):
            options = getattr(item, "options", None) or []
            offered.setdefault(item.id, set()).update(
                str(getattr(option, "key", option)) for option in options
            )
    for name in named.keys() - FROM_DISK:
        wanted = {option for option in offered[name] if not is_name(option)}
        assert wanted - named[name].keys() == set(), name
        assert named[name].keys() - offered[name] == set(), f"of what is no longer there: {name}"
    lists = {name for name, options in offered.items() if options}
    words = {name for name in lists if any(not is_name(o) for o in offered[name])}
    assert words - FROM_DISK - named.keys() == set(), "to be translated"


@pytest.mark.parametrize("language", ["en", *LETTERS])
def test_no_text_is_taken_for_a_pattern(language: str) -> None:
    """ComfyUI's translator reads these characters as placeholders, links and plural forms."""
    for path, text in leaves(read(language)):
        assert not re.search(r"[{}@|$]", text), path


def test_there_is_no_other_language_without_a_check() -> None:
    assert {folder.name for folder in LOCALES.iterdir()} == {"en", *LETTERS}


PAGES = LOCALES.parent / "web" / "docs"


def page(node_id: str, language: str) -> str:
    path = f"{node_id}.md" if language == "en" else f"{node_id}/{language}.md"
    return (PAGES / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_help_page_names_every_input_and_output(
    nodes: Any, english: Texts, language: str
) -> None:
    """By the names that are on the node, and in a translation by those of the graph as well."""
    for node_id, said in read(language).items():
        text = page(node_id, language)
        assert text.startswith(f"# {said['display_name']}\n")
        named = [("inputs", item.id) for item in nodes[node_id].define_schema().inputs]
        named += [("outputs", number) for number in said["outputs"]]
        for kind, key in named:
            assert english[node_id][kind][key]["name"] in text, (node_id, key)
            assert said[kind][key]["name"] in text, (node_id, key)


def test_there_is_no_page_of_what_is_gone(english: Texts) -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == set(english)
    assert {page.parent.name for page in PAGES.glob("*/zh.md")} == set(english)
    assert not [page for page in PAGES.glob("*/*.md") if page.name != "zh.md"]


def test_every_page_shows_its_node_in_its_language(english: Texts) -> None:
    """ComfyUI looks pictures up below ``docs``, from a translation too."""
    shown = set()
    for node_id in english:
        for language, ending in (("en", ".webp"), ("zh", ".zh.webp")):
            assert f"](pictures/{node_id}{ending})" in page(node_id, language)
            shown |= set(re.findall(r"]\((pictures/[^)]+)\)", page(node_id, language)))
    there = {path.relative_to(PAGES).as_posix() for path in (PAGES / "pictures").iterdir()}
    assert there == shown
    assert all((PAGES / path).stat().st_size < 80_000 for path in there)
