"""Servers of strangers: what they send is bounded, and neither the key nor the questions go anywhere else."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.errors import UserError
from runner.probing import answer_limit, endpoint
from runner.probing.endpoint import Endpoint
from runner.probing.questions import Answer, Question
from tests.servers import Reply, chat, scripted

KEY = "sk-planted-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def asked_of(url: str, timeout_s: float = 5) -> Answer:
    return Endpoint(url, "m", timeout_s=timeout_s).generate([Question("hello")])[0]


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_redirect_is_not_followed_and_the_key_stays(status: int) -> None:
    with scripted(lambda _: chat("stolen")) as thief:
        away = Reply({}, status, headers={"location": thief.url + "/chat/completions"})
        with scripted(lambda _: away) as server:
            answer = asked_of(server.url)
            with pytest.raises(UserError, match="where neither the questions nor the key are sent"):
                Endpoint(server.url, "m").check()
        assert thief.asked == []
    assert answer.text == ""
    assert answer.error == (
        f"the server sends to {thief.url}/chat/completions, where neither the questions nor the key are sent"
    )


def test_an_answer_that_is_too_large_is_cut_and_an_error_of_its_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_limit, "MAX_ANSWER_BYTES", 2**20)
    with scripted(lambda asked: chat("a" * (2**21 if asked.body["seed"] == 1 else 5))) as server:
        large, small = Endpoint(server.url, "m", concurrency=1).generate([Question("a", seed=1), Question("b", seed=2)])
    assert (large.error, small.error, small.text) == ("an answer of more than 1 MB", "", "aaaaa")


def test_a_compressed_answer_is_not_unfolded() -> None:
    import gzip

    bomb = Reply(gzip.compress(b"a" * 2**24), headers={"content-encoding": "gzip"})
    with scripted(lambda _: bomb) as server:
        assert asked_of(server.url).error.startswith("an answer that is none in OpenAI's protocol")
        assert server.asked[0].headers["accept-encoding"] == "identity"


@contextmanager
def dripping(first: bytes, drop: bytes) -> Iterator[str]:
    """A server that sends `first`, then `drop` ten times a second, and never ends."""
    stopped = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(first)
                while not stopped.wait(0.1):
                    connection.sendall(drop)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)

        def accept() -> None:
            while not stopped.is_set():
                try:
                    connection, _ = listening.accept()
                except OSError:
                    continue
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            stopped.set()
            thread.join()


SLOW = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n"),
    "a body": (b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", b" "),
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
}


@pytest.mark.parametrize("what", SLOW)
def test_a_server_that_drips_is_not_waited_for(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_KNOCK_S", 0.4)
    with dripping(*SLOW[what]) as url:
        answer = asked_of(url, timeout_s=0.8)
        with pytest.raises(UserError, match="no whole answer within 0.8 s"):
            Endpoint(url, "m").check()
    assert answer.error == f"{url} gave no answer within 0.8 s"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"choices":' * 50_000,
        b"\xff\xfe\x00",
        b"null",
        b'{"choices": [{"finish_reason": 7}]}',
        b"1e999999",
    ],
    ids=["brackets", "braces", "bytes", "null", "a number", "a large number"],
)
def test_a_body_that_is_no_answer_is_an_error_of_its_question(body: bytes) -> None:
    for status in (200, 400):
        with scripted(lambda _, status=status: Reply(body, status)) as server:  # type: ignore[misc]
            assert asked_of(server.url).error


def test_a_certificate_that_nobody_has_signed_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    argv = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(argv.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    heard: list[bytes] = []

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    heard.append(secured.recv(65536))
            except OSError:
                continue

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        url = f"https://localhost:{listening.getsockname()[1]}/v1"
        with pytest.raises(UserError, match="certificate verify failed"):
            Endpoint(url, "m").check()
        listening.shutdown(socket.SHUT_RDWR)
    assert heard == []
