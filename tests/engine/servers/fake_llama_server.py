"""A stand-in for llama-server, run as a program: it answers as the real one does as to whether it
is ready, wants the key of its environment, and does what the file of its model says."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

arguments = sys.argv[1:]
options = dict(itertools.pairwise(arguments))
wish = Path(options["-m"]).read_bytes()
print("started with", json.dumps(arguments), flush=True)
KEY = f"Bearer {os.environ['LLAMA_API_KEY']}"

if b"<no memory>" in wish:
    print("ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory")
    sys.exit(1)
if b"<illegal>" in wish:
    os.kill(os.getpid(), 4)
if b"<port taken once>" in wish:
    mark = Path(options["-m"] + ".tried")
    if not mark.exists():
        mark.touch()
        print(f"couldn't bind HTTP server socket, port: {options['--port']}")
        sys.exit(1)

ready = time.monotonic() + (1e9 if b"<never ready>" in wish else 0.3)


class Handler(BaseHTTPRequestHandler):
    def answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        if self.path == "/health":
            is_ready = time.monotonic() > ready
            self.answer(200 if is_ready else 503, {"status": "ok" if is_ready else "loading"})
        elif self.path in ("/models", "/v1/models"):  # open to all, as /health
            self.answer(200, {"data": [{"id": "model", "owned_by": "llamacpp"}]})
        elif self.headers.get("Authorization") != KEY:
            self.answer(401, {"error": {"message": "Invalid API Key"}})
        else:
            self.answer(200, {"default_generation_settings": {}, "chat_template": ""})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != KEY:
            self.answer(401, {"error": {"message": "Invalid API Key"}})
            return
        if "end yourself" in json.dumps(body["messages"]):
            print("GGML_ASSERT(false) failed", flush=True)
            os._exit(1)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        answer = {"index": 0, "delta": {"content": f"I am {os.getpid()}."}, "finish_reason": "stop"}
        for chunk in ({"choices": [answer]}, {"choices": [], "usage": {"prompt_tokens": 9}}):
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer((options["--host"], int(options["--port"])), Handler).serve_forever()
