"""Panels that a node declares in its schema: a new node needs no change of the page's code."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.web
KINDS = ("answer", "box", "model", "example_picture", "upload", "words")


@pytest.fixture
def declared(bare: Any, object_info: Any) -> Any:
    """``declared(panels)``: classes of the panels, from top to bottom and with their least height,
    of a node of a new type that declares them."""
    from comfy_api.latest import io
    from qwen_vl_suite.nodes import sockets

    def show(panels: Any) -> Any:
        class New(io.ComfyNode):
            @classmethod
            def define_schema(cls) -> io.Schema:
                off = io.String.Input("off", optional=True)
                inputs = [sockets.Model.Input("model"), off]
                return sockets.schema(node_id="Somebodys_New", inputs=inputs, panels=panels)

            @classmethod
            def execute(cls, **_: Any) -> io.NodeOutput:
                return io.NodeOutput()

        return bare.evaluate(
            """async ([kinds, nodeDef]) => {
              const { app } = await import("/scripts/app.js");
              const at = "/extensions/qwen-vl-suite/";
              for (const kind of kinds) await import(`${at}${kind}_panel.js`);
              app.nodeDefs[nodeDef.name] = nodeDef;
              const node = app.rootGraph.add(1, nodeDef.name);
              const { element, options } = node.widgets.at(-1);
              const off = node.widgets.find(({ name }) => name === "off");
              return {
                panels: [...(element?.children ?? [])].map(({ className }) => className),
                height: options.getMinHeight?.(),
                isOffHidden: Boolean(off.hidden),
              };
            }""",
            [KINDS, vars(New.GET_SCHEMA().get_v1_info(New))],
        )

    return show


def test_a_new_node_has_the_panels_that_it_declares(declared: Any) -> None:
    from qwen_vl_suite.nodes import panels

    shown = declared(panels.answer(height=90) | panels.boxes())
    assert shown["panels"] == ["qvl-text-panel", "qvl-boxes"]
    assert shown["height"] > 90 + 200
    assert not shown["isOffHidden"]


def test_a_new_node_that_selects_boxes_keeps_them_in_its_widget(declared: Any) -> None:
    from qwen_vl_suite.nodes import panels

    shown = declared(panels.box_selection("off"))
    assert shown["panels"] == ["qvl-boxes"]
    assert shown["isOffHidden"]


def test_a_new_node_without_panels_has_one_for_its_errors(declared: Any) -> None:
    from qwen_vl_suite.nodes import panels

    shown = declared(panels.ERRORS)
    assert (shown["panels"], shown["height"]) == (["qvl-text-panel"], 0)


def test_a_node_of_another_pack_has_none(bare: Any) -> None:
    widgets = bare.evaluate(
        """async (kinds) => {
          const { app } = await import("/scripts/app.js");
          for (const kind of kinds) await import(`/extensions/qwen-vl-suite/${kind}_panel.js`);
          return app.rootGraph.add(1, "LoadImage").widgets.length;
        }""",
        KINDS,
    )
    assert widgets == 0
