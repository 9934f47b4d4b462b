"""What a model behind a server is shown, as the request says it, and graphs that show it."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fake_server import FakeServer, serving
from PIL import Image

KEY = "sk-very-secret-1234567890"
COLOURS = {"red": 0xE02020, "green": 0x20C040, "blue": 0x2040E0}


def give_key(base: Path, server: FakeServer) -> Path:
    """Puts ``KEY`` where a user puts the key of ``server``."""
    keys = base / "user" / "__qwen_vl" / "keys.yaml"
    keys.parent.mkdir(exist_ok=True)
    keys.write_text(f"127.0.0.1:{server.port}: {KEY}\n")
    return keys


def files_with(base: Path, words: bytes) -> list[Path]:
    """Files below ``base`` that hold ``words``."""
    files = (path for path in base.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if words in path.read_bytes()]


@contextmanager
def behind(
    server: Any, script: Any, model: str = "Qwen3-VL-8B", owner: str = "vllm"
) -> Iterator[FakeServer]:
    """A server for models that ComfyUI has the key of. Fails where that is found anywhere else."""
    with serving(script, models=(model,), owner=owner) as running:
        keys = give_key(server.base, running)
        yield running
    assert {one.headers.get("Authorization") for one in running.chats} == {f"Bearer {KEY}"}
    assert KEY not in json.dumps(server.get("/history"))
    assert files_with(server.base, KEY.encode()) == [keys]


def parts(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Of all messages of a request."""
    contents = [message["content"] for message in body["messages"]]
    texts = [[{"type": "text", "text": one}] if isinstance(one, str) else one for one in contents]
    return [part for content in texts for part in content]


def text(body: dict[str, Any]) -> str:
    return "\n".join(part["text"] for part in parts(body) if part["type"] == "text")


def colours(body: dict[str, Any]) -> list[str]:
    """Of every picture and frame of a request, in order."""
    return [colour for part in parts(body) for colour in _colours(part)]


def _colours(part: dict[str, Any]) -> list[str]:
    kind = part["type"]
    if kind not in ("image_url", "video_url"):
        return []
    data = part[kind]["url"].partition(";base64,")[2]
    return [_colour(base64.b64decode(one)) for one in data.split(",")]


def _colour(file: bytes) -> str:
    picture = Image.open(io.BytesIO(file)).convert("RGB")
    shown = picture.getpixel((picture.width // 2, picture.height // 2))

    def away(value: int) -> int:
        wanted = value >> 16, value >> 8 & 255, value & 255
        return sum(abs(a - b) for a, b in zip(shown, wanted, strict=True))

    name = min(COLOURS, key=lambda name: away(COLOURS[name]))
    assert away(COLOURS[name]) < 30, shown
    return name


def seconds(body: dict[str, Any]) -> float:
    """Of the sound of a request."""
    (part,) = (part for part in parts(body) if part["type"] == "input_audio")
    assert part["input_audio"]["format"] == "wav"
    with wave.open(io.BytesIO(base64.b64decode(part["input_audio"]["data"]))) as sound:
        return sound.getnframes() / sound.getframerate()


def server_node(server: FakeServer, **widgets: Any) -> dict[str, Any]:
    values = {"servers": server.url, "model": "", "family": "auto", **widgets}
    return {"class_type": "QVL_Server", "inputs": values}


def picture(colour: str, width: int = 96, height: int = 64, count: int = 1) -> dict[str, Any]:
    values = {"width": width, "height": height, "batch_size": count, "color": COLOURS[colour]}
    return {"class_type": "EmptyImage", "inputs": values}


def in_list(names: Sequence[str]) -> dict[str, Any]:
    inputs = {f"inputs.input{number}": [name, 0] for number, name in enumerate(names)}
    return {"class_type": "CreateList", "inputs": inputs}


def error(message: str) -> bytes:
    """The body of a server's answer that is none."""
    return json.dumps({"error": {"message": message}}).encode()
