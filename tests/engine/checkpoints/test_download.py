from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from disk import CONFIG, files, safetensors, write
from hub import COMMIT, Hub
from qwen_vl_suite.qwenvl.checkpoints import download, inspection, library, transfer
from qwen_vl_suite.qwenvl.checkpoints.receipts import Receipt
from qwen_vl_suite.qwenvl.cli.main import main
from qwen_vl_suite.qwenvl.errors import BadOption, DownloadError, QwenVLError, UnsupportedModel

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
    """A checkpoint whose second shard takes several network packets, by file."""
    whole = files()
    whole[BIG] = safetensors({"c.weight": 3_000_000})
    return whole


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """No delays between retries, and no login of the user who runs the tests."""
    monkeypatch.setattr(transfer, "RETRY_DELAYS", (0.0, 0.0))
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
    def run(source="huggingface", repo=REPO, **options):
        options.setdefault("endpoint", hub.url)
        return library.download(repo, tmp_path / "models", source=source, **options)

    return run


@pytest.mark.parametrize("source", SOURCES)
def test_only_loadable_files_are_fetched(hub, get, source, tmp_path):
    folder = get(source)
    assert folder == tmp_path / "models" / "Tiny-VL"
    assert files_in(folder) == {**contents(), "additional/chat_template.jinja": b"{{ messages }}"}
    assert inspection.inspect(folder).problem == ""


@pytest.mark.parametrize("source", SOURCES)
def test_a_second_call_fetches_nothing(hub, get, source):
    get(source)
    hub.files()
    get(source)
    assert hub.files() == []


def test_code_is_fetched_only_when_allowed(hub, get):
    assert not (get() / "modeling.py").exists()
    assert (get(trust_remote_code=True) / "modeling.py").read_bytes() == b"import os"


@pytest.mark.parametrize("source", SOURCES)
def test_a_broken_connection_is_resumed_at_once(hub, get, source):
    hub.cuts[BIG] = [15 * transfer.CHUNK, 8 * transfer.CHUNK]
    folder = get(source)
    assert (folder / BIG).read_bytes() == contents()[BIG]
    asked = [range for name, range, _ in hub.requested if name == BIG]
    assert asked == [None, f"bytes={15 * transfer.CHUNK}-", f"bytes={23 * transfer.CHUNK}-"]


def test_a_dead_connection_is_an_error_and_the_next_call_resumes(hub, get, tmp_path):
    hub.cuts[BIG] = [30 * transfer.CHUNK, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1.*kept"):
        get()
    found = inspection.inspect(tmp_path / "models" / "Tiny-VL")
    assert found.missing == (BIG,)
    assert f"2.0 MB in {BIG}.part" in found.problem
    hub.files()
    folder = get()
    assert hub.files() == [BIG]
    assert (folder / BIG).read_bytes() == contents()[BIG]
    assert not list(folder.glob("*.part"))


def test_a_truncated_file_is_resumed_not_fetched_whole(hub, get):
    shard = get() / BIG
    shard.write_bytes(contents()[BIG][:2_500_000])
    hub.requested.clear()
    get()
    assert [(name, range) for name, range, _ in hub.requested] == [(BIG, "bytes=2500000-")]
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


def test_a_file_that_arrives_damaged_never_gets_its_final_name(hub, get, tmp_path):
    hub.corrupt_once.add(BIG)
    with pytest.raises(DownloadError, match=f"{BIG}.*arrived damaged"):
        get()
    assert not (tmp_path / "models" / "Tiny-VL" / BIG).exists()
    assert (get() / BIG).read_bytes() == contents()[BIG]


def test_a_hub_without_ranges_sends_the_whole_file_again(hub, get):
    hub.ranges = False
    hub.cuts[BIG] = [1_000_000]
    seen = []
    folder = get(progress=lambda done, total, name: seen.append((done, total)))
    assert (folder / BIG).read_bytes() == contents()[BIG]
    assert seen[-1][0] == seen[-1][1]


def test_a_hub_that_sends_more_than_announced_is_refused(hub, get, tmp_path):
    hub.substitutes["tokenizer.json"] = b"{" * 10_000_000
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
    """An interrupt of the host, which need not be an Exception."""


def cancel(get, kind):
    """Begins a download and stops it with ``kind`` after 1.5 MB."""
    done = 0

    def progress(now, total, name):
        nonlocal done
        done = now

    def check():
        if done > 1_500_000:
            raise kind

    with pytest.raises(kind):
        get(progress=progress, check=check)


@pytest.mark.parametrize("kind", [Stop, KeyboardInterrupt, BrokenPipeError])
def test_a_cancelled_download_keeps_what_arrived(hub, get, tmp_path, kind):
    cancel(get, kind)
    part = tmp_path / "models" / "Tiny-VL" / (BIG + ".part")
    came = part.stat().st_size
    assert 1_000_000 < came < len(contents()[BIG])
    hub.requested.clear()
    get()
    assert [(name, range) for name, range, _ in hub.requested] == [(BIG, f"bytes={came}-")]


def test_a_stalled_connection_is_retried(hub, get, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", (5, 0.2))
    hub.stalls[BIG] = [1_000_000]
    folder = get()
    assert (folder / BIG).read_bytes() == contents()[BIG]
    asked = [where for name, where, _ in hub.requested if name == BIG]
    assert asked[0] is None and 900_000 < int(asked[1].removeprefix("bytes=")[:-1]) <= 1_000_000


def test_check_is_called_between_two_retries(hub, get, monkeypatch):
    slept = []
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr(transfer, "time", clock)
    monkeypatch.setattr(transfer, "RETRY_DELAYS", (60.0,))
    hub.status[BIG] = [503]

    def check():
        if slept:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(check=check)
    assert sum(slept) < 1


def test_a_busy_hub_is_retried(hub, get):
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
        get(source, endpoint=endpoint, token=SECRET)
    assert SECRET not in str(caught.value)
    assert not (tmp_path / "models" / "Tiny-VL").exists()


@pytest.mark.parametrize("source", SOURCES)
def test_a_token_is_sent_to_its_hub_only(hub, get, source):
    hub.token, hub.cdn = SECRET, True
    with pytest.raises(DownloadError, match="401"):
        get(source)
    folder = get(source, token=SECRET)
    assert (folder / BIG).read_bytes() == contents()[BIG]
    first, second = (
        {token for name, _, token in hub.requested[at::2]} for at in (0, 1)
    )  # requests alternate between the hub and the CDN
    assert (first, second) == ({f"Bearer {SECRET}"}, {None})


LOGINS = {"huggingface": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}


@pytest.mark.parametrize("source", SOURCES)
def test_the_stored_login_is_not_sent_to_a_mirror(hub, get, monkeypatch, source):
    monkeypatch.setenv(LOGINS[source], SECRET)
    monkeypatch.setenv("QVL_TOKEN_HOST", "huggingface.co, example.com")
    get(source)
    assert {token for _, token in hub.logins} == {None}


@pytest.mark.parametrize("source", SOURCES)
def test_a_named_mirror_gets_the_login_and_redirects_do_not(hub, get, monkeypatch, source):
    monkeypatch.setenv(LOGINS[source], SECRET)
    monkeypatch.setenv("QVL_TOKEN_HOST", "example.com, 127.0.0.1")
    hub.cdn = hub.redirects_listing = True
    get(source)
    assert set(hub.logins) == {("127.0.0.1", f"Bearer {SECRET}"), ("localhost", None)}


@pytest.mark.parametrize(
    ("address", "gets"),
    [
        ("https://huggingface.co", True),
        ("https://HuggingFace.co/", True),
        ("http://huggingface.co", False),
        ("https://hf-mirror.com", False),
        ("https://huggingface.co.example.com", False),
        ("https://example.com/huggingface.co", False),
    ],
)
def test_only_the_hubs_own_host_gets_the_login_by_default(monkeypatch, address, gets):
    from qwen_vl_suite.qwenvl.checkpoints.hubs import hub_for

    monkeypatch.setenv("HF_TOKEN", SECRET)
    for hub in (hub_for("huggingface", endpoint=address), _hub_of_variable(monkeypatch, address)):
        assert ("authorization" in {name.lower() for name in hub.headers}) is gets


def _hub_of_variable(monkeypatch, address):
    """The library reads HF_ENDPOINT when it is imported."""
    from qwen_vl_suite.qwenvl.checkpoints.hubs import hub_for

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    return hub_for("huggingface")


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import conftest
from qwen_vl_suite.qwenvl import errors
from qwen_vl_suite.qwenvl.checkpoints import download, inspection, library, transfer
try:
    print(library.download(sys.argv[2], sys.argv[3]))
except errors.DownloadError as error:
    print(error)
"""


def download_in_a_new_process(tmp_path, **variables):
    """The library reads its variables once, when it is imported."""
    here = str(Path(__file__).resolve().parents[2])
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
    assert {token for _, token in hub.logins} == {None}


def test_the_librarys_offline_switch_is_respected(hub, tmp_path):
    said = download_in_a_new_process(tmp_path, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in said
    assert hub.requested == []


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


NAMES = {
    "above": "../evil.json",
    "root": "/tmp/evil.json",
    "above from within": "a/../../evil.json",
    "backslash": "..\\evil.json",
    "drive": "C:evil.json",
    "stream": "evil.json:x.json",
    "NUL": "evil\0.json",
    "line break": "evil\n.json",
    "half a character": "evil\ud800.json",
    "device": "NUL.evil.json",
    "device in a folder": "aux/evil.json",
    "dot at the end": "evil./evil.json",
    "empty part": "evil//evil.json",
    "here": "./evil.json",
    "question mark": "evil?.json",
    "long": "evil" + "x" * 300 + ".json",
    "long in UTF-8": "evil" + "红" * 80 + ".json",
    "many folders": "evil/" * 100 + "evil.json",
    "capitals": "Config.json",
    "folder": "config.json/evil.json",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("source", SOURCES)
def test_unsafe_names_are_refused_before_anything_is_written(tmp_path, name, source):
    with (
        Hub({REPO: {**files(), name: b"{}"}}) as hub,
        pytest.raises(DownloadError, match=r"lists a file (outside|with)") as caught,
    ):
        library.download(REPO, tmp_path / "models", source=source, endpoint=hub.url)
    assert repr(name[:60])[1:-1] in str(caught.value)
    assert len(str(caught.value)) < 500
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "row",
    [
        {"Path": None, "Size": 1},
        {"Path": ["a.json"], "Size": 1},
        {"Path": "a.json", "Size": None},
        {"Path": "a.json", "Size": "many"},
        {"Path": "a.json", "Size": float("inf")},
        {"Path": "a.json", "Size": -1},
        {"Path": "a.json", "Size": 10**400},
        {"Path": "a.json", "Size": 1, "Sha256": "0" * 63},
        {"Path": "a.json", "Size": 1, "Sha256": 7},
        {"Size": 1},
        "a.json",
        None,
    ],
    ids=str,
)
@pytest.mark.parametrize("source", SOURCES)
def test_malformed_listing_rows_are_a_download_error(tmp_path, monkeypatch, row, source):
    rows = [row]
    if isinstance(row, dict):
        sibling = {"rfilename": row.get("Path"), "size": row["Size"]}
        if "Sha256" in row:
            sibling["lfs"] = {"sha256": row["Sha256"], "size": 1, "pointerSize": 1}
        rows = [sibling] if source == "huggingface" else rows
    with Hub({REPO: files()}) as hub:
        handler = hub.server.RequestHandlerClass
        plain = {"huggingface": handler._siblings, "modelscope": handler._modelscope}[source]

        def with_rows(self, repo, contents):
            body = plain(self, repo, contents)
            listed = body["siblings"] if source == "huggingface" else body["Data"]["Files"]
            listed.extend(rows)
            return body

        monkeypatch.setattr(handler, plain.__name__, with_rows)
        if row == {"Path": "a.json", "Size": None} and source == "huggingface":
            return  # a file without a size is not offered there
        with pytest.raises(DownloadError):
            library.download(REPO, tmp_path / "models", source=source, endpoint=hub.url)
    assert not (tmp_path / "models").exists()


def test_a_symlink_out_of_the_folder_is_not_followed(get, tmp_path):
    folder = tmp_path / "models" / "Tiny-VL"
    folder.mkdir(parents=True)
    (folder / "additional").symlink_to(tmp_path)
    with pytest.raises(DownloadError, match="outside"):
        get()
    assert not (tmp_path / "chat_template.jinja").exists()


@pytest.mark.parametrize("source", SOURCES)
def test_a_repository_without_safetensors_is_refused_before_any_file_is_fetched(tmp_path, source):
    with Hub({REPO: {"config.json": b"{}", "model.gguf": b"GGUF"}}) as hub:
        with pytest.raises(DownloadError, match="no safetensors"):
            library.download(REPO, tmp_path, source=source, endpoint=hub.url)
        assert hub.files() == []


def test_a_full_disk_is_reported_before_the_download(hub, get, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1_000_000))
    with pytest.raises(DownloadError, match=r"needs 3\.0 MB, and 1\.0 MB are free"):
        get()
    assert hub.files() == []


def test_a_root_that_is_a_file_is_reported(get, tmp_path):
    write(tmp_path, {"models": b""})
    with pytest.raises(DownloadError, match="cannot be written"):
        get()


def test_two_downloads_into_one_folder_are_refused(hub, get):
    started, resume = threading.Event(), threading.Event()

    def hold():
        started.set()
        resume.wait(10)

    first = threading.Thread(target=lambda: get(check=hold))
    first.start()
    assert started.wait(10)
    with pytest.raises(DownloadError, match="under way"):
        get()
    resume.set()
    first.join()
    assert get().is_dir()


def test_a_response_that_is_not_a_hubs(get, hub):
    with pytest.raises(DownloadError):
        get("modelscope", endpoint=hub.url + "/nowhere")


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("source", "elsewhere", "modelscope"),
        ("revision", "", "revision"),
        ("revision", "a\0b", "revision"),
        ("revision", "\udcff", "revision"),
    ],
)
def test_options_out_of_range(tmp_path, option, value, word):
    with pytest.raises(BadOption, match=word):
        library.download(REPO, tmp_path, **{option: value})


ADDRESSES = {
    "empty": "",
    "no scheme": "hub.example.com",
    "no scheme but a port": "localhost:8000",
    "no host": "https://",
    "only a path": "https:///models",
    "file": "file:///etc/passwd",
    "ftp": "ftp://hub.example.com",
    "blank": "https://hub example.com",
    "blank before": " https://hub.example.com",
    "line break": "https://hub.example.com\n",
    "NUL": "https://hub.example.com/\0",
    "bytes that are no text": "https://hub.example.com/\udcff",
    "backslash": "https:\\\\hub.example.com",
    "port in words": "https://hub.example.com:http",
    "port too high": "https://hub.example.com:99999",
    "half an IPv6 address": "http://[::1",
    "question": "https://hub.example.com?x=1",
    "fragment": "https://hub.example.com#x",
    "no address": "🙂",
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_an_endpoint_that_is_no_web_address(get, tmp_path, source, address):
    with pytest.raises(BadOption, match=r"The endpoint .* is no web address") as caught:
        get(source, endpoint=address)
    assert repr(address) in str(caught.value)
    assert not (tmp_path / "models").exists()


def test_a_variable_that_is_no_web_address_is_named(monkeypatch):
    with pytest.raises(BadOption, match="variable HF_ENDPOINT 'elsewhere'"):
        _hub_of_variable(monkeypatch, "elsewhere").listing(REPO, None)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("address", ["https://me:pass@hub.example.com", "https://pass@hub"])
def test_a_password_in_an_address_is_refused_and_not_shown(get, source, address):
    with pytest.raises(BadOption, match="password") as caught:
        get(source, endpoint=address)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://[::1]:9", "http://hub.invalid", "http://..", "http://a..b:80"]
)
@pytest.mark.parametrize("source", SOURCES)
def test_an_address_that_does_not_respond(get, monkeypatch, source, address):
    with pytest.raises(DownloadError, match="cannot be reached at"):
        get(source, endpoint=address)


def test_the_listing_is_pinned_to_its_commit(hub, get):
    from qwen_vl_suite.qwenvl.checkpoints.hubs import hub_for

    listing = hub_for("huggingface", endpoint=hub.url).listing(REPO, "main")
    assert listing.revision == COMMIT


def test_every_error_is_the_engines():
    assert issubclass(DownloadError, QwenVLError)


def files_in(folder):
    """The files of a model's folder, by path, without the receipt and the lock of the download."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".download")
    }


def corrupt(path, *, keep_time=False):
    """Changes the content, not the size; with ``keep_time``, as a bad disk does, nor the time."""
    before = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.mark.parametrize("name", [BIG, "config.json", "tokenizer.json"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_changed_file_of_equal_size_is_fetched_again(hub, get, source, name, caplog):
    folder = get(source)
    corrupt(folder / name)
    hub.files()
    get(source)
    assert hub.files() == [name]
    assert (folder / name).read_bytes() == contents()[name]
    assert f"{name} differs" in caplog.text


@pytest.mark.parametrize("source", SOURCES)
def test_verify_finds_what_changed_with_its_old_time(hub, get, source):
    folder = get(source)
    corrupt(folder / BIG, keep_time=True)
    hub.files()
    get(source)
    assert hub.files() == []
    get(source, verify=True)
    assert hub.files() == [BIG]
    assert (folder / BIG).read_bytes() == contents()[BIG]
    get(source, verify=True)
    assert hub.files() == []


def test_verify_warns_of_what_it_could_not_verify(hub, get, monkeypatch, caplog):
    monkeypatch.setattr("qwen_vl_suite.qwenvl.checkpoints.hubs._SHA1", re.compile("none"))
    get()
    assert not caplog.records
    get(verify=True)
    assert "config.json: the hub tells no checksum" in caplog.text
    assert BIG not in caplog.text


def test_what_was_hashed_once_is_not_hashed_again(get, monkeypatch):
    folder = get()
    (folder / ".download.json").unlink()
    get()
    for module in (download, transfer):
        monkeypatch.setattr(module, "matches_checksum", lambda *_: pytest.fail("read again"))
    get()


def newer():
    """A later revision: one weight file instead of two, another config of equal size, one file
    fewer and one more."""
    whole = files({**CONFIG, "model_type": "qwen2_vl"}, sharded=False)
    del whole["tokenizer_config.json"]
    whole["model.safetensors"] = safetensors({"a.weight": 3_000_000})
    assert len(whole["config.json"]) == len(contents()["config.json"])
    return {**whole, "chat_template.jinja": b"{{ newer }}"}


LATER = "f" * 40


@pytest.fixture
def outdated(hub, get):
    """A folder of the old revision, while the hub has a newer one."""
    hub.repos[REPO] = contents()
    folder = get()
    hub.repos[REPO], hub.commit = newer(), LATER
    hub.files()
    return folder


def test_a_newer_revision_replaces_the_old_one(get, outdated):
    assert Receipt.read(outdated).revision == COMMIT
    get()
    assert files_in(outdated) == newer()
    assert Receipt.read(outdated).revision == LATER


def test_files_equal_in_two_revisions_are_not_fetched_again(hub, get, outdated):
    get()
    same = {name for name, content in contents().items() if newer().get(name) == content}
    assert same and not same & set(hub.files())


def test_files_of_other_origin_stay_and_weights_among_them_are_named(get, outdated, caplog):
    others = {"notes.json": b"{}", "adapter_model.safetensors": b"x"}
    write(outdated, others)
    get()
    assert files_in(outdated) == {**newer(), **others}
    assert "not of this repository: adapter_model.safetensors" in caplog.text


def test_without_a_receipt_contents_decide(hub, get, outdated):
    (outdated / ".download.json").unlink()
    with pytest.raises(UnsupportedModel, match=r"model\.safetensors and the shards .* which"):
        get()  # it cannot be told where the old shards come from
    assert files_in(outdated).items() >= newer().items()


def test_a_repository_of_the_same_name_does_not_mix_with_another(hub, get, outdated):
    hub.repos = {"Other/Tiny-VL": newer()}
    assert get(repo="Other/Tiny-VL") == outdated
    assert files_in(outdated) == newer()


def test_cancelling_a_new_revision_leaves_the_old_one_whole(get, outdated):
    cancel(get, Stop)
    left = {name: c for name, c in files_in(outdated).items() if not name.endswith(".part")}
    assert left == contents()
    assert inspection.inspect(outdated).problem == ""
    get()
    assert files_in(outdated) == newer()


@pytest.mark.parametrize("turn", range(8))
def test_failing_during_the_exchange_leaves_one_revision_or_none(get, outdated, monkeypatch, turn):
    """A power failure, a file that another program holds open: at every step."""
    turns = iter(range(100))
    plain = {"replace": os.replace, "unlink": Path.unlink}

    def failing(name):
        def step(first, *rest, **options):
            if ".download" not in str(first) and next(turns) == turn:
                raise PermissionError(13, "in use")
            return plain[name](first, *rest, **options)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(download.os, "replace", failing("replace"))
        patched.setattr(Path, "unlink", failing("unlink"))
        with pytest.raises(DownloadError, match="cannot be written"):
            get()
    left = {name: c for name, c in files_in(outdated).items() if not name.endswith(".part")}
    if "config.json" in left:
        assert left in (contents(), newer())
    get()
    assert files_in(outdated) == newer()


def test_failing_during_the_exchange_with_an_unchanged_config(hub, get, monkeypatch):
    hub.repos[REPO] = contents()
    folder = get()
    hub.repos[REPO] = {**contents(), BIG: safetensors({"c.weight": 3_000_002})}

    def fail(*_):
        raise PermissionError(13, "in use")

    with monkeypatch.context() as patched:
        patched.setattr(download, "_install", fail)
        with pytest.raises(DownloadError, match="cannot be written"):
            get()
    assert not (folder / "config.json").exists()
    hub.files()
    get()
    assert hub.files() == []
    assert files_in(folder) == hub.repos[REPO]


@pytest.mark.parametrize(
    "receipt",
    [
        b"",
        b"[" * 100_000,
        b"[]",
        b"\xff",
        b'{"files": 3}',
        b'{"files": {"config.json": 3}}',
        b'{"files": {}, "other": 1}',
        json.dumps(
            {"files": {"../../evil.json": {"checksum": "git:1", "size": 1, "mtime_ns": 1}}}
        ).encode(),
    ],
    ids=lambda content: repr(content[:40]),
)
def test_an_unreadable_receipt_only_costs_time(get, tmp_path, receipt):
    folder = get()
    (folder / ".download.json").write_bytes(receipt)
    write(tmp_path, {"evil.json": b"mine"})
    get()
    assert (tmp_path / "evil.json").exists()
    assert files_in(folder) == {**contents(), "additional/chat_template.jinja": b"{{ messages }}"}


def test_the_command_line_verifies_and_prints_the_revision(hub, get, tmp_path, capsys):
    folder = get()
    corrupt(folder / BIG, keep_time=True)
    command = ["download", REPO, "--root", str(folder.parent), "--endpoint", hub.url, "--json"]
    assert not main([*command, "--verify"])
    assert (folder / BIG).read_bytes() == contents()[BIG]
    assert json.loads(capsys.readouterr().out) == {"path": str(folder), "revision": COMMIT}
