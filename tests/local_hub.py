"""A hub on this machine: data sets in a folder, behind as much of the hub's interface as reading them takes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    root: Path
    asked: list[str]

    def log_message(self, *_args: object) -> None:
        pass

    def _json(self, found: object, status: int = 200) -> None:
        self._bytes(json.dumps(found).encode(), status, {"Content-Type": "application/json"})

    def _bytes(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _files(self, name: str) -> list[Path]:
        return sorted(path for path in (self.root / name).rglob("*") if path.is_file())

    def _entry(self, name: str, path: Path) -> dict[str, object]:
        data = path.read_bytes()
        inside = path.relative_to(self.root / name).as_posix()
        return {"type": "file", "path": inside, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
            if not (self.root / name).is_dir():
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif rest[:1] == ["tree"]:
                self._json([self._entry(name, file) for file in self._files(name)])
            else:
                files = [{"rfilename": file.relative_to(self.root / name).as_posix()} for file in self._files(name)]
                self._json({"id": name, "sha": COMMIT, "siblings": files, "private": False, "tags": []})
        elif parts[0] == "datasets" and parts[3] == "resolve":
            file = self.root / parts[1] / parts[2] / "/".join(parts[5:])
            if file.is_file():
                data = file.read_bytes()
                self._bytes(data, 200, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
            else:
                self._bytes(b"", 404, {"X-Error-Code": "EntryNotFound"})
        else:
            self._bytes(b"", 404, {})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        path = unquote(urlparse(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(f"POST {path}")
        name = "/".join(path.strip("/").split("/")[2:4])
        if "/paths-info/" in path:
            try:
                wanted = json.loads(body)["paths"]
            except ValueError:
                wanted = parse_qs(body.decode())["paths"]
            files = (self.root / name / inside for inside in wanted)
            self._json([self._entry(name, file) for file in files if file.is_file()])
        else:
            self._bytes(b"", 404, {})


@contextmanager
def local_hub(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the data sets at root/OWNER/NAME; gives the address, for HF_ENDPOINT, and what was asked of it."""
    asked: list[str] = []
    handler = type("Hub", (_Hub,), {"root": root, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
