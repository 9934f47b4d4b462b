"""The running graph: how ComfyUI calls a node, and what it does with the node's outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .optional_import import optional_import

Link = tuple[str, int]
"""An output in the running graph: the id of its node, and its number there."""


def execution_blocker(message: str) -> Any:
    """Stands for a missing output value: ComfyUI stops the nodes that take it with ``message``
    and lets all others run. None outside a graph."""
    blocker = optional_import("comfy_execution.graph", "ExecutionBlocker")
    return blocker(message) if blocker else None


def pairs_with_whole_batch(source_type: str, output: int) -> bool:
    """Whether the running node takes output number ``output``, a list, of a node of type
    ``source_type`` together with that node's images while these are still one batch: ComfyUI then
    calls it with the whole batch for each item of the list.

    True only where the graph shows it: the images arrive through links alone, or through nodes
    that do not make a list of them.
    """
    context_of = optional_import("comfy_execution.utils", "get_executing_context")
    state_of = optional_import("comfy_execution.progress", "get_progress_state")
    classes = optional_import("nodes", "NODE_CLASS_MAPPINGS")
    context = context_of() if context_of else None
    if context is None or state_of is None or classes is None:
        return False
    graph = _Graph(state_of().dynprompt, classes)
    if getattr(graph.class_of(context.node_id), "INPUT_IS_LIST", False):
        return False  # it gets the whole list and pairs the items itself
    links = graph.links(context.node_id)
    for node_id, number in links:
        if number == output and graph.type_of(node_id) == source_type:
            batch = graph.batch_of(node_id)
            return any(graph.is_same_batch(link, batch) for link in graph.image_links(links))
    return False


class _Graph:
    def __init__(self, prompt: Any, classes: Any):
        self._prompt, self._classes = prompt, classes

    def type_of(self, node_id: str) -> str:
        return str(self._prompt.get_node(node_id)["class_type"])

    def class_of(self, node_id: str) -> Any:
        return self._classes[self.type_of(node_id)]

    def links(self, node_id: str) -> list[Link]:
        """The outputs of other nodes that a node takes."""
        is_link = optional_import("comfy_execution.graph_utils", "is_link")
        inputs = self._prompt.get_node(node_id)["inputs"].values()
        return [(value[0], int(value[1])) for value in inputs if is_link(value)]

    def batch_of(self, node_id: str) -> set[Link]:
        """The IMAGE inputs of a node; for one that has none, those of the nodes before it."""
        links = self.links(node_id)
        own = set(self.image_links(links))
        return own or {link for source, _ in links for link in self.image_links(self.links(source))}

    def image_links(self, links: list[Link]) -> Iterator[Link]:
        """Those of ``links`` that are an IMAGE."""
        for node_id, number in links:
            if self.class_of(node_id).RETURN_TYPES[number] == "IMAGE":
                yield node_id, number

    def is_same_batch(self, link: Link, batch: set[Link]) -> bool:
        """Whether ``link`` is one of ``batch`` or made from it, as a batch still."""
        pending, visited = [link], set[Link]()
        while pending:
            link = pending.pop()
            if link in batch:
                return True
            if link not in visited and not self._is_list(link):
                visited.add(link)
                pending += self.image_links(self.links(link[0]))
        return False

    def _is_list(self, link: Link) -> bool:
        if self.type_of(link[0]).startswith("QVL_"):
            return False  # these return each IMAGE as it came
        lists = getattr(self.class_of(link[0]), "OUTPUT_IS_LIST", None) or ()
        return bool(lists[link[1]]) if link[1] < len(lists) else False
