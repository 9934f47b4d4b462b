"""The review page in a browser: ten thousand pictures, keys, edits, undo, search, asking again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from caption_folders import picture
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.folders import Asking, Job, trainer
from qwen_vl_suite.qwenvl.reviewing import Asker, Collection, ReviewServer
from qwen_vl_suite.qwenvl.tasks.describe import describe
from videos import write

pytestmark = pytest.mark.web
COUNT = 10_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of which all but each tenth have a caption."""
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    Image.new("RGB", (40, 30), "teal").save(root / "00000.png")
    for number in range(COUNT):
        if number:
            (root / f"{number:05}.png").hardlink_to(root / "00000.png")
        if number % 10:
            (root / f"{number:05}.txt").write_text(f"Picture number {number}, in teal.\n")
    return root


CLIPS = {
    "vp8.webm": ("webm", "libvpx"),
    "vp9.webm": ("webm", "libvpx-vp9"),
    "av1.webm": ("webm", "libsvtav1"),
    "h264.mp4": ("mp4", "libx264"),
    "mpeg4.mkv": ("matroska", "mpeg4"),
}
"""Forms and codecs, of which the last is one that no browser plays."""

CAN_H264 = "() => document.createElement('video').canPlayType('video/mp4; codecs=avc1.42E01E')"
PLAYED = """name => document.getElementById("whole-name").textContent === name
  && document.querySelector("#whole video")?.currentTime > 0.5"""
STILL = "() => document.querySelector('#whole img')?.naturalWidth === 96"


class Page:
    def __init__(self, page: Any, folder: Path):
        self.page, self.folder = page, folder

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def edits(self, key: str) -> None:
        self.keys(key)
        self.current.locator("textarea").wait_for()

    @property
    def current(self) -> Any:
        return self.page.locator(".row[aria-current=true]")

    def is_at(self, name: str) -> None:
        self.page.wait_for_function(
            "name => document.querySelector('.row[aria-current=true]')?.ariaLabel === name",
            arg=name,
        )

    def says(self, words: str) -> None:
        self.page.wait_for_function(
            "words => document.getElementById('status').textContent.includes(words)", arg=words
        )

    def has(self, text: str) -> None:
        """The current row, as its caption: on disk, not as a model is writing it."""
        self.page.wait_for_function(
            "text => document.querySelector('.row[aria-current=true] .caption:not(.written)')"
            "?.textContent === text",
            arg=text,
        )

    def on_disk(self, number: int) -> str | None:
        path = self.folder / f"{number:05}.txt"
        return path.read_text() if path.exists() else None


@contextmanager
def opened(
    browser: Any, collection: Collection, asker: Asker | None = None, answers: Sequence[str] = ()
) -> Iterator[Page]:
    """The page of ``collection``; fails on any error in it. ``answers``: of the server that are
    none, though browsers put them on their console, beside conflicts."""
    with ReviewServer(collection, asker) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.set_default_timeout(60_000)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
        page.goto(server.url)
        yield Page(page, collection.folder)
        page.close()
        server.shutdown()
        thread.join()
    told = ("409", *answers)
    assert [one for one in complaints if not any(status in one for status in told)] == []


@pytest.fixture(scope="module")
def shown(browser: Any, folder: Path) -> Iterator[Page]:
    collection = Collection(folder, trainer())
    job = Job(folder, Asking(describe("training")), existing="overwrite")
    backend = ScriptedBackend(lambda request: "A teal rectangle.")
    asker = Asker(collection, job, lambda: nullcontext(backend), "scripted")
    collection.load()
    with opened(browser, collection, asker) as page:
        yield page


@pytest.fixture
def page(shown: Page) -> Page:
    """With nothing searched for, at the first picture."""
    shown.page.locator("#search").fill("")
    shown.page.locator("[data-only=all]").click()
    shown.page.wait_for_function("count => document.querySelector('.row')?.ariaSetSize == count",
                                 arg=COUNT)  # fmt: skip
    shown.keys("Home")
    shown.is_at("00000.png")
    shown.has("No caption")
    return shown


def test_ten_thousand_pictures_have_few_rows_and_reach_to_the_end(page: Page):
    assert page.page.locator("#filters").inner_text().split() == [
        "All", "10,000", "No", "caption", "1,000", "Captioned", "9,000", "Failed", "0",
    ]  # fmt: skip
    most = page.page.evaluate(
        """async () => {
          const view = document.getElementById("scroller");
          let most = 0;
          for (let part = 0; part <= 100; part++) {
            view.scrollTop = (view.scrollHeight - view.clientHeight) * part / 100;
            await new Promise(requestAnimationFrame);
            await new Promise(requestAnimationFrame);
            most = Math.max(most, document.querySelectorAll(".row").length);
          }
          return most;
        }"""
    )
    assert 5 < most < 30
    page.page.wait_for_function(
        """() => document.querySelector(`[aria-posinset='10000'] .caption`)?.innerText
          === "Picture number 9999, in teal." """
    )
    page.page.wait_for_function(
        "() => document.querySelector(`[aria-posinset='10000'] img`)?.naturalWidth === 40"
    )
    page.keys("Home", "End")
    page.is_at("09999.png")
    page.keys("k", "ArrowUp", "j")
    page.is_at("09998.png")


def test_a_caption_is_edited_undone_and_done_again_by_keys(page: Page):
    page.edits("e")
    page.page.keyboard.type("Teal <b>& wide")
    page.keys("Shift+Enter")
    page.page.keyboard.type("indeed")
    page.keys("Enter")
    page.has("Teal <b>& wide indeed")
    assert page.on_disk(0) == "Teal <b>& wide indeed\n"
    page.keys("j", "Control+z")
    page.is_at("00000.png")
    page.has("No caption")
    assert page.on_disk(0) is None
    page.keys("Control+Shift+Z")
    page.has("Teal <b>& wide indeed")
    page.keys("Control+z")
    page.has("No caption")
    page.edits("Enter")
    page.page.keyboard.type("Never")
    page.keys("Escape", "j")
    page.is_at("00001.png")
    assert page.on_disk(0) is None


@contextmanager
def held_back(page: Page) -> Iterator[list[Any]]:
    """Edits that the page sends, which reach the server at the end of the block."""
    edits: list[Any] = []
    page.page.route("**/edit", lambda route: edits.append(route))
    yield edits
    page.page.unroute("**/edit")  # which lets them go on


def test_what_is_being_saved_is_saved_once_and_cannot_be_typed_on(page: Page):
    with held_back(page) as edits:
        page.edits("e")
        page.page.keyboard.type("Teal")
        with page.page.expect_request("**/edit"):
            page.keys("Enter")
        page.keys("Enter")
        page.page.keyboard.type(" and lost")
        page.keys("Escape")
        assert page.current.locator("textarea").input_value() == "Teal"
    page.has("Teal")
    page.page.wait_for_timeout(300)
    assert len(edits) == 1 and page.on_disk(0) == "Teal\n"
    assert page.page.locator("#status").inner_text() == ""
    page.keys("Control+z")
    page.has("No caption")


def test_what_cannot_be_saved_can_be_typed_on(page: Page):
    page.page.route("**/edit", lambda route: route.fulfill(status=409, json={"error": "Full."}))
    page.edits("e")
    page.page.keyboard.type("Te")
    page.keys("Enter")
    page.says("Full.")
    page.page.unroute("**/edit")
    page.page.keyboard.type("al")
    page.keys("Enter")
    page.has("Teal")
    page.keys("Control+z")
    page.has("No caption")


def test_a_search_begun_while_a_caption_is_saved_goes_on(page: Page):
    with held_back(page):
        page.edits("e")
        page.page.keyboard.type("Teal")
        with page.page.expect_request("**/edit"):
            page.page.locator("#search").click()
        page.page.keyboard.type("00777")
    page.says("1 found")
    page.page.keyboard.type(" jxr")
    assert page.page.locator("#search").input_value() == "00777 jxr"
    assert page.on_disk(0) == "Teal\n"
    page.keys("Escape", "Control+z")
    page.says("Undone")


@pytest.mark.parametrize("key", ["Escape", "Enter"])
def test_the_keys_of_an_input_method_leave_the_caption_open(page: Page, key: str):
    page.edits("e")
    page.page.keyboard.type("Teal ")
    keyboard = page.page.context.new_cdp_session(page.page)
    keyboard.send("Input.imeSetComposition",
                  {"text": "にほ", "selectionStart": 2, "selectionEnd": 2})  # fmt: skip
    page.keys(key)
    page.page.wait_for_timeout(300)
    assert page.current.locator("textarea").input_value().startswith("Teal")
    keyboard.send("Input.insertText", {"text": "日本"})
    page.keys("Escape")
    page.has("No caption")


def test_search_and_filters_narrow_the_list(page: Page):
    page.keys("/")
    page.page.keyboard.type("00777 number TEAL")
    page.says("1 found")
    page.keys("Enter")
    page.is_at("00777.png")
    assert page.current.locator("mark").all_inner_texts() == ["00777", "number", "teal"]
    page.keys("/", "Escape")
    page.page.wait_for_function("() => document.querySelector('.row')?.ariaSetSize === '10000'")
    page.page.locator("[data-only=without]").click()
    page.says("1,000 found")
    page.keys("Home", "j")
    page.is_at("00010.png")


def test_a_change_by_another_program_is_shown_and_not_written_over(page: Page):
    page.keys("j")
    page.is_at("00001.png")
    (page.folder / "00001.txt").write_text("By another program.\n")
    page.has("By another program.")
    page.edits("e")
    page.page.keyboard.type(" Mine.")
    (page.folder / "00001.txt").write_text("Once more.\n")
    page.page.get_by_text("Changed meanwhile: Once more.").wait_for()
    page.keys("Enter")
    assert page.on_disk(1) == "Once more.\n"
    page.page.get_by_role("button", name="Keep mine").click()
    page.has("By another program. Mine.")
    assert page.on_disk(1) == "By another program. Mine.\n"


def test_selected_pictures_are_asked_about_again(page: Page):
    page.keys("Home", "j", "j")
    page.is_at("00002.png")
    page.keys("x", "j", "x")
    assert page.page.locator("#ask").inner_text() == "Ask again: 2"
    page.keys("r")
    page.has("A teal rectangle.")
    page.keys("k")
    page.has("A teal rectangle.")
    assert page.on_disk(2) == page.on_disk(3) == "A teal rectangle.\n"
    page.keys("Control+z", "Control+z")
    page.says("Undone")
    page.has("Picture number 2, in teal.")


def test_tab_leads_to_the_current_picture_whose_parts_have_names(page: Page):
    page.keys("j")
    page.page.locator("#help-button").focus()
    page.keys("Tab")
    name = "() => document.activeElement.ariaLabel"
    assert page.page.evaluate(name) == "00001.png"
    for part, says in (("input", "Select 00001.png"), (".thumb", "Show 00001.png")):
        assert page.current.locator(part).get_attribute("aria-label") == says


def test_the_whole_picture_and_the_help_are_shown(page: Page):
    page.keys("Space")
    page.page.wait_for_function("() => document.querySelector('#whole img')?.naturalWidth === 40")
    page.keys("j")
    page.page.wait_for_function(
        "() => document.getElementById('whole-name').textContent === '00001.png'"
    )
    page.keys("Escape", "?")
    assert page.page.locator("#help").is_visible()
    page.keys("Escape")
    assert not page.page.locator("#help").is_visible()


def test_it_can_be_read_at_twice_the_size(page: Page):
    page.page.set_viewport_size({"width": 550, "height": 400})
    try:
        page.page.wait_for_function(
            """() => {
                const box = (name) => document.querySelector(name)?.getBoundingClientRect();
                return innerWidth === 550 && document.documentElement.scrollWidth <= innerWidth &&
                    box(".caption")?.width > 250 && box("#scroller").height > 120;
            }"""
        )
    finally:
        page.page.set_viewport_size({"width": 1100, "height": 800})


def test_pictures_that_come_and_go_are_found_when_the_page_is_loaded_again(
    browser: Any, tmp_path: Path
):
    for name in ("b.png", "c.png"):
        picture(tmp_path / name)
    collection = Collection(tmp_path, trainer())
    collection.start()
    with opened(browser, collection, answers=["404"]) as page:  # c.png may be asked for once more
        page.is_at("b.png")
        picture(tmp_path / "a.png")
        (tmp_path / "c.png").unlink()
        page.page.reload()
        names = "() => [...document.querySelectorAll('.row')].map((row) => row.ariaLabel).sort()"
        page.page.wait_for_function(f"() => `${{({names})()}}` === 'a.png,b.png'")
    collection.close()


def test_a_picture_that_was_replaced_is_shown_as_it_is_now(browser: Any, tmp_path: Path):
    picture(tmp_path / "a.png", size=(32, 32))
    collection = Collection(tmp_path, trainer())
    collection.load()
    width = "is => document.querySelector('{} img')?.naturalWidth === is"
    with opened(browser, collection) as page:
        page.page.wait_for_function(width.format(".thumb"), arg=32)
        page.keys("Space")
        page.page.wait_for_function(width.format("#whole"), arg=32)
        page.keys("Space")
        picture(tmp_path / "a.png", size=(48, 32))
        page.page.wait_for_function(width.format(".thumb"), arg=48)
        page.keys("Space")
        page.page.wait_for_function(width.format("#whole"), arg=48)


def test_clips_are_played_where_the_browser_can_and_else_their_first_frame_is_shown(
    browser: Any, tmp_path: Path
):
    # SVT-AV1 gives the thread that it is called from real-time priority where it may, for good,
    # and with it all threads that this one starts.
    with ThreadPoolExecutor(1) as pool:
        for name, (form, codec) in CLIPS.items():
            pool.submit(write, tmp_path / name, form, codec, b_frames=None).result()
    collection = Collection(tmp_path, trainer())
    collection.load()
    with opened(browser, collection) as page:
        can_h264 = page.page.evaluate(CAN_H264)
        page.is_at("av1.webm")
        answers: list[Any] = []
        page.page.on("response", lambda one: "/whole/" in one.url and answers.append(one))
        page.keys("Space")
        for name in sorted(CLIPS):
            page.is_at(name)
            if name == "mpeg4.mkv" or (name == "h264.mp4" and not can_h264):
                page.page.wait_for_function(STILL)
                says = page.page.locator("#whole-name").inner_text()
                assert says == f"{name}: this browser cannot play it; its first frame."
            else:
                page.page.wait_for_function(PLAYED, arg=name)
                page.page.evaluate("document.querySelector('#whole video').click()")
                assert page.page.locator("#viewer").get_attribute("open") is not None
            page.keys("j")
        assert {one.status for one in answers} == {206}  # as players ask, range by range
