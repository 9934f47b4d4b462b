"""A server that resizes pictures as servers of several kinds do, finds a red rectangle in what is
left, and writes where it is in pixels of that, or in shares of 1000."""

from __future__ import annotations

import base64
import io
from typing import Any

from fake_server import Answer
from PIL import Image, ImageChops
from qwen_vl_suite.qwenvl.servers.kinds import PictureLimits
from qwen_vl_suite.qwenvl.types import Family

RED = (230, 20, 20)


class Seeing:
    """A script for ``FakeServer``. ``limits``: within which it resizes pictures. ``marks``: tokens
    beside a picture's own. ``refuses``: fields that it answers with an error."""

    def __init__(
        self,
        family: Family,
        limits: PictureLimits,
        marks: int = 2,
        counts: bool = True,
        refuses: tuple[str, ...] = (),
    ):
        self.family, self.limits, self.marks = family, limits, marks
        self.counts, self.refuses = counts, refuses
        self.seen: list[tuple[int, int]] = []

    def __call__(self, body: dict[str, Any], number: int) -> Answer:
        if any(name in body for name in self.refuses):
            return Answer(status=400, body=b'{"error": {"message": "this form is not known"}}')
        tokens, places = 40, []
        for part in (part for message in body["messages"] for part in self._parts(message)):
            if part["type"] == "text":
                tokens += len(part["text"]) // 3
                continue
            image = self._shown(part)
            factor = self.family.patch_factor
            tokens += self.marks + image.width // factor * (image.height // factor)
            places.append(self._place(image))
        usage = {"prompt_tokens": tokens, "completion_tokens": 1} if self.counts else None
        found = [f'{{"bbox_2d": {place}, "label": "red"}}' for place in places if place]
        text = f"```json\n[{', '.join(found)}]\n```"
        return Answer("Hello" if body["max_tokens"] == 1 else text, usage=usage)

    def _parts(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        content = message["content"]
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    def _shown(self, part: dict[str, Any]) -> Image.Image:
        data = part["image_url"]["url"].partition(";base64,")[2]
        sent = Image.open(io.BytesIO(base64.b64decode(data)))
        height, width = self.limits.resized((sent.height, sent.width), self.family)
        self.seen.append((height, width))
        return sent.resize((width, height), Image.Resampling.BILINEAR)

    def _place(self, image: Image.Image) -> list[int] | None:
        """Where more than half of the red is."""
        red, green, _ = image.convert("RGB").split()
        box = ImageChops.subtract(red, green).point(lambda value: 255 * (value > 105)).getbbox()
        if box is None or self.family.coordinates == "absolute":
            return list(box) if box else None
        sides = (image.width, image.height) * 2
        return [round(value * 1000 / side) for value, side in zip(box, sides, strict=True)]
