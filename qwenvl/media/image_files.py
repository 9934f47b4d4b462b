"""Image files: decoding to pixels through Pillow. No other code of the pack opens one."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from ..errors import BadImage

log = logging.getLogger(__name__)

FORMATS = (
    "PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "QOI", "DDS",
    "PCX", "TGA",
)  # fmt: skip
"""Formats that are read, in the order in which they are tried; TGA is last, since it has no
signature. Pillow's others are left out: some run programs (EPS), some are hardly ever pictures
(GRIB, HDF5).
"""

MAX_PIXELS = 178_956_970
"""Most pixels of a picture: Pillow's own bound, which other code of the process may have lifted."""

MAX_BYTES = 1 << 30
"""Longest file; a device file would never end."""

_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 274, 258, 262, 339  # tags of EXIF and TIFF
_SIGNED, _FLOATS = 2, 3  # sample formats
_WHITE_IS_ZERO = 0
_HEIF_SIGN = slice(4, 12)
_HEIF = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc")
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


def decode(path: str | Path) -> Any:
    """Decodes the first picture of a file, with EXIF orientation applied, to a numpy array: uint8
    ``[H, W, 3]``, ``[H, W, 4]`` if it may be transparent, or float32 ``[H, W]``, 0-1, for grey of
    more than 8 bits.

    Damaged metadata beside intact pixels is ignored, and then the picture is not rotated. Raises
    ``BadImage``, which names the file, for everything else.
    """
    data = b""
    try:
        data = _content(Path(path))
        try:
            return _decoded(data, path)
        except BadImage:
            raise
        except Exception as error:
            return _recovered(data, path, error)
    # Pillow's decoders raise all kinds of exceptions, from SyntaxError to MemoryError.
    except Exception as error:
        raise BadImage(f"{path} cannot be read as a picture: {_reason(error, data)}") from error


def small_jpeg(path: Path, side: int) -> Any:
    """A JPEG file as a picture of Pillow of about ``side`` pixels, or more, turned as its EXIF
    says: it is decoded to an eighth, a quarter or half of its size at once. None for what is no
    sound JPEG, of which ``decode`` may save a part."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=["JPEG"]) as file:
            file.draft("RGB", (side, side))
            return ImageOps.exif_transpose(file)
    except Exception as error:  # of all kinds, as Pillow's decoders raise them
        log.debug("%s is no sound JPEG: %s", path, error)
        return None


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise BadImage(f"it is a folder. Name the pictures in it, such as {path / '*.png'}.")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BadImage(f"it is longer than {MAX_BYTES >> 20} MiB, the most that is read.")
    return data


def _reason(error: Exception, data: bytes) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        if data[_HEIF_SIGN] in _HEIF:
            return "it is HEIC, which is not read. Convert it to PNG or JPEG."
        return f"it is damaged, or of no kind that is read ({', '.join(FORMATS)})."
    if isinstance(error, Image.DecompressionBombError):
        return _too_large("more pixels than that")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    return str(error) or type(error).__name__


def _too_large(size: str) -> str:
    return f"at most {MAX_PIXELS // 10**6} million pixels are read, and it has {size}. Shrink it."


def _decoded(data: bytes, path: str | Path) -> Any:
    import numpy as np
    from PIL import Image

    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]  # not every Pillow has AVIF
    with Image.open(BytesIO(data), formats=known) as opened:
        file: Any = opened
        width, height = file.size
        if width * height > MAX_PIXELS:
            raise BadImage(_too_large(f"{width}x{height}"))
        if file.format == "TIFF":
            _check_samples(file.tag_v2)
            orientation = _orientation(file, path)
            # By default Pillow rotates a TIFF in load(), which fails if its EXIF is damaged.
            file.getexif = Image.Exif
            file.load()
        else:
            file.load()  # some formats have their EXIF after the pixels
            orientation = _orientation(file, path)
        pixels = _grey(file) if file.mode[0] in "IF" else np.array(_rgb_or_rgba(file))
    return _upright(pixels, orientation)


def _orientation(file: Any, path: str | Path) -> Any:
    try:
        return file.getexif().get(_ORIENTATION)
    except Exception as error:  # EXIF readers, too, raise all kinds of exceptions
        log.warning("%s is read as it lies, its EXIF is damaged: %s", path, error)
        return None


def _upright(pixels: Any, orientation: Any) -> Any:
    """``pixels`` with the EXIF orientation (1-8) applied."""
    import numpy as np

    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _rgb_or_rgba(file: Any) -> Any:
    """The picture converted to 8-bit RGB or RGBA."""
    if file.mode in ("La", "RGBa"):  # premultiplied alpha
        file = file.convert(file.mode.upper())
    has_alpha = "A" in file.getbands() or "transparency" in file.info
    if file.mode == "P" and file.palette:
        has_alpha = has_alpha or file.palette.mode == "RGBA"
    return file.convert("RGBA" if has_alpha else "RGB")


def _check_samples(tags: Any) -> None:
    """Refuses a TIFF of whole numbers of which nobody can say which is white."""
    form = tags.get(_SAMPLE_FORMAT, (1,))[0]
    bits = tags.get(_BITS, (1,))[0]
    if form == _SIGNED or (form != _FLOATS and bits > 16):
        sign = "with" if form == _SIGNED else "without"
        raise BadImage(
            f"its samples are whole numbers of {bits} bits {sign} a sign, measurements rather than "
            "grey. Save it with 8 or 16 bits without a sign."
        )


def _grey(file: Any) -> Any:
    """Grey of 16 bits (``I``) or of floats (``F``) as 0-1, which Pillow would only cut off."""
    import numpy as np

    values = np.array(file.copy(), dtype=np.float32)  # a copy has the size that the pixels have
    tags = getattr(file, "tag_v2", {})
    if file.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= -0.5 and high <= 1.5):  # so much a resize may overshoot
            raise BadImage(
                f"its samples are floats from {low:.3g} to {high:.3g}; only 0 to 1 can be read. "
                "Save it with 8 or 16 bits."
            )
    else:
        clear = values == file.info.get("transparency")
        values = values / (2 ** tags.get(_BITS, (16,))[0] - 1)
        values[clear] = 1
    return 1 - values if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else values


def _recovered(data: bytes, path: str | Path, error: Exception) -> Any:
    """The pixels of a file that failed with ``error``, if all of them are there; else raises it."""
    import numpy as np

    bare = _without_metadata(data)
    if bare.startswith(_JPEG):
        bare = bare.rstrip(b"\xff")  # half an end marker
        # The decoder invents missing pixels from the bytes before the end marker. If the result
        # depends on these bytes, pixels are missing; else only the marker was.
        found, other = (_decoded(bare + more + _JPEG_END, path) for more in (b"", b"\x5a" * 64))
        if not np.array_equal(found, other):
            raise error
    elif bare == data:
        raise error
    else:
        found = _decoded(bare, path)
    log.info("%s is read without its metadata and end: %s", path, error)
    return found


def _without_metadata(data: bytes) -> bytes:
    """The file reduced to what its pixels need, if its format is known; else unchanged."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data[:8] + b"".join(_png_chunks(data))
    if data.startswith(_JPEG):
        return data[:2] + b"".join(_jpeg_segments(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        chunks = b"WEBP" + b"".join(_webp_chunks(data))
        return data[:4] + struct.pack("<I", len(chunks)) + chunks
    if data[4:8] == b"ftyp":
        # Renames the item type of an AVIF's EXIF to one that no reader knows.
        return re.sub(rb"(infe[\x02\x03].{7,9})Exif", rb"\1none", data, flags=re.DOTALL)
    return data


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            yield data[at:end]
        at = end


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """All segments except comments and application segments; of these, only JFIF's and Adobe's,
    which define the colours."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker, length = struct.unpack_from(">xBH", data, at)
        end = at + 2 + length
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            yield data[at:end]
        at = end
    yield data[at:]


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + length % 2
        chunk = data[at:end]
        if kind == b"VP8X" and len(chunk) > 8:  # flags: keeps alpha and animation
            chunk = chunk[:8] + bytes((chunk[8] & 0b10010,)) + chunk[9:]
        if kind not in (b"EXIF", b"XMP ", b"ICCP"):
            yield chunk
        at = end
