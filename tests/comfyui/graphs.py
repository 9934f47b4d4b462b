"""Nodes of workflows in ComfyUI's API form."""

from __future__ import annotations

from typing import Any


def load(name: str) -> dict[str, Any]:
    return {"class_type": "LoadImage", "inputs": {"image": name}}


def batch(first: str, second: str) -> dict[str, Any]:
    links = {"image1": [first, 0], "image2": [second, 0]}
    return {"class_type": "ImageBatch", "inputs": links}


def repeat(name: str, amount: int) -> dict[str, Any]:
    inputs = {"image": [name, 0], "amount": amount}
    return {"class_type": "RepeatImageBatch", "inputs": inputs}


def loader(**widgets: Any) -> dict[str, Any]:
    values = {"model": "nano (bundled demo)", "quantization": "none", **widgets}
    # As the engine runs in these tests, so that both give the same answers.
    values = {"device": "cpu", "precision": "fp32", **values}
    return {"class_type": "QVL_Loader", "inputs": values}


def preview(node: str, slot: int) -> dict[str, Any]:
    return {"class_type": "PreviewAny", "inputs": {"source": [node, slot]}}


def save(node: str, slot: int) -> dict[str, Any]:
    return {
        "class_type": "SaveImage",
        "inputs": {"images": [node, slot], "filename_prefix": f"test-{node}"},
    }


def describe(**widgets: Any) -> dict[str, Any]:
    values = {"style": "detailed", "prompt": "", "max_new_tokens": 200, "seed": 0, **widgets}
    links = {"model": ["model", 0], "images": ["picture", 0]}
    return {"class_type": "QVL_Describe", "inputs": {**links, "sampling": "greedy", **values}}


def read(**widgets: Any) -> dict[str, Any]:
    links = {"model": ["model", 0], "images": ["picture", 0]}
    values = {"output": "lines", "language": "auto", **widgets}
    return {"class_type": "QVL_OCR", "inputs": {**links, **values}}


def find(what: str, **widgets: Any) -> dict[str, Any]:
    links = {"model": ["model", 0], "images": ["picture", 0]}
    values = {"find": what, "kind": "boxes", "max_count": 0, **widgets}
    return {"class_type": "QVL_Grounding", "inputs": {**links, **values}}
