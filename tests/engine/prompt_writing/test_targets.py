"""Targets: the pack's own are sound, users' ones are read, and what is wrong in a file is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.prompt_writing import Order, read_targets
from qwen_vl_suite.qwenvl.prompt_writing.target import BUILT_IN, read_target

WHOLE = """
title: Mine
source: me
system: Write a prompt.
"""


def made(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_packs_own_targets() -> None:
    targets = read_targets()
    assert not targets.problems and len(targets.items) == len(list(BUILT_IN.glob("*.yaml")))
    assert {"qwen_image", "qwen_image_2_1", "z_image", "flux2", "wan", "ltx", "sdxl_tags"} <= set(
        targets.items
    )
    for target in targets.items.values():
        assert "https://" in target.source or "Qwen/" in target.source
        for has_pictures in (False, True):
            order = Order(target, "" if has_pictures else "a cat", has_pictures)
            assert order.task.system and order.task.prompt
    assert targets["flux2"].negative is None and targets["wan"].negative


def test_users_add_and_replace_targets(tmp_path: Path) -> None:
    made(tmp_path, WHOLE)
    made(tmp_path, WHOLE.replace("Mine", "My Flux"), "flux2")
    targets = read_targets([tmp_path, tmp_path / "absent"])
    assert targets["mine"].title == "Mine" and targets["flux2"].title == "My Flux"
    assert targets["mine"].pictures.system == "Write a prompt."
    made(tmp_path, WHOLE.replace("Mine", "Another title"))  # seen at once, without a restart
    assert read_targets([tmp_path])["mine"].title == "Another title"


def test_a_broken_file_costs_only_its_own_target(tmp_path: Path) -> None:
    made(tmp_path, "title: [", "flux2")
    targets = read_targets([tmp_path])
    assert "wan" in targets.items
    with pytest.raises(BadOption, match=r"flux2\.yaml, line 1: this is no valid YAML"):
        targets["flux2"]
    with pytest.raises(BadOption, match=r"no target 'nope'. Choose one of: .*wan"):
        targets["nope"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("title: A\nsource: B", "system is missing"),
        (f"{WHOLE}language: no", 'what YAML takes for False: put it into "quotes"'),
        (f"{WHOLE}sytem: x", "sytem is no field that is known here. Did you mean system?"),
        (f"{WHOLE}reply: xml", "reply is 'xml'. Choose one of: paragraph, tags, text, json"),
        (f"{WHOLE}reply: {'x' * 9999}", f"reply is '{'x' * 80}'…. Choose one of"),
        (f"{WHOLE}reply: json", "keys has to name the field of the reply that holds the prompt"),
        (f"{WHOLE}keys: {{prompt: p}}", "add reply: json"),
        (f"{WHOLE}user: Write.", "user does not say where the idea goes: write {idea} there"),
        (f"{WHOLE}sampling: {{top_p: 2}}", "sampling: top_p is 2; it may be 0 to 1"),
        (f"{WHOLE}sampling: {{top_k: 2.5}}", "sampling: top_k is 2.5; write a whole number"),
        (f"{WHOLE}thinking: maybe", "thinking is 'maybe'; write true or false"),
        (f"{WHOLE}pictures: {{sistem: x}}", "pictures: sistem is no field"),
        (f"{WHOLE}length: 75", "length has to have names with values below it"),
        (f"{WHOLE}length: {{tokens: 75, encoder: bert}}", "length: encoder is 'bert'"),
        (f"{WHOLE}system_file: ../secret", "give the name of a file without a folder"),
        ("- a\n- b", "write names with values"),
        ("title: !!bool maybe", "no valid YAML"),
        ("title: !!int ''", "no valid YAML"),
        ("title: !!float ''", "no valid YAML"),
        ("title: !!timestamp x", "no valid YAML"),
        (f"{WHOLE}yes: x", 'the name that YAML takes for True goes into "quotes"'),
        (f"{WHOLE}pictures: {{no: x}}", 'the name that YAML takes for False goes into "quotes"'),
        (f"{WHOLE}max_new_tokens: 0x{'f' * 9000}", "max_new_tokens is a number of too many digits"),
        ("!!python/object/apply:os.getcwd []", "no valid YAML"),
        ("title: a: b", "line 1"),
        ("[" * 600, "no valid YAML"),
    ],
)
def test_errors_name_file_field_and_remedy(tmp_path: Path, text: str, complaint: str) -> None:
    path = made(tmp_path, text)
    with pytest.raises(BadOption) as caught:
        read_target(path)
    assert str(path) in str(caught.value) and complaint in str(caught.value)


@pytest.mark.parametrize("field", ["title", "max_new_tokens", "reply", "thinking", "sampling"])
def test_a_small_file_makes_no_endless_error(tmp_path: Path, field: str) -> None:
    aliases = "a0: &a0 [x]\n" + "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 6)
    )
    own = "\n".join(line for line in WHOLE.splitlines() if not line.startswith(field))
    path = made(tmp_path, f"{aliases}{own}\n{field}: *a5")
    with pytest.raises(BadOption) as caught:
        read_target(path)
    assert field in str(caught.value) and len(str(caught.value)) < 500
