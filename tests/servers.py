"""Servers of OpenAI's protocol on this machine: a real one, `transformers serve`, and one that does what it is told."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def transformers_serve(folder: Path) -> Iterator[str]:
    """The address of `transformers serve` for any checkpoint of this machine; `folder` takes its log and cache."""
    (folder / "hub").mkdir(parents=True)
    port = free_port()
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "HF_HUB_CACHE": str(folder / "hub"),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    argv = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, "--dtype", "float32", "--device", "cpu"], stdout=log, stderr=log, env=environment
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not start:\n{log.read_text(encoding='utf-8')}")


@dataclass
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Reply:
    """What a scripted server answers."""

    body: Any
    """Bytes as they are; everything else as JSON."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0


@dataclass
class Scripted:
    """A server that answers as its script says, and remembers what it was asked."""

    url: str
    asked: list[Asked]
    most_at_once: int = 0


def chat(text: str | None, finish_reason: str = "stop", **more: Any) -> Reply:
    """An ordinary answer; `more` goes beside the message, `reasoning` into it."""
    message = {"role": "assistant", "content": text}
    message.update({name: more.pop(name) for name in ("reasoning_content", "reasoning") if name in more})
    return Reply({"choices": [{"index": 0, "finish_reason": finish_reason, "message": message, **more}]})


def models(*names: str, owned_by: str = "me") -> Reply:
    """An answer of `/models`."""
    listed = [{"id": name, "object": "model", "created": 1, "owned_by": owned_by} for name in names]
    return Reply({"object": "list", "data": listed})


@contextmanager
def scripted(script: Callable[[Asked], Reply]) -> Iterator[Scripted]:
    """A server at a port of its own; `script` is called for every request, by many threads."""
    lock, at_once = threading.Lock(), 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            nonlocal at_once
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.path, headers, json.loads(content or "{}"))
            with lock:
                at_once += 1
                found.asked.append(asked)
                found.most_at_once = max(found.most_at_once, at_once)
            reply = script(asked)
            time.sleep(reply.after_s)
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            with lock:
                at_once -= 1
            try:
                self.send_response(reply.status)
                for name, value in {"content-type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the client did not wait

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        found = Scripted(f"http://127.0.0.1:{server.server_address[1]}/v1", [])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
