"""Collections under review, their rows and edits."""

from __future__ import annotations

from qwen_vl_suite.qwenvl.folders import trainer
from qwen_vl_suite.qwenvl.reviewing import Collection


def opened(folder, name="kohya"):
    collection = Collection(folder, trainer(name))
    collection.load()
    return collection


def row(collection, index):
    return collection.rows([index])[0]


def change(collection, index, text):
    collection.edit(index, text, row(collection, index)["version"])
