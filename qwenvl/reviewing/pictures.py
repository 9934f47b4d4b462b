"""Thumbnails and full pictures of files under review, as browsers show them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any

from ..errors import BadVideo
from ..folders.listing import Item
from ..media import image_files

SIDE = 320
"""Longest side of a thumbnail, in pixels: twice what it is shown in, for sharp screens."""

MAX_BYTES = 64 << 20
"""Of thumbnails that are kept."""

MOST_AT_ONCE = 2
"""Pictures that are decoded at once: large ones take hundreds of megabytes each."""

KINDS = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp",
    ".gif": "image/gif", ".bmp": "image/bmp", ".avif": "image/avif", ".mp4": "video/mp4",
    ".m4v": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".mkv":
    "video/x-matroska", ".avi": "video/x-msvideo", ".mpg": "video/mpeg", ".mpeg": "video/mpeg",
    ".flv": "video/x-flv", ".wmv": "video/x-ms-wmv",
}  # fmt: skip
"""Files that are sent as they are. Of clips a browser shows some; of others their thumbnail."""


_JPEG = (".jpg", ".jpeg")


def stamp_of(path: Path) -> str:
    """Changes whenever the file may have changed; empty where there is none."""
    try:
        state = path.stat()
    except OSError:
        return ""
    return f"{state.st_mtime_ns:x}-{state.st_size:x}"


class Thumbnails:
    """LRU cache of thumbnails (JPEG), made when they are asked for. Thread-safe."""

    def __init__(self, max_bytes: int = MAX_BYTES):
        self._max_bytes, self.nbytes = max_bytes, 0
        self._kept: OrderedDict[Any, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(MOST_AT_ONCE)

    def get(self, item: Item) -> bytes:
        """Raises ``BadImage``."""
        key = item.relative, stamp_of(item.path)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._turns:
            made = _first_frame(item) if item.is_clip else _small(item.path)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self.nbytes += len(made)
            while self.nbytes > self._max_bytes:
                self.nbytes -= len(self._kept.popitem(last=False)[1])
        return made

    def whole(self, item: Item) -> bytes:
        """The picture in its own size, as PNG, for formats that browsers do not show."""
        with self._turns:
            file = BytesIO()
            _picture(image_files.decode(item.path)).save(file, "PNG", compress_level=1)
            return file.getvalue()


def _small(path: Path) -> bytes:
    """JPEG decodes to a small size at once; others as they are read everywhere."""
    picture = image_files.small_jpeg(path, SIDE) if path.suffix.lower() in _JPEG else None
    return _jpeg(picture or _picture(image_files.decode(path)))


def _picture(pixels: Any) -> Any:
    """A Pillow picture of what ``decode`` gives."""
    import numpy as np
    from PIL import Image

    if pixels.ndim == 2:
        pixels = np.rint(pixels * 255).astype(np.uint8)
    return Image.fromarray(pixels)


def _jpeg(picture: Any) -> bytes:
    from PIL import Image

    picture.thumbnail((SIDE, SIDE))
    if picture.mode == "RGBA":
        ground = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(ground, picture)
    file = BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=82)
    return file.getvalue()


def _first_frame(item: Item) -> bytes:
    from ..media.video_files import Clip, opened

    with opened(Clip(str(item.path), name=item.relative)) as video:
        video.container.seek(video.origin, stream=video.stream, backward=True)
        frame = next(video.decoded(video.stream), None)
        if frame is None:
            raise BadVideo(f"{item.relative} holds no frame that can be decoded.")
        return _jpeg(frame.to_image().rotate(video.rotation, expand=True))
