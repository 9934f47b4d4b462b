from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont, features
from qwen_vl_suite.qwenvl.media import draw, text_rendering
from qwen_vl_suite.qwenvl.types import Box, Point


def grey(height: int, width: int) -> torch.Tensor:
    return torch.full((3, height, width), 128, dtype=torch.uint8)


def changed(picture: torch.Tensor) -> torch.Tensor:
    return (picture != 128).any(0)


def test_a_box_is_outlined_in_the_colour_of_its_label() -> None:
    drawn = draw.annotate(grey(100, 200), [Box(20, 30, 120, 80)])
    expected = torch.tensor(draw.colour(""), dtype=torch.uint8)
    for y, x in ((30, 20), (30, 119), (79, 20), (79, 119), (55, 20), (30, 70)):
        assert torch.equal(drawn[:, y, x], expected), (y, x)
    touched = changed(drawn).nonzero()
    assert touched.amin(0).tolist() == [30, 20]
    assert touched.amax(0).tolist() == [79, 119]
    assert not changed(drawn)[40:70, 30:110].any()


def test_the_input_picture_is_not_modified() -> None:
    picture = grey(50, 50)
    drawn = draw.annotate(picture, [Box(5, 5, 30, 30, "cat")], [Point(40, 40)])
    assert not changed(picture).any()
    assert drawn.shape == picture.shape
    assert drawn.dtype == torch.uint8


def test_labels_do_not_overlap() -> None:
    boxes = [Box(50, 100, 150, 200, label) for label in ("cat", "dog", "bird")]
    drawn = draw.annotate(grey(400, 400), boxes)
    for label in ("cat", "dog", "bird"):
        ground = torch.tensor(draw.colour(label), dtype=torch.uint8).view(3, 1, 1)
        assert (drawn == ground).all(0).sum() > 100, label


@pytest.mark.parametrize(
    "label",
    [
        "x" * 500,
        "红色的圆",
        "line one\nline two",
        "🙂",
        "é",
        " ",
        "\x00\x07",
        "العربية",
        "\ud83d",
        "\u200d",
    ],
)
def test_any_label_can_be_drawn(label: str) -> None:
    edge = [Box(0, 0, 10, 10, label), Box(190, 90, 200, 100, label)]
    drawn = draw.annotate(grey(100, 200), edge, [Point(199, 99, label), Point(0, 0, label)])
    assert changed(drawn).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (3000, 20)])
def test_any_picture_size_can_be_drawn_on(size: tuple[int, int]) -> None:
    height, width = size
    drawn = draw.annotate(grey(*size), [Box(0, 0, width, height, "all")], [Point(0, 0, "p")])
    assert drawn.shape == (3, height, width)
    assert changed(drawn).any()


def test_line_width_scales_with_the_picture() -> None:
    def thickness(side: int) -> int:
        drawn = draw.annotate(grey(side, side), [Box(0, 0, side, side)])
        return int(changed(drawn)[side // 2, : side // 2].sum())

    assert thickness(2000) > thickness(200) >= 1


def test_a_point_is_marked_at_its_coordinates() -> None:
    drawn = draw.annotate(grey(100, 100), [], [Point(60.5, 20.2, "tip")])
    assert tuple(drawn[:, 20, 60].tolist()) == draw.colour("tip")


def test_colours_are_stable_and_ignore_case() -> None:
    assert draw.colour("Cat") == draw.colour("cat ")
    assert len({draw.colour(word) for word in ("cat", "dog", "bird", "car", "tree")}) > 1


def test_mask_covers_every_touched_pixel_and_no_other() -> None:
    covered = draw.mask((6, 8), [Box(1.2, 2.0, 3.5, 4.0), Box(7, 0, 8, 1)])
    expected = torch.zeros(6, 8)
    expected[2:4, 1:4] = 1
    expected[0, 7] = 1
    assert torch.equal(covered, expected)


def test_mask_of_nothing_is_empty() -> None:
    assert not draw.mask((4, 5), []).any()


@pytest.mark.parametrize("place", [(0, 0), (199, 0), (0, 99), (199, 99), (100, 50)])
def test_a_label_does_not_cover_its_point(place: tuple[int, int]) -> None:
    x, y = place
    drawn = draw.annotate(grey(100, 200), [], [Point(x, y, "here")])
    ring = drawn[:, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
    assert (ring == 255).all(0).any(), "the white ring around the point is not seen"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A system without fonts."""
    monkeypatch.setattr(text_rendering, "_SYSTEM", ())
    for remembered in (text_rendering._font_for, text_rendering._has):
        remembered.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for remembered in (text_rendering._font_for, text_rendering._has):
        remembered.cache_clear()


def ink(text: str, room: int = 600) -> bytes | None:
    """The pixels of a rendered line; None if it cannot be rendered."""
    canvas = Image.new("L", (room, 40))
    line = text_rendering.line(text, 20, room)
    if line is not None:
        line.draw(ImageDraw.Draw(canvas), 0, 20, "white")
    return None if line is None else canvas.tobytes()


SCRIPTS = {
    "Latin": ("red circle", "red square"),
    "accents": ("cercle très éloigné", "cercle tres eloigne"),
    "Vietnamese": ("vòng tròn đỏ", "vòng tròn đó"),
    "Greek": ("κόκκινος κύκλος", "κόκκινος κύκλοσ"),
    "Cyrillic": ("красный круг", "красный крут"),
    "simplified Chinese": ("红色的圆", "红色的园"),
    "traditional Chinese": ("紅色圓圈", "紅色圖圈"),
    "Japanese": ("赤い丸とネコ", "赤い丸とネユ"),
    "Korean": ("빨간 원", "빨간 윈"),
    "Thai": ("วงกลมสีแดง", "วงกลมสีแตง"),
    "mixed": ("iPhone 15 手机 чехол", "iPhone 15 手机 чехов"),
}
LAID_OUT = {
    "Arabic": ("دائرة حمراء", "دائرة حمراة"),
    "Hebrew": ("עיגול אדום", "עיגול אדוס"),
    "Hindi": ("लाल गोला", "लाल गोली"),
    "mixed": ("قطة cat 3", "قطة cat 8"),
}


@pytest.mark.parametrize(("label", "near"), SCRIPTS.values(), ids=SCRIPTS)
def test_labels_are_legible_without_system_fonts(
    bare: pytest.MonkeyPatch, label: str, near: str
) -> None:
    """Every additional or different character changes the pixels: no missing glyphs."""
    assert None not in {ink(label), ink(near)}
    assert len({ink(label), ink(near), ink(label[:-1])}) == 3


@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow cannot lay these scripts out")
@pytest.mark.parametrize(("label", "near"), LAID_OUT.values(), ids=LAID_OUT)
def test_scripts_with_complex_layout_are_legible(
    bare: pytest.MonkeyPatch, label: str, near: str
) -> None:
    assert None not in {ink(label), ink(near)}
    assert len({ink(label), ink(near), ink(label[:-1])}) == 3


@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow cannot lay these scripts out")
def test_a_right_to_left_line_begins_at_the_right(bare: pytest.MonkeyPatch) -> None:
    line = text_rendering.line("قطة cat", 20, 600)
    assert line is not None
    assert [text.strip() for _, text in line.runs] == ["cat", "قطة"]


@pytest.mark.parametrize("label", ["አማርኛ", "cat አ", "🙂🙂", "\x00\x07"])
def test_a_label_that_no_font_has_is_drawn_as_its_number(
    bare: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, label: str
) -> None:
    bare.setattr(text_rendering, "_BUNDLED", text_rendering._BUNDLED[:1])
    bare.setattr(draw, "colour", lambda label: (1, 2, 3))

    def drawn(label: str) -> list[torch.Tensor]:
        boxes = [Box(10, 20, 60, 60, "one"), Box(10, 120, 60, 160, label)]
        points = [Point(100, 100, "one"), Point(100, 160, label)]
        return [draw.annotate(grey(200, 200), boxes), draw.annotate(grey(200, 200), [], points)]

    caplog.set_level("INFO")
    assert all(map(torch.equal, drawn(label), drawn("2")))
    assert [record.args for record in caplog.records] == [(label,)] * 2


def test_arabic_is_drawn_as_its_number_without_raqm(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(features, "check", lambda name: False)
    assert ink("قطة") is None
    assert ink("लाल") is None
    assert None not in {ink("วงกลม"), ink("红色的圆")}


def test_symbols_that_no_font_has_are_left_out(bare: pytest.MonkeyPatch) -> None:
    assert ink("cat 🐱\u200d🐈 here") == ink("cat here") is not None


def test_system_fonts_are_the_fallback_for_missing_scripts(
    bare: pytest.MonkeyPatch,
) -> None:
    bare.setattr(text_rendering, "_BUNDLED", text_rendering._BUNDLED[:1])
    assert ink("ไทย") is None
    text_rendering._font_for.cache_clear()
    bare.setattr(
        text_rendering, "_SYSTEM", ("absent.ttf", str(text_rendering.FOLDER / "NotoSansThai.ttf"))
    )
    assert ink("ไทย") is not None


def test_a_long_label_is_truncated_with_an_ellipsis() -> None:
    for label in ("long label " * 9, "长的标签" * 20, "i" * 10_000, "l" * 200, "\u0301" * 10_000):
        line = text_rendering.line("x" + label, 10, 200)
        assert line is not None and line.width <= 200
        assert line.runs[-1][1].endswith("…")


def test_the_cost_of_a_label_does_not_grow_with_its_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = []
    plain = ImageFont.FreeTypeFont.getlength

    def counted(font: Any, text: str, *rest: Any, **options: Any) -> float:
        measured.append(len(text))
        return plain(font, text, *rest, **options)

    monkeypatch.setattr(ImageFont.FreeTypeFont, "getlength", counted)

    def cost(length: int) -> int:
        measured.clear()
        draw.annotate(grey(400, 400), [Box(0, 0, 50, 50, ("red 圆形 " * length)[:length])])
        return sum(measured)

    costs = [cost(length) for length in (1_000, 10_000, 1_000_000)]
    assert costs == costs[:1] * 3
    assert costs[0] < 10_000


def test_the_cost_of_placing_a_label_does_not_grow_with_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []
    plain = draw._overlap
    monkeypatch.setattr(draw, "_overlap", lambda a, b: compared.append(1) or plain(a, b))

    def cost(count: int) -> int:
        compared.clear()
        draw.annotate(grey(300, 300), [Box(i, i, i + 9, i + 9, "word") for i in range(count)])
        return len(compared)

    assert cost(200) <= 2 * cost(100)


def test_drawing_can_be_interrupted_between_items() -> None:
    class Stop(BaseException):
        pass

    turns = 0

    def check() -> None:
        nonlocal turns
        turns += 1
        if turns == 70:
            raise Stop

    with pytest.raises(Stop):
        draw.annotate(grey(99, 99), [Box(1, 1, 9, 9, "cat")] * 50, [Point(5, 5)] * 10, check)
    assert turns == 70
