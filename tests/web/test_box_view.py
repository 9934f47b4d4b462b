"""Box view and box selection on a bare page."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.web
AT = "/extensions/qwen-vl-suite/"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw=="


def box(x1: int, y1: int, x2: int, y2: int, label: str = "", **more: Any) -> dict[str, Any]:
    place = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return {**place, "label": label, "colour": "rgb(255, 152, 0)", **more}


def entry(*boxes: dict[str, Any], size: tuple[int, int] = (100, 200), **more: Any) -> Any:
    return {"size": size, "boxes": boxes, "points": [], "picture": None, **more}


CAT, DOG = box(20, 10, 100, 50, "cat", score=0.912), box(150, 60, 200, 100, "dog")
AROUND = box(10, 0, 200, 100, "room")


class View:
    """A view of 400 by 300 pixels on a bare page, which keeps itself what is switched off."""

    def __init__(self, page: Any):
        self.page = page
        page.evaluate(
            """async (at) => {
              const { BoxView } = await import(at + "box_view.js");
              const style = document.createElement("link");
              Object.assign(style, { rel: "stylesheet", href: at + "box_view.css" });
              const sheet = new Promise((done) => (style.onload = done));
              document.head.append(style);
              await sheet;
              const off = new Set();
              const key = (picture, box) => `${picture} ${box.label}`;
              const view = new BoxView({
                isOff: (picture, box) => off.has(key(picture, box)),
                onSwitch(picture, toBeOff, toBeOn) {
                  for (const box of toBeOff) off.add(key(picture, box));
                  for (const box of toBeOn) off.delete(key(picture, box));
                  view.refresh();
                },
                onTurn: (index) => view.show(view.entries, index),
                urlOf: (picture) => picture,
                onHint: () => off.add("added"),
              });
              view.element.style = "width: 400px; height: 300px";
              document.body.append(view.element);
              globalThis.test = { view, off };
            }""",
            AT,
        )

    def show(self, *entries: Any) -> None:
        self.page.evaluate("(entries) => test.view.show(entries)", entries)

    def box(self, label: str) -> Any:
        return self.page.get_by_role("button", name=label, exact=True)

    button = box

    def off(self) -> set[str]:
        return set(self.page.evaluate("[...test.off]"))

    def on_page(self) -> list[bool]:
        pressed = self.page.locator(".qvl-box").evaluate_all(
            "(boxes) => boxes.map((box) => box.getAttribute('aria-pressed'))"
        )
        return [value == "true" for value in pressed]

    def text(self, part: str) -> str:
        return self.page.locator(f".qvl-{part}").inner_text()


@pytest.fixture
def view(bare: Any) -> View:
    return View(bare)


@pytest.mark.parametrize(
    ("size", "view_size"),
    [
        pytest.param((100, 200), (400, 300), id="wide picture"),
        pytest.param((1600, 300), (400, 300), id="tall picture"),
        pytest.param((512, 768), (220, 240), id="small node"),
        pytest.param((512, 768), (900, 700), id="large node"),
    ],
)
def test_boxes_lie_on_the_picture_whatever_its_shape_and_the_nodes(
    view: View, size: tuple[int, int], view_size: tuple[int, int]
) -> None:
    height, width = size
    found = box(width // 4, height // 2, width // 2, height, "it")
    view.page.evaluate(
        "([w, h]) => Object.assign(test.view.element.style, { width: w + 'px', height: h + 'px' })",
        view_size,
    )
    view.show(entry(found, size=size, picture=PIXEL))
    stage = view.page.locator(".qvl-stage").bounding_box()
    picture = view.page.locator(".qvl-image").bounding_box()
    drawn = view.box("it").bounding_box()
    assert picture["width"] / picture["height"] == pytest.approx(width / height, rel=0.01)
    assert picture["width"] <= stage["width"] + 0.5 and picture["height"] <= stage["height"] + 0.5
    # As large as fits: one side touches.
    touch = max(picture["width"] / stage["width"], picture["height"] / stage["height"])
    assert touch == pytest.approx(1, abs=0.01)
    scale = picture["width"] / width
    assert drawn["x"] - picture["x"] == pytest.approx(found["x1"] * scale, abs=0.6)
    assert drawn["y"] - picture["y"] == pytest.approx(found["y1"] * scale, abs=0.6)
    assert drawn["width"] == pytest.approx((found["x2"] - found["x1"]) * scale, abs=0.6)
    assert drawn["height"] == pytest.approx((found["y2"] - found["y1"]) * scale, abs=0.6)


def test_a_click_switches_a_box_off_and_on(view: View) -> None:
    view.show(entry(CAT, DOG))
    assert view.text("count") == "2 of 2 on"
    view.box("cat").click()
    assert view.off() == {"0 cat"}
    assert view.on_page() == [False, True]
    assert view.text("count") == "1 of 2 on"
    view.box("cat").click()
    assert view.off() == set()


def test_of_two_boxes_the_smaller_takes_the_click(view: View) -> None:
    view.show(entry(CAT, DOG, AROUND))
    picture = view.page.locator(".qvl-picture").bounding_box()
    scale = picture["width"] / 200
    x, y = picture["x"] + 60 * scale, picture["y"] + 30 * scale  # amid the cat, in the room
    view.page.mouse.click(x, y)
    assert view.off() == {"0 cat"}


def test_the_keyboard_reaches_and_switches_every_box(view: View) -> None:
    view.show(entry(CAT, DOG))
    view.page.keyboard.press("Tab")
    view.page.keyboard.press("Space")
    view.page.keyboard.press("Tab")
    assert view.text("info") == "dog · 50×40 at 150, 60"
    view.page.keyboard.press("Space")
    assert view.off() == {"0 cat", "0 dog"}


def test_all_none_and_invert_are_of_the_picture_on_view(view: View) -> None:
    view.show(entry(CAT, DOG), entry(CAT, DOG))
    view.button("›").click()
    assert view.text("page") == "2 / 2"
    view.box("dog").click()
    view.button("invert").click()
    assert view.off() == {"1 cat"}
    view.button("none").click()
    assert view.off() == {"1 cat", "1 dog"}
    view.button("all").click()
    assert view.off() == set()
    view.button("›").click()
    assert view.text("page") == "1 / 2"
    view.button("‹").click()
    assert view.text("page") == "2 / 2"


def test_the_pointer_tells_what_a_box_is(view: View) -> None:
    view.show(entry(CAT, {**DOG, "left_out": True}))
    view.box("cat").hover()
    assert view.text("info") == "cat · 80×40 at 20, 10 · score 0.91"
    view.box("cat").click()
    assert view.text("info").endswith("· off")
    view.box("dog").hover()
    assert view.text("info").endswith("· left out by the settings")
    assert view.text("count") == "0 of 2 on"


def test_labels_are_never_taken_for_markup(view: View) -> None:
    label = '<img src=x onerror="globalThis.harm = 1"><b>bold</b>'
    view.show(entry({**CAT, "label": label}, points=[{**DOG, "x": 1, "y": 1, "label": label}]))
    assert view.page.locator(".qvl-label").all_inner_texts() == [label, label]
    view.page.locator(".qvl-box").hover()
    assert label in view.text("info")
    assert view.page.locator(".qvl-boxes :is(b, img)").count() == 0
    assert view.page.evaluate("globalThis.harm") is None


def test_points_are_dots_in_their_place(view: View) -> None:
    nose = {"x": 50.5, "y": 25, "label": "nose", "colour": "rgb(1, 2, 3)"}
    view.show(entry(points=[nose]))
    picture = view.page.locator(".qvl-picture").bounding_box()
    dot = view.page.locator(".qvl-point").bounding_box()
    scale = picture["width"] / 200
    assert dot["x"] + dot["width"] / 2 - picture["x"] == pytest.approx(50.5 * scale, abs=0.6)
    assert dot["y"] + dot["height"] / 2 - picture["y"] == pytest.approx(25 * scale, abs=0.6)
    view.page.locator(".qvl-point").hover()
    assert view.text("info") == "nose · 50, 25"


def test_nothing_found_and_unreadable_are_told_apart(view: View) -> None:
    view.show(entry(), entry(error="The reply is not JSON."))
    assert view.text("info") == "Nothing found"
    view.button("›").click()
    assert view.text("info") == "The reply could not be read"


def test_a_picture_of_which_no_copy_is_kept_says_so(view: View) -> None:
    view.show(entry(CAT, picture=PIXEL), entry(), entry(DOG))
    view.button("›").click()
    assert view.text("info") == "Nothing found · only the first 1 pictures are kept"
    view.button("›").click()
    assert view.text("info") == "only the first 1 pictures are kept"


def test_a_picture_that_is_gone_leaves_its_boxes(view: View) -> None:
    view.show(entry(CAT, picture="data:image/png;base64,broken"))
    view.page.locator(".qvl-image").wait_for(state="detached")
    assert view.box("cat").is_visible()


def test_many_labels_are_hidden_until_asked_for(view: View) -> None:
    boxes = [box(5 * i, 0, 5 * i + 4, 9, f"bird {i}") for i in range(30)]
    view.show(entry(*boxes))
    label = view.page.get_by_text("bird 7", exact=True)
    assert not label.is_visible()
    view.box("bird 7").hover()
    assert label.is_visible()


def test_nothing_to_show_takes_no_room(view: View) -> None:
    view.show()
    assert not view.page.locator(".qvl-boxes").is_visible()


# The choice as text, and where it goes.


def choice(page: Any, script: str, *values: Any) -> Any:
    return page.evaluate(
        f"async (values) => {{ const c = await import('{AT}box_selection.js'); {script} }}", values
    )


def test_the_text_of_a_choice_is_what_the_node_reads(bare: Any) -> None:
    from qwen_vl_suite.nodes import picking

    script = """
      const entries = [c.entryOf(1, values[0]), c.entryOf(0, values[1]), c.entryOf(0, values[0])];
      const write = (list) => c.formatSelection(new Map(list.map((e) => [c.keyOf(e), e])));
      return [write(entries), write(entries.reverse()), write([])];
    """
    text, same, empty = choice(bare, script, CAT, DOG)
    assert text == same
    assert empty == ""
    cat, dog = (20, 10, 80, 40, "cat"), (150, 60, 50, 40, "dog")
    assert picking.switched_off(text) == {0: {cat, dog}, 1: {cat}}
    again = choice(bare, "return c.formatSelection(c.parseSelection(values[0]));", text)
    assert again == text


@pytest.mark.parametrize("text", ["", "[", "7", "null", '[["a"]]'])
def test_text_that_is_no_choice_counts_as_none(bare: Any, text: str) -> None:
    count = """
      const boxes = [...c.parseSelection(values[0]).values()];
      return boxes.filter((entry) => "x" in entry).length;
    """
    assert choice(bare, count, text) == 0


GRAPH = f"""
  const links = await import('{AT}links.js');
"""
GRAPH += """
  // graph(links, nodes): links [from, slot, to, slot]; a node has as many slots as it needs.
  const graph = (nodes, links, more = {}) => {
    const made = { nodes: [], links: new Map(), ...more };
    for (const [id, node] of Object.entries(nodes)) {
      Object.assign(node, { id: Number(id), graph: made, inputs: node.inputs ?? [{ name: "a" }] });
      node.outputs ??= [{ name: "out", links: [] }];
      made.nodes.push(node);
    }
    links.forEach(([origin_id, origin_slot, target_id, target_slot], id) => {
      made.links.set(id, { origin_id, origin_slot, target_id, target_slot });
      made.nodes.find((n) => n.id === origin_id)?.outputs[origin_slot].links.push(id);
    });
    made.getNodeById = (id) => made.nodes.find((n) => n.id === id) ?? null;
    return made;
  };
  const finder = () => ({ outputs: [{ name: "found", links: [] }, { name: "bboxes", links: [] }] });
  const picker = () => ({ goal: true, inputs: [{ name: "images" }, { name: "bboxes" }] });
  const wanted = (node, input) => node.goal && input.name === "bboxes";
  const ids = (node, root) =>
    links.reachedNodes(node, "bboxes", wanted, root).map((n) => n.id).sort();
"""


def test_a_choice_goes_over_links_and_reroutes(bare: Any) -> None:
    script = """
      const root = graph(
        { 1: finder(), 2: picker(), 3: { type: "Reroute" }, 4: picker(), 5: picker(), 6: {} },
        [[1, 1, 2, 1], [1, 1, 3, 0], [3, 0, 4, 1], [1, 0, 5, 1], [1, 1, 5, 0], [1, 1, 6, 0]],
      );
      return ids(root.nodes[0], root);
    """
    assert choice(bare, GRAPH + script) == [2, 4]


def test_a_choice_crosses_the_borders_of_subgraphs(bare: Any) -> None:
    """Out of one, into another, and into one in that; a ring of reroutes does not hang."""
    script = """
      const deepest = graph({ 41: picker() }, [[-10, 0, 41, 1]]);
      deepest.inputs = [{ name: "b", linkIds: [0] }];
      const deep = graph(
        { 31: { subgraph: deepest, inputs: [{ name: "b" }] }, 32: { type: "Reroute" } },
        [[-10, 0, 31, 0], [-10, 0, 32, 0], [32, 0, 32, 0]],
      );
      deep.inputs = [{ name: "other", linkIds: [] }, { name: "b", linkIds: [0, 1] }];
      const source = graph({ 11: finder() }, [[11, 1, -20, 1]], { outputNode: { id: -20 } });
      const root = graph(
        {
          1: { subgraph: source, outputs: [{ links: [] }, { links: [] }] },
          2: { subgraph: deep, inputs: [{ name: "b" }] },
          3: picker(),
        },
        [[1, 1, 2, 0], [1, 0, 3, 1]],
      );
      root.subgraphs = new Map([["s", source], ["d", deep], ["e", deepest]]);
      return ids(source.nodes[0], root);
    """
    assert choice(bare, GRAPH + script) == [41]


def test_the_page_writes_what_json_readers_elsewhere_read(bare: Any) -> None:
    label = "“quoted” \\ 文字 \n"
    script = """
      const e = c.entryOf(0, values[0]);
      return c.formatSelection(new Map([[c.keyOf(e), e]]));
    """
    (found,) = json.loads(choice(bare, script, {**CAT, "label": label}))
    assert found == {"picture": 0, "x": 20, "y": 10, "width": 80, "height": 40, "label": label}
