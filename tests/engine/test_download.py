from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from qwen_vl_suite.qwenvl import checkpoints
from qwen_vl_suite.qwenvl import download as rooms
from qwen_vl_suite.qwenvl.errors import BadOption, DownloadError, QwenVLError

from .disk import files, safetensors, write
from .hub import COMMIT, Hub

REPO = "Qwen/Tiny-VL"
BIG = "model-00002-of-00002.safetensors"
SECRET = "hf_verysecretverysecretverysecret"
SOURCES = ("huggingface", "modelscope")
EXTRA = {
    "README.md": b"# Tiny",
    "pytorch_model.bin": b"\x80pickle",
    "training_args.bin": b"\x80",
    "modeling.py": b"import os",
    "tiny.gguf": b"GGUF",
    "additional/chat_template.jinja": b"{{ messages }}",
}


def contents():
    """A checkpoint whose second shard takes several network packets."""
    whole = files()
    whole[BIG] = safetensors({"c.weight": 3_000_000})
    return whole


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No waiting, and none of the user's own logins."""
    monkeypatch.setattr(rooms, "PAUSES", (0.0, 0.0))
    for name in (
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "HUGGING_FACE_HUB_TOKEN",
        "HTTP_PROXY",
        "http_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def hub():
    with Hub({REPO: {**contents(), **EXTRA}}) as running:
        yield running


@pytest.fixture
def get(hub, tmp_path):
    def download(source="huggingface", repo=REPO, **options):
        options.setdefault("endpoint", hub.url)
        return checkpoints.download(repo, tmp_path / "models", source=source, **options)

    return download


@pytest.mark.parametrize("source", SOURCES)
def test_brings_what_can_be_loaded_and_nothing_else(hub, get, source, tmp_path):
    folder = get(source)
    assert folder == tmp_path / "models" / "Tiny-VL"
    brought = {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".download.lock"
    }
    assert brought == {**contents(), "additional/chat_template.jinja": b"{{ messages }}"}
    assert checkpoints.inspect(folder).problem == ""


@pytest.mark.parametrize("source", SOURCES)
def test_a_second_call_fetches_nothing(hub, get, source):
    get(source)
    hub.files()
    get(source)
    assert hub.files() == []


def test_code_comes_only_when_asked_for(hub, get):
    assert not (get() / "modeling.py").exists()
    assert (get(trust_remote_code=True) / "modeling.py").read_bytes() == b"import os"


@pytest.mark.parametrize("source", SOURCES)
def test_a_cut_connection_is_continued_at_once(hub, get, source):
    hub.cuts[BIG] = [15 * rooms.CHUNK, 8 * rooms.CHUNK]
    folder = get(source)
    assert (folder / BIG).read_bytes() == contents()[BIG]
    asked = [range for name, range, _ in hub.asked if name == BIG]
    assert asked == [None, f"bytes={15 * rooms.CHUNK}-", f"bytes={23 * rooms.CHUNK}-"]


def test_a_dead_connection_is_an_error_and_the_next_call_continues(hub, get, tmp_path):
    hub.cuts[BIG] = [30 * rooms.CHUNK, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1.*kept"):
        get()
    found = checkpoints.inspect(tmp_path / "models" / "Tiny-VL")
    assert found.missing == (BIG,)
    assert f"2.0 MB in {BIG}.part" in found.problem
    hub.files()
    folder = get()
    assert hub.files() == [BIG]
    assert (folder / BIG).read_bytes() == contents()[BIG]
    assert not list(folder.glob("*.part"))


def test_a_cut_off_file_is_continued_not_fetched_whole(hub, get):
    shard = get() / BIG
    shard.write_bytes(contents()[BIG][:2_500_000])
    hub.asked.clear()
    get()
    assert [(name, range) for name, range, _ in hub.asked] == [(BIG, "bytes=2500000-")]
    assert shard.read_bytes() == contents()[BIG]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: b"<html>" + whole[6:], id="header"),
        pytest.param(lambda whole: whole + b"x", id="too long"),
        pytest.param(lambda whole: b"x" * 2_000_000, id="short and wrong"),
    ],
)
def test_a_broken_shard_is_fetched_alone(hub, get, damage):
    shard = get() / BIG
    shard.write_bytes(damage(contents()[BIG]))
    hub.files()
    get()
    assert set(hub.files()) == {BIG}
    assert shard.read_bytes() == contents()[BIG]


def test_a_file_that_came_damaged_never_gets_its_name(hub, get, tmp_path):
    hub.wrong_once.add(BIG)
    with pytest.raises(DownloadError, match=f"{BIG}.*arrived damaged"):
        get()
    assert not (tmp_path / "models" / "Tiny-VL" / BIG).exists()
    assert (get() / BIG).read_bytes() == contents()[BIG]


def test_a_hub_that_cannot_continue_sends_all_again(hub, get):
    hub.ranges = False
    hub.cuts[BIG] = [1_000_000]
    seen = []
    folder = get(progress=lambda done, total, name: seen.append((done, total)))
    assert (folder / BIG).read_bytes() == contents()[BIG]
    assert seen[-1][0] == seen[-1][1]


def test_a_hub_that_sends_more_than_announced_is_stopped(hub, get, tmp_path):
    hub.lies["tokenizer.json"] = b"{" * 10_000_000
    with pytest.raises(DownloadError, match=r"more of tokenizer\.json"):
        get()
    part = tmp_path / "models" / "Tiny-VL" / "tokenizer.json.part"
    assert part.stat().st_size <= len(contents()["tokenizer.json"])


def test_progress_counts_every_byte_once(hub, get):
    seen = []
    hub.cuts[BIG] = [1_000_000]
    get(progress=lambda done, total, name: seen.append((done, total, name)))
    total = sum(len(c) for c in contents().values()) + len(b"{{ messages }}")
    assert {t for _, t, _ in seen} == {total}
    assert [d for d, _, _ in seen] == sorted(d for d, _, _ in seen)
    assert seen[-1][0] == total
    assert {name for _, _, name in seen} >= set(contents())


class Stop(BaseException):
    """As a host's interrupt may be."""


@pytest.mark.parametrize("kind", [Stop, KeyboardInterrupt, BrokenPipeError])
def test_cancel_keeps_what_came(hub, get, tmp_path, kind):
    done = 0

    def progress(now, total, name):
        nonlocal done
        done = now

    def check():
        if done > 1_500_000:
            raise kind

    with pytest.raises(kind):
        get(progress=progress, check=check)
    part = tmp_path / "models" / "Tiny-VL" / (BIG + ".part")
    came = part.stat().st_size
    assert 1_000_000 < came < len(contents()[BIG])
    hub.asked.clear()
    get()
    assert [(name, range) for name, range, _ in hub.asked] == [(BIG, f"bytes={came}-")]


def test_a_hub_that_falls_silent_is_asked_again(hub, get, monkeypatch):
    monkeypatch.setattr(rooms, "TIMEOUT", (5, 0.2))
    hub.stalls[BIG] = [1_000_000]
    folder = get()
    assert (folder / BIG).read_bytes() == contents()[BIG]
    asked = [where for name, where, _ in hub.asked if name == BIG]
    assert asked[0] is None and 900_000 < int(asked[1].removeprefix("bytes=")[:-1]) <= 1_000_000


def test_a_stop_is_heard_between_two_attempts(hub, get, monkeypatch):
    slept = []
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr(rooms, "time", clock)
    monkeypatch.setattr(rooms, "PAUSES", (60.0,))
    hub.status[BIG] = [503]

    def check():
        if slept:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(check=check)
    assert sum(slept) < 1


def test_a_busy_hub_is_asked_again(hub, get):
    hub.status["config.json"] = [503, 429]
    assert (get() / "config.json").read_bytes() == contents()["config.json"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("status", "word"), [(401, "login"), (403, "login"), (404, "spelling")])
def test_refusals_say_what_to_do(hub, get, source, status, word):
    for where in ("listing", "config.json"):
        hub.status = {where: [status]}
        with pytest.raises(DownloadError, match=word) as caught:
            get(source, token=SECRET)
        assert str(status) in str(caught.value) and REPO in str(caught.value)
        assert SECRET not in repr(caught.getrepr(style="long"))


@pytest.mark.parametrize("source", SOURCES)
def test_an_unknown_repository(get, source):
    with pytest.raises(DownloadError, match="Qwen/Missing"):
        get(source, "Qwen/Missing")


@pytest.mark.parametrize("source", SOURCES)
def test_offline_names_the_host(get, source, tmp_path):
    with Hub({}) as gone:
        endpoint = gone.url
    with pytest.raises(DownloadError, match=r"cannot be reached at 127\.0\.0\.1") as caught:
        get(source, endpoint=endpoint.replace("//", "//me:pass@"), token=SECRET)
    assert SECRET not in str(caught.value) and "pass" not in str(caught.value)
    assert not (tmp_path / "models" / "Tiny-VL").exists()


@pytest.mark.parametrize("source", SOURCES)
def test_the_token_opens_and_stays_with_its_hub(hub, get, source):
    hub.token, hub.cdn = SECRET, True
    with pytest.raises(DownloadError, match="401"):
        get(source)
    folder = get(source, token=SECRET)
    assert (folder / BIG).read_bytes() == contents()[BIG]
    first, second = (
        {token for name, _, token in hub.asked[at::2]} for at in (0, 1)
    )  # the hub and the other host take turns
    assert (first, second) == ({f"Bearer {SECRET}"}, {None})


def test_the_stored_login_is_not_given_to_a_mirror(hub, get, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    get()
    assert {token for _, _, token in hub.asked} == {None}


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import conftest
from qwen_vl_suite.qwenvl import checkpoints, errors
try:
    print(checkpoints.download(sys.argv[2], sys.argv[3]))
except errors.DownloadError as error:
    print(error)
"""


def download_in_a_new_process(tmp_path, **variables):
    """The library reads its variables once, when it is imported."""
    here = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, here, REPO, str(tmp_path / "models")],
        env={**os.environ, "NO_PROXY": "127.0.0.1", "HF_TOKEN": SECRET, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_an_endpoint_the_librarys_own_is_used(hub, tmp_path):
    said = download_in_a_new_process(tmp_path, HF_ENDPOINT=hub.url)
    assert (tmp_path / "models" / "Tiny-VL" / BIG).exists(), said
    assert {token for _, _, token in hub.asked} == {f"Bearer {SECRET}"}


def test_the_librarys_offline_switch_is_respected(hub, tmp_path):
    said = download_in_a_new_process(tmp_path, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in said
    assert hub.asked == []


@pytest.mark.parametrize(
    "repo",
    [
        "Tiny-VL",
        "../Tiny-VL",
        "Qwen/..",
        "Qwen/../x",
        "/etc/passwd",
        "a/b/c",
        "",
        "Qwen/a b",
        "Q/.x",
    ],
)
def test_only_owner_and_name(get, repo, tmp_path):
    with pytest.raises(BadOption, match="owner/name"):
        get(repo=repo)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "name", ["../evil.json", "/tmp/evil.json", "a/../../evil.json", "..\\evil.json", "C:evil.json"]
)
@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_written_outside_the_folder(tmp_path, name, source):
    with (
        Hub({REPO: {**files(), name: b"{}"}}) as hub,
        pytest.raises(DownloadError, match="outside"),
    ):
        checkpoints.download(REPO, tmp_path / "models", source=source, endpoint=hub.url)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_linked_subfolder_is_not_followed_out(get, tmp_path):
    folder = tmp_path / "models" / "Tiny-VL"
    folder.mkdir(parents=True)
    (folder / "additional").symlink_to(tmp_path)
    with pytest.raises(DownloadError, match="outside"):
        get()
    assert not (tmp_path / "chat_template.jinja").exists()


@pytest.mark.parametrize("source", SOURCES)
def test_a_repository_without_safetensors_is_refused_before_anything_comes(tmp_path, source):
    with Hub({REPO: {"config.json": b"{}", "model.gguf": b"GGUF"}}) as hub:
        with pytest.raises(DownloadError, match="no safetensors"):
            checkpoints.download(REPO, tmp_path, source=source, endpoint=hub.url)
        assert hub.files() == []


def test_a_full_disk_is_said_before(hub, get, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1_000_000))
    with pytest.raises(DownloadError, match=r"needs 3\.0 MB, and 1\.0 MB are free"):
        get()
    assert hub.files() == []


def test_a_place_that_is_taken_by_a_file(get, tmp_path):
    write(tmp_path, {"models": b""})
    with pytest.raises(DownloadError, match="cannot be written"):
        get()


def test_two_downloads_into_one_folder_do_not_mix(hub, get):
    inside, leave = threading.Event(), threading.Event()

    def hold():
        inside.set()
        leave.wait(10)

    first = threading.Thread(target=lambda: get(check=hold))
    first.start()
    assert inside.wait(10)
    with pytest.raises(DownloadError, match="under way"):
        get()
    leave.set()
    first.join()
    assert get().is_dir()


def test_an_answer_that_is_no_hubs(get, hub):
    with pytest.raises(DownloadError):
        get("modelscope", endpoint=hub.url + "/nowhere")


@pytest.mark.parametrize(("option", "word"), [("source", "modelscope"), ("endpoint", "https://")])
def test_options_out_of_range(tmp_path, option, word):
    with pytest.raises(BadOption, match=word):
        checkpoints.download(REPO, tmp_path, **{option: "elsewhere"})


def test_the_listing_is_pinned_to_its_commit(hub, get):
    from qwen_vl_suite.qwenvl.hubs import hub_for

    listing = hub_for("huggingface", endpoint=hub.url).listing(REPO, "main")
    assert listing.revision == COMMIT


def test_every_error_is_the_engines():
    assert issubclass(DownloadError, QwenVLError)
