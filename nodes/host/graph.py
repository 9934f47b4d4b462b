"""How ComfyUI's graph calls a node, and what it does with outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .parts import part

Link = tuple[str, int]
"""An output of the graph that runs now: the id of its node, and its number there."""


def blocked(message: str) -> Any:
    """Stands for a value that is not there: ComfyUI stops the nodes that take it with ``message``
    and lets all others go on. None where no graph is run."""
    blocker = part("comfy_execution.graph", "ExecutionBlocker")
    return blocker(message) if blocker else None


def pairs_with_whole_batch(giver: str, output: int) -> bool:
    """Whether the node that runs now takes output number ``output``, a list, of a ``giver`` node
    together with the pictures of that node while they are still one batch: ComfyUI then calls it
    with the whole batch for each item of the list.

    True only where the graph shows it: the pictures arrive through links alone, or through nodes
    that make no list of them.
    """
    context_of = part("comfy_execution.utils", "get_executing_context")
    state_of = part("comfy_execution.progress", "get_progress_state")
    classes = part("nodes", "NODE_CLASS_MAPPINGS")
    context = context_of() if context_of else None
    if context is None or state_of is None or classes is None:
        return False
    graph = _Graph(state_of().dynprompt, classes)
    if getattr(graph.class_of(context.node_id), "INPUT_IS_LIST", False):
        return False  # it sees the whole list and pairs by itself
    taken = graph.links(context.node_id)
    for place, number in taken:
        if number == output and graph.kind(place) == giver:
            batch = graph.pictures(place)
            return any(graph.same_batch(link, batch) for link in graph.images(taken))
    return False


class _Graph:
    def __init__(self, prompt: Any, classes: Any):
        self._prompt, self._classes = prompt, classes

    def kind(self, place: str) -> str:
        return str(self._prompt.get_node(place)["class_type"])

    def class_of(self, place: str) -> Any:
        return self._classes[self.kind(place)]

    def links(self, place: str) -> list[Link]:
        """What a node takes from others."""
        is_link = part("comfy_execution.graph_utils", "is_link")
        inputs = self._prompt.get_node(place)["inputs"].values()
        return [(value[0], int(value[1])) for value in inputs if is_link(value)]

    def pictures(self, place: str) -> set[Link]:
        """The IMAGE inputs of a node; of one that has none, those of the nodes before it."""
        links = self.links(place)
        own = set(self.images(links))
        return own or {link for giver, _ in links for link in self.images(self.links(giver))}

    def images(self, links: list[Link]) -> Iterator[Link]:
        """Those of ``links`` that are an IMAGE."""
        for place, number in links:
            if self.class_of(place).RETURN_TYPES[number] == "IMAGE":
                yield place, number

    def same_batch(self, link: Link, batch: set[Link]) -> bool:
        """Whether ``link`` is one of ``batch`` or made of it, as a batch still."""
        waiting, seen = [link], set[Link]()
        while waiting:
            link = waiting.pop()
            if link in batch:
                return True
            if link not in seen and not self._is_list(link):
                seen.add(link)
                waiting += self.images(self.links(link[0]))
        return False

    def _is_list(self, link: Link) -> bool:
        if self.kind(link[0]).startswith("QVL_"):
            return False  # these give each IMAGE as it came
        lists = getattr(self.class_of(link[0]), "OUTPUT_IS_LIST", None) or ()
        return bool(lists[link[1]]) if link[1] < len(lists) else False
