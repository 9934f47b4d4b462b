"""Image files of every kind: the right pixels, or an error that names the file."""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features
from qwen_vl_suite.qwenvl.errors import BadImage
from qwen_vl_suite.qwenvl.media import image_files, images

# Pillow warns about damage that it ignores.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

ROOT = Path(__file__).resolve().parents[3]
HEIGHT, WIDTH = 30, 40
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
COLOURS = np.stack([ROWS * 8, COLUMNS * 6, (ROWS * COLUMNS) % 256], -1).astype(np.uint8)
GREY = (ROWS * 8).astype(np.uint8)
DEEP = (ROWS * 2105).astype(np.uint16)  # 0 to 61,045
RGB, L = Image.fromarray(COLOURS), Image.fromarray(GREY)
NO_AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def saved(picture: Image.Image, form: str, **how) -> bytes:
    file = BytesIO()
    picture.save(file, form, **how)
    return file.getvalue()


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "made by hand"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    return exif


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], np.ndarray]:
    """``read(content)``: the picture ``[H, W, 3]`` of a file with that content."""

    def call(content: bytes, name: str = "picture.bin") -> np.ndarray:
        (tmp_path / name).write_bytes(content)
        return images.read(tmp_path / name).movedim(0, -1).numpy()

    return call


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, -1)


def tiff(values: np.ndarray, **tags: int) -> bytes:
    """A TIFF of a kind that Pillow can read but not write."""
    names = {"bits": 258, "photometric": 262, "orientation": 274, "form": 339, "exif": 0x8769}
    bits = tags.get("bits", values.dtype.itemsize * 8)
    found = {256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: 1, 273: 8,
             277: 1, 278: values.shape[0], 279: values.nbytes}  # fmt: skip
    found |= {names[name]: value for name, value in tags.items()}
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
        for tag, value in sorted(found.items())
    )
    start = (8 + len(data)).to_bytes(4, "little")
    return b"II*\0" + start + data + len(found).to_bytes(2, "little") + entries + b"\0\0\0\0"


def twelve_bits(values: np.ndarray) -> bytes:
    """A TIFF with two 12-bit samples in 3 bytes."""
    pairs = values.reshape(-1, 2).astype(np.uint32)
    whole = pairs[:, 0] << 12 | pairs[:, 1]
    packed = np.stack([whole >> 16, whole >> 8 & 255, whole & 255], -1).astype(np.uint8)
    content = tiff(packed.reshape(values.shape[0], -1), bits=12)
    # The width counts pixels, not bytes.
    wide = packed.size // values.shape[0]
    old, new = (b"\x00\x01\x04\0\1\0\0\0" + w.to_bytes(4, "little") for w in (wide, WIDTH))
    return content.replace(old, new)


CLEAR = np.dstack([COLOURS, np.where(COLUMNS < 20, 0, 255).astype(np.uint8)])
ON_WHITE = np.where(COLUMNS[..., None] < 20, 255, COLOURS).astype(np.uint8)
GREY_ON_WHITE = np.where(COLUMNS < 20, 255, GREY).astype(np.uint8)
RGBA = Image.fromarray(CLEAR, "RGBA")
LA = Image.merge("LA", (L, RGBA.getchannel("A")))
PALETTE = L.quantize(16)
BLACK_AND_WHITE = Image.fromarray(np.where(COLUMNS < 20, 0, 255).astype(np.uint8)).convert("1")
DEEP_8 = np.round(DEEP / 257).astype(np.uint8)
SECOND = RGB.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

EXACT = {
    **{
        f"RGB in {form}": (saved(RGB, form, **how), COLOURS)
        for form, how in [
            ("PNG", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}), ("QOI", {}), ("DDS", {}),
            ("PCX", {}), ("TGA", {}), ("ICO", {"sizes": [(WIDTH, HEIGHT)]}),
            ("WEBP", {"lossless": True}), ("JPEG2000", {}),
        ]
    },
    **{
        f"TIFF, {way}": (saved(RGB, "TIFF", compression=way), COLOURS)
        for way in ("tiff_lzw", "tiff_adobe_deflate", "packbits")
    },
    **{
        f"alpha in {form}": (saved(RGBA, form, **how), ON_WHITE)
        for form, how in [
            ("PNG", {}), ("TIFF", {}), ("QOI", {}), ("TGA", {}), ("WEBP", {"lossless": True}),
        ]
    },
    "grey": (saved(L, "PNG"), three(GREY)),
    "grey with alpha": (saved(LA, "PNG"), three(GREY_ON_WHITE)),
    "a clear colour": (saved(RGB, "PNG", transparency=(0, 0, 0)), np.where(
        (COLOURS == 0).all(-1, keepdims=True), 255, COLOURS)),
    "a clear grey": (saved(L, "PNG", transparency=8), three(np.where(GREY == 8, 255, GREY))),
    "1 bit": (saved(BLACK_AND_WHITE, "PNG"), three(np.where(COLUMNS < 20, 0, 255))),
    "1 bit, fax": (saved(BLACK_AND_WHITE, "TIFF", compression="group4"),
                   three(np.where(COLUMNS < 20, 0, 255))),
    "a palette": (saved(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB"))),
    "a palette with a clear entry": (saved(PALETTE, "GIF", transparency=PALETTE.getpixel((0, 0))),
        np.where(np.asarray(PALETTE)[..., None] == PALETTE.getpixel((0, 0)), 255,
                 np.asarray(PALETTE.convert("RGB")))),
    "a palette with alpha": (saved(PALETTE, "PNG", transparency=bytes(16)),
                             np.full((HEIGHT, WIDTH, 3), 255)),
    "16 bits": (saved(Image.fromarray(DEEP), "PNG"), three(DEEP_8)),
    "16 bits, a clear grey": (saved(Image.fromarray(DEEP), "PNG", transparency=2105),
                              three(np.where(DEEP == 2105, 255, DEEP_8))),
    "16 bits, TIFF": (saved(Image.fromarray(DEEP), "TIFF"), three(DEEP_8)),
    "16 bits, big-endian TIFF": (saved(Image.fromarray(DEEP.astype(">u2")), "TIFF"), three(DEEP_8)),
    "16 bits, deflated TIFF": (saved(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"),
                               three(DEEP_8)),
    "16 bits, PGM": (b"P5 40 30 65535\n" + DEEP.astype(">u2").tobytes(), three(DEEP_8)),
    "16 bits, white is zero": (tiff(DEEP, photometric=0), three(np.round((65535 - DEEP) / 257))),
    "12 bits": (twelve_bits(DEEP >> 4), three(np.round((DEEP >> 4) / 4095 * 255))),
    "floats": (saved(Image.fromarray((DEEP / 65535).astype(np.float32)), "TIFF"), three(DEEP_8)),
    "floats, white is zero": (tiff((DEEP / 65535).astype(np.float32), photometric=0, form=3),
                              three(np.round((65535 - DEEP) / 257))),
    "the first page": (saved(RGB, "TIFF", save_all=True, append_images=[SECOND]), COLOURS),
    "the first frame": (
        saved(RGB, "PNG", save_all=True, append_images=[SECOND], duration=100), COLOURS),
}  # fmt: skip


@pytest.mark.parametrize("case", EXACT)
def test_pixels_are_read_as_they_were_saved(read, case):
    content, expected = EXACT[case]
    np.testing.assert_array_equal(read(content), expected)


CLOSE = {
    "JPEG": lambda: saved(RGB, "JPEG", quality=95),
    "JPEG of one frame more": lambda: saved(RGB, "MPO", save_all=True, append_images=[SECOND]),
    "CMYK": lambda: saved(RGB.convert("CMYK"), "JPEG", quality=95),
    "CMYK in TIFF": lambda: saved(RGB.convert("CMYK"), "TIFF"),
    "YCbCr": lambda: saved(RGB.convert("YCbCr"), "TIFF", compression="tiff_deflate"),
    "WEBP": lambda: saved(RGB, "WEBP", quality=95),
    "animated GIF": lambda: saved(RGB, "GIF", save_all=True, append_images=[SECOND]),
    "AVIF": lambda: saved(RGB, "AVIF", quality=95),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=NO_AVIF if case == "AVIF" else ()) for case in CLOSE]
)
def test_lossy_pixels_are_close(read, case):
    smooth = COLOURS.astype(int)[..., :2]  # the third channel is too busy for a lossy format
    assert np.abs(read(CLOSE[case]()).astype(int)[..., :2] - smooth).mean() < 16


def test_lab_is_converted_to_rgb(read):
    lab = Image.merge("LAB", (L, Image.new("L", L.size, 128), Image.new("L", L.size, 128)))
    found = read(saved(lab, "TIFF")).astype(int)
    assert np.ptp(found, axis=-1).max() < 12, "neutral"
    assert (np.diff(found[:, 0, 1]) >= 0).all(), "lighter and lighter"


REFUSED = {
    "int32": (saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), "32 bits with a sign"),
    "uint32": (tiff(DEEP.astype(np.uint32)), "32 bits without a sign"),
    "int16": (tiff((DEEP >> 1).astype(np.int16), form=2), "16 bits with a sign"),
    "int8": (tiff((GREY >> 1).astype(np.int8), form=2), "8 bits with a sign"),
    "floats to 255": (tiff(GREY.astype(np.float32), form=3), "floats from 0 to 232"),
    "NaN": (tiff(np.full((HEIGHT, WIDTH), np.nan, np.float32), form=3), "nan"),
    "EPS": (saved(RGB, "EPS"), "of no kind that is read"),
    "PDF": (saved(RGB, "PDF"), "of no kind that is read"),
    "ICNS": (saved(RGB.resize((32, 32)), "ICNS"), "of no kind that is read"),
    "text": (b"no picture", "of no kind that is read"),
    "nothing": (b"", "of no kind that is read"),
    "no pixels": (b"P6 0 0 255\n", "."),
    "a long strip": (saved(RGB.resize((1, 201)), "PNG"), "200 times"),
    "cut PNG": (saved(RGB, "PNG")[:-100], "."),
    "cut JPEG": (saved(RGB, "JPEG")[:-20], "truncated"),
    "cut progressive JPEG": (saved(RGB, "JPEG", progressive=True)[:-20], "truncated"),
    "cut WEBP": (saved(RGB, "WEBP")[:-40], "."),
    "cut GIF": (saved(RGB, "GIF")[:-40], "truncated"),
    "cut BMP": (saved(RGB, "BMP")[:-40], "truncated"),
    "cut TIFF": (saved(RGB, "TIFF")[:-40], "."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_files_are_refused_by_name(read, case):
    content, said = REFUSED[case]
    with pytest.raises(BadImage, match=rf"picture\.bin.*{said}"):
        read(content)


def test_programs_are_never_run(read, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("was run"))
    for name in ("picture.eps", "picture.png"):
        with pytest.raises(BadImage):
            read(saved(RGB, "EPS"), name)


def test_only_one_module_opens_image_files():
    sources = [ROOT / "demo.py", *(ROOT / "qwenvl").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]
    found = [path.name for path in sources if "Image.open(" in path.read_text(encoding="utf-8")]
    assert found == ["image_files.py"]


MISSING = {
    "no file": (lambda folder: folder / "absent.png", "absent.png.*No such file"),
    "a folder": (lambda folder: folder, "is a folder"),
    "a name that is no UTF-8": (lambda folder: folder / "caf\udce9.png", "caf\ufffd.png"),
    "a name with NUL": (lambda folder: folder / "a\0b.png", "cannot be read"),
}


@pytest.mark.parametrize("case", MISSING)
def test_paths_that_are_no_files_are_refused_with_the_reason(tmp_path, case):
    path, said = MISSING[case]
    with pytest.raises(BadImage, match=said):
        images.read(path(tmp_path))


def test_an_endless_file_is_refused(read, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_BYTES", 1 << 20)
    with pytest.raises(BadImage, match="longer than 1 MiB"):
        read(bytes(2 << 20))


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header declares this size, with almost no data."""
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, *zip(*chunks, strict=True)))


def chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + check


@pytest.mark.parametrize("bound", [None, Image.MAX_IMAGE_PIXELS], ids=["lifted", "Pillow's"])
@pytest.mark.parametrize("content", [png_of(20_000, 20_000), b"P6 20000 20000 255\n"],
                         ids=["PNG", "PPM"])  # fmt: skip
def test_decompression_bombs_are_refused(read, monkeypatch, bound, content):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", bound)
    with pytest.raises(BadImage, match=r"at most 178 million pixels"):
        read(content)


SIDES = {1: [1, 2, 3, 4], 2: [2, 1, 4, 3], 3: [4, 3, 2, 1], 4: [3, 4, 1, 2],
         5: [1, 3, 2, 4], 6: [3, 1, 4, 2], 7: [4, 2, 3, 1], 8: [2, 4, 1, 3]}  # fmt: skip
"""The corners of the upright picture, row by row, for each orientation."""
CORNERS = np.kron(np.array([[1, 2], [3, 4]]), np.ones((15, 20))).astype(np.uint8) * 50
QUARTERS = Image.fromarray(CORNERS)


@pytest.mark.parametrize(
    "form", ["JPEG", "PNG", "WEBP", "TIFF", pytest.param("AVIF", marks=NO_AVIF)]
)
@pytest.mark.parametrize("orientation", SIDES)
def test_exif_orientation_is_applied(read, form, orientation):
    found = read(saved(QUARTERS.convert("RGB"), form, exif=with_orientation(orientation)))
    corners = [found[y, x, 1] / 50 for y in (2, -3) for x in (2, -3)]
    assert [round(float(corner)) for corner in corners] == SIDES[orientation]
    assert found.shape == ((40, 30, 3) if orientation > 4 else (30, 40, 3))


def in_exif(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def damaged(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return damaged


def _after_head(png: bytes, extra: bytes) -> bytes:
    return png[:33] + extra + png[33:]


def _broken_check(png: bytes) -> bytes:
    text = chunk(b"tEXt", b"key\0value")
    return _after_head(png, text[:-1] + bytes((text[-1] ^ 1,)))


EXIF_DAMAGE = {
    "no TIFF": in_exif(b"MM\0*", b"garb"),
    "its directory lies outside": in_exif(b"MM\0*\0\0\0\x08", b"MM\0*\xff\xff\xff\xf0"),
    "its directory is endless": in_exif(b"MM\0*\0\0\0\x08\0\x03", b"MM\0*\0\0\0\x08\xff\xff"),
    "the orientation is text": in_exif(b"\x01\x12\0\x03", b"\x01\x12\0\x02"),
    "the orientation is a fraction": in_exif(b"\x01\x12\0\x03", b"\x01\x12\0\x05"),
    "a directory within lies outside": in_exif(
        b"\x87\x69\0\x04\0\0\0\x01\0", b"\x87\x69\0\x04\0\0\0\x01\xff"
    ),
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("damage", EXIF_DAMAGE.values(), ids=EXIF_DAMAGE)
def test_damaged_exif_does_not_lose_the_pixels(read, form, damage):
    whole = saved(RGB, form, exif=with_orientation(1))
    content = damage(whole)
    if form == "PNG":  # its chunks have checksums
        start = content.index(b"eXIf")
        end = start + 4 + int.from_bytes(content[start - 4 : start], "big")
        exif = chunk(b"eXIf", content[start + 4 : end])
        content = content[: start - 4] + exif + content[end + 4 :]
    np.testing.assert_array_equal(read(content), read(whole))


@NO_AVIF
def test_damaged_exif_of_an_avif_does_not_lose_the_pixels(read):
    whole = saved(RGB, "AVIF", exif=with_orientation(6))
    found = read(EXIF_DAMAGE["no TIFF"](whole))
    np.testing.assert_array_equal(found, read(whole), "its turn does not stand in its EXIF")


METADATA_DAMAGE = {
    "a text's checksum": _broken_check(saved(RGB, "PNG")),
    "a text that unpacks to 2 MB": _after_head(
        saved(RGB, "PNG"), chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2 << 20)))
    ),
    "a profile packed in no known way": _after_head(saved(RGB, "PNG"), chunk(b"iCCP", b"p\0\7x")),
    "a resolution without numbers": _after_head(saved(RGB, "PNG"), chunk(b"pHYs", b"")),
    "EXIF as text that is no text": _after_head(
        saved(RGB, "PNG"), chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nzz")
    ),
    "PNG without an end": saved(RGB, "PNG")[:-12],
    "GIF without an end": saved(PALETTE, "GIF")[:-1],
    "JPEG without an end": saved(RGB, "JPEG")[:-2],
    "JPEG with half an end": saved(RGB, "JPEG")[:-1],
    "WEBP cut within its EXIF": saved(RGB, "WEBP", exif=with_orientation(1))[:-20],
    "JPEG, an EXIF longer than the file says": saved(RGB, "JPEG", exif=with_orientation(1)).replace(
        b"Exif\0\0MM", b"Exif\0\0ZZ"
    ),
    "JPEG, frames listed wrongly": saved(RGB, "MPO", save_all=True, append_images=[SECOND]).replace(
        b"MPF\0II*\0", b"MPF\0II*\1"
    ),
}


@pytest.mark.parametrize("case", METADATA_DAMAGE)
def test_damage_outside_the_pixel_data_does_not_lose_the_pixels(read, case):
    found = read(METADATA_DAMAGE[case])
    expected = np.asarray(PALETTE.convert("RGB")) if "GIF" in case else COLOURS
    assert np.abs(found.astype(int)[..., :2] - expected[..., :2]).mean() < 12


@pytest.mark.parametrize("exif", [4, 0x7FFFFFFF], ids=["no directory", "outside"])
def test_a_tiffs_orientation_is_applied_though_its_exif_is_damaged(read, exif):
    found = read(tiff(GREY, orientation=6, exif=exif))
    np.testing.assert_array_equal(found, three(np.rot90(GREY, -1)))


def test_an_unreadable_orientation_is_logged(read, caplog):
    with caplog.at_level(logging.WARNING):
        read(saved(RGB, "WEBP", exif=b"Exif\0\0garbage!"))
    assert "picture.bin" in caplog.text and "EXIF" in caplog.text


def raising(error: BaseException) -> Callable[..., None]:
    def load(self) -> None:
        raise error

    return load


ANY_ERROR = [
    SyntaxError("a"), RuntimeError("a"), NotImplementedError(), MemoryError(), EOFError(),
    zlib.error("a"), AttributeError("a"), IndexError(), KeyError("a"), OverflowError(),
    TypeError(), AssertionError(), ZeroDivisionError(), UnicodeDecodeError("a", b"", 0, 1, "a"),
    RecursionError(), OSError("a"), Image.DecompressionBombError("a"),
]  # fmt: skip


@pytest.mark.parametrize("error", ANY_ERROR, ids=lambda error: type(error).__name__)
def test_any_exception_of_a_decoder_becomes_an_error_that_names_the_file(read, monkeypatch, error):
    monkeypatch.setattr(ImageFile.ImageFile, "load", raising(error))
    with pytest.raises(BadImage, match=r"picture\.bin cannot be read as a picture: \S"):
        read(saved(RGB, "PNG"))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_not_taken_for_damage(read, monkeypatch, stop):
    monkeypatch.setattr(ImageFile.ImageFile, "load", raising(stop()))
    with pytest.raises(stop):
        read(saved(RGB, "PNG"))


def samples() -> Iterator[bytes]:
    """Small files of every format that this Pillow writes, in every mode that the format takes."""
    Image.init()
    for form in sorted(Image.SAVE):
        for mode in ("RGB", "RGBA", "LA", "L", "P", "1", "CMYK", "I", "I;16", "F", "LAB"):
            how = (
                {"exif": with_orientation(6)}
                if form in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")
                else {}
            )
            try:
                picture = Image.fromarray(DEEP) if mode == "I;16" else RGB.convert(mode)
                yield saved(picture, form, **how)
            except (OSError, ValueError, KeyError, RuntimeError):  # not in this format
                continue
    for way in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield saved(RGB, "TIFF", compression=way)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # some formats will go with a later Pillow
    SAMPLES = list(samples())
ODD = st.sampled_from(
    [b"\0", b"\xff", b"\x7f", b"\x80", b"\xff" * 4, b"\0" * 4, b"\x7f" + b"\xff" * 3]
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(0, 6))):
        # Heads are where it matters most.
        at = draw(st.integers(0, min(300, len(content))) | st.integers(0, len(content)))
        bytes_ = draw(ODD | st.binary(min_size=1, max_size=4))
        gone = draw(st.sampled_from([0, len(bytes_), len(bytes_), 3]))
        content = content[:at] + bytes_ + content[at + gone :]
    return content[: draw(st.none() | st.integers(0, len(content)))]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=damaged())
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_a_picture_or_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "picture.bin"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_files, "MAX_PIXELS", 1_000_000)
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)
        try:
            picture = images.read(path)
        except BadImage as error:
            assert "picture.bin" in str(error)
        else:
            assert picture.dtype == torch.uint8 and picture.ndim == 3 and len(picture) == 3
