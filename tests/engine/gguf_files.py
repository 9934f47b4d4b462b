"""GGUF files as tests need them: headers of models and projectors, without weights."""

from __future__ import annotations

import struct


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def write(path, size=0, tail=b"", **keys):
    """A GGUF file with these keys, ``_`` for a dot, and ``size`` bytes more."""
    body = b""
    for name, value in keys.items():
        body += text(name.replace("__", "."))
        if isinstance(value, str):
            body += struct.pack("<I", 8) + text(value)
        elif isinstance(value, list):
            body += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        else:
            body += struct.pack("<II", 4, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(keys)) + body + tail + bytes(size))


def model(path, architecture="qwen3vl", width=2560, **keys):
    dimensions = {
        f"{architecture}__block_count": 36,
        f"{architecture}__embedding_length": width,
        f"{architecture}__attention__head_count": 32,
        f"{architecture}__attention__head_count_kv": 8,
        f"{architecture}__attention__key_length": 128,
    }
    write(path, 1000, general__architecture=architecture, general__tags=["a", "b"],
          **dimensions, tokenizer__ggml__model="gpt2", **keys)  # fmt: skip


def projector(path, kind="qwen3vl_merger", width=2560):
    keys = {"clip__vision__projection_dim": width, "clip__projector_type": kind}
    write(path, 100, general__architecture="clip", **keys)
