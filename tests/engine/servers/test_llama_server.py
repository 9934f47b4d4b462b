"""llama-server as a process of ours: a stand-in for it is started, asked, ended and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from qwen_vl_suite.qwenvl.errors import OutOfMemory, Unavailable
from qwen_vl_suite.qwenvl.servers import llama_program, llama_server, loopback_port

FAKE = Path(__file__).with_name("fake_llama_server.py")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in is started by a shell")


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "llama-server"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def start(program, tmp_path):
    """``start("wish")``: a server whose model's file holds that."""
    started = []

    def begin(wish="", **options):
        model = tmp_path / "model.gguf"
        model.write_text(wish)
        log = tmp_path / "logs" / "llama-server.log"
        started.append(llama_server.start(program, ["-m", str(model)], log, **options))
        return started[-1]

    yield begin
    for server in started:
        server.stop()


def status(server, key):
    request = urllib.request.Request(server.url.removesuffix("/v1") + "/props")
    request.add_header("Authorization", f"Bearer {key}")
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code


def family(server):
    guard = psutil.Process(server.pid)
    return [guard, *guard.children(recursive=True)]


def test_it_answers_whoever_has_its_key_on_this_machine_alone(start):
    server = start()
    assert status(server, server.key) == 200
    assert status(server, "guessed") == 401
    said = server.log_file.read_text()
    assert '"--host", "127.0.0.1"' in said
    assert server.log_file.stat().st_mode & 0o077 == 0


def test_its_key_is_new_each_time_and_on_no_command_line(start):
    server, other = start(), start()
    assert server.key != other.key
    lines = [word for process in family(server) for word in process.cmdline()]
    assert lines and not any(server.key in word for word in lines)
    assert server.key not in server.log_file.read_text()


def test_it_is_gone_once_it_is_stopped(start):
    server = start()
    processes = family(server)
    server.stop()
    assert not any(process.is_running() for process in processes)
    assert not server.is_running


def test_it_does_not_outlive_a_process_that_is_killed(program, tmp_path):
    (tmp_path / "model.gguf").write_text("")
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from qwen_vl_suite.qwenvl.servers.llama_server import start\n"
        "server = start(Path(sys.argv[1]), ['-m', sys.argv[2]], Path(sys.argv[3]))\n"
        "import subprocess\n"
        "pipe = server._process.stdin.fileno()\n"  # as a fork of ComfyUI would hold it
        "keep = subprocess.Popen(['sleep', '60'], pass_fds=[pipe])\n"
        "print(server.pid, keep.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    given = [str(program), str(tmp_path / "model.gguf"), str(tmp_path / "log")]
    folder = Path(llama_server.__file__).parents[2].absolute()
    user = subprocess.Popen(
        [sys.executable, "-c", code, *given],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(_parent_of_pack(folder, tmp_path))},
    )
    guard, keeper = (psutil.Process(int(pid)) for pid in user.stdout.readline().split())
    processes = [guard, *guard.children(recursive=True)]
    assert len(processes) == 2
    user.kill()
    user.wait()
    _, alive = psutil.wait_procs(processes, timeout=20)
    keeper.kill()
    assert not alive


def test_it_ends_in_peace_though_another_process_holds_its_pipe(start):
    server = start()
    processes = family(server)
    pipe = server._process.stdin.fileno()
    with subprocess.Popen(["sleep", "60"], pass_fds=[pipe]) as keeper:
        server.stop()
        keeper.kill()
    assert server._process.returncode != -signal.SIGKILL
    assert not any(process.is_running() for process in processes)


def test_its_log_is_its_users_alone_and_no_link_is_followed(start, tmp_path):
    other = tmp_path / "other"
    other.write_text("keep")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "llama-server.log").symlink_to(other)
    server = start()
    assert other.read_text() == "keep"
    assert server.log_file.stat().st_mode & 0o077 == 0
    again = start()
    assert again.log_file.stat().st_mode & 0o077 == 0


def test_logs_of_many_commands_do_not_pile_up(tmp_path):
    for number in range(60):
        log_file = tmp_path / f"llama-server-model-{number}.log"
        log_file.write_text("said")
        os.utime(log_file, (now := time.time() - number, now))
    os.utime(tmp_path / "llama-server-model-3.log", (0, 0))
    (tmp_path / "mine.log").write_text("keep")
    llama_server.remove_old_logs(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    numbers = set(range(51)) - {3}
    assert left == {"mine.log", *(f"llama-server-model-{number}.log" for number in numbers)}


def test_it_gets_no_key_of_another_server(start, monkeypatch):
    monkeypatch.setenv("QWENVL_KEY_API_EXAMPLE_COM", "sk-secret")
    environ = family(start())[0].environ()
    assert "LLAMA_API_KEY" in environ and "QWENVL_KEY_API_EXAMPLE_COM" not in environ


def test_without_word_from_the_system_a_wrong_key_tells_whose_the_port_is(start, monkeypatch):
    def refuse(process):
        raise psutil.AccessDenied

    monkeypatch.setattr(loopback_port, "_sockets", refuse)
    server = start()
    assert loopback_port.is_owned(server.port, server.pid)
    monkeypatch.setattr(loopback_port, "status", lambda port, path, key="": 200)
    assert not loopback_port.is_owned(server.port, server.pid)  # one that takes any key


def _parent_of_pack(folder, tmp_path):
    parent = tmp_path / "packs"
    parent.mkdir()
    (parent / "qwen_vl_suite").symlink_to(folder)
    return parent


def test_it_does_not_outlive_its_guard(start):
    if sys.platform != "linux":
        pytest.skip("only the kernel of Linux does this")
    server = start()
    guard, child = family(server)
    guard.kill()
    _, alive = psutil.wait_procs([child], timeout=20)
    assert not alive


def test_a_port_that_was_taken_meanwhile_is_another_try(start):
    server = start("<port taken once>")
    assert status(server, server.key) == 200


ENDED = {
    "no memory": ("<no memory>", OutOfMemory, "smaller model.*out of memory"),
    "another processor": ("<illegal>", Unavailable, "another processor"),
}


@pytest.mark.parametrize("case", ENDED)
def test_one_that_ends_by_itself_is_an_error_with_its_last_words(start, case):
    wish, kind, words = ENDED[case]
    with pytest.raises(kind, match=f"(?s){words}") as raised:
        start(wish)
    assert "llama-server.log" in str(raised.value)


def test_waiting_for_it_can_be_stopped_and_ends_it(start, tmp_path):
    class Stopped(BaseException):
        pass

    seen = []

    def check():
        seen.extend(process.pid for process in psutil.Process().children(recursive=True))
        if len(seen) > 4:
            raise Stopped

    with pytest.raises(Stopped):
        start("<never ready>", check=check)
    assert not any(psutil.pid_exists(pid) for pid in seen)
    with pytest.raises(Unavailable, match=r"not ready within 0\.5 seconds"):
        start("<never ready>", timeout=0.5)


def test_the_program_is_found_or_it_is_said_how_to_get_it(program, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(program.parent))
    assert llama_program.find_program() == program
    assert llama_program.find_program(str(program)) == program
    monkeypatch.chdir(program.parent)
    monkeypatch.setenv("PATH", os.pathsep.join(["", ".", str(tmp_path / "nowhere")]))
    with pytest.raises(Unavailable, match=r"github.com/ggml-org/llama.cpp/releases"):
        llama_program.find_program()
    with pytest.raises(Unavailable, match="no program"):
        llama_program.find_program(str(tmp_path))


def test_the_guard_hands_on_how_the_program_ended():
    command = [sys.executable, "-c", "raise SystemExit(7)"]
    guard = [sys.executable, str(llama_server._GUARD), *command]
    with subprocess.Popen(guard, stdin=subprocess.PIPE) as process:
        assert process.wait() == 7
