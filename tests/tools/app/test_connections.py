"""Clients that are slow, silent or many: each is cut off in time, and none of them keeps others from an answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from tools.app import connections, uploads
from tools.app.guard import Guard

HEAD = b"POST /size HTTP/1.1\r\nHost: localhost\r\n"
Address = tuple[str, int]


def small_app(received: uploads.UploadReceiver) -> Any:
    """``POST /size`` answers with the length of the body, ``GET /much`` with 30 MB."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/size")
    async def size(request: Request) -> Any:
        async with received.receive(request) as file:
            return len(file.read())

    @app.get("/much")
    async def much() -> Any:
        return Response(b"x" * 30_000_000)

    async def refuse(request: Any, error: Any) -> Any:
        return JSONResponse({"detail": error.detail}, error.status)

    app.add_exception_handler(uploads.RefusedError, refuse)
    app.add_middleware(Guard, private="/")
    return app


@contextlib.contextmanager
def serving(app: Any) -> Iterator[Any]:
    """A running server, with its ``address``."""
    server = connections.create_server(app)
    with connections.listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            server.address = listener.getsockname()
            yield server
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> uploads.UploadReceiver:
    """Uploads of at most 100 kB, 250 kB in all, that have half a second and one more per 200 kB."""
    monkeypatch.setattr(uploads, "STALL_TIME_S", 0.5)
    monkeypatch.setattr(uploads, "MIN_BYTES_PER_S", 200_000)
    monkeypatch.setattr(connections, "HEADER_TIME_S", 0.4)
    monkeypatch.setattr(connections, "READ_TIME_S", 0.4)
    return uploads.UploadReceiver(100_000, "--most", 250_000)


@pytest.fixture
def address(received: uploads.UploadReceiver) -> Iterator[Address]:
    with serving(small_app(received)) as server:
        yield server.address


def ended(line: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    line.settimeout(20)
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while part := line.recv(1 << 16):
            content += part
    return content


def post(address: Address, body: bytes = b"12345") -> bytes:
    with socket.create_connection(address, timeout=20) as line:
        line.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return ended(line)


@pytest.mark.parametrize("sent", [b"", b"P", b"POST /si", HEAD, HEAD + b"X-Long: "])
def test_a_connection_without_a_whole_header_is_cut_off(address: Address, sent: bytes) -> None:
    with socket.create_connection(address) as line:
        line.sendall(sent)
        assert ended(line) == b""


def test_a_header_that_trickles_is_cut_off_as_well(address: Address) -> None:
    with socket.create_connection(address) as line, pytest.raises(OSError, match=r"."):
        for _ in range(400):
            line.sendall(b"P")
            time.sleep(0.05)


def test_the_second_header_of_a_connection_has_a_limit_too(address: Address) -> None:
    with socket.create_connection(address) as line:
        line.sendall(HEAD + b"Content-Length: 3\r\n\r\nabc")
        line.settimeout(20)
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 200")
        line.sendall(HEAD)
        assert ended(line) in (b"", b"3")  # of the first answer, and nothing more


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 90000\r\n\r\n0123456789", b"Transfer-Encoding: chunked\r\n\r\nff\r\n01"]
)
def test_a_body_that_stops_is_refused(address: Address, received: uploads.UploadReceiver, framing: bytes) -> None:
    with socket.create_connection(address) as line:
        line.sendall(HEAD + framing)
        answer = ended(line)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"too slow" in answer
    assert received.held == 0


def test_a_body_that_came_fast_may_stop_no_longer_than_another() -> None:
    class Burst:
        async def stream(self) -> AsyncIterator[bytes]:
            yield b"x" * 100_000_000  # as much as is fast enough for hours
            await asyncio.sleep(3600)

    async def upload() -> None:
        async with uploads.UploadReceiver(2 * 10**8, "--most", 10**9).receive(Burst()):
            pytest.fail("it never came to its end")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(uploads.RefusedError, match="too slow"):
        patch.setattr(uploads, "STALL_TIME_S", 0.1)
        asyncio.run(asyncio.wait_for(upload(), 30))


def test_a_body_that_trickles_is_refused_while_one_of_ordinary_speed_is_not(address: Address) -> None:
    with socket.create_connection(address) as line:
        line.sendall(HEAD + b"Content-Length: 90000\r\n\r\n")
        line.setblocking(False)
        for _ in range(400):
            with contextlib.suppress(BlockingIOError, OSError):
                line.send(b"x")
            with contextlib.suppress(BlockingIOError):
                assert line.recv(1 << 16).startswith(b"HTTP/1.1 408")
                break
            time.sleep(0.02)
        else:
            pytest.fail("the trickle was never refused")
    with socket.create_connection(address) as line:
        line.sendall(HEAD + b"Connection: close\r\nContent-Length: 90000\r\n\r\n")
        for _ in range(9):
            line.sendall(b"x" * 10_000)
            time.sleep(0.08)
        assert ended(line).endswith(b"90000")


def test_an_answer_that_nobody_reads_is_given_up(received: uploads.UploadReceiver) -> None:
    with serving(small_app(received)) as server, socket.create_connection(server.address) as line:
        line.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for wanted in (True, False):  # it is there, and then it is not
            end = time.monotonic() + 20
            while bool(server.server_state.connections) is not wanted:
                assert time.monotonic() < end
                time.sleep(0.01)


def test_uploads_on_their_way_have_a_limit_together(address: Address, received: uploads.UploadReceiver) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            line = stack.enter_context(socket.create_connection(address))
            line.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 99_000)
        end = time.monotonic() + 20
        while received.held < 190_000:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert b"HTTP/1.1 503" in post(address, b"x" * 99_000)
        assert post(address).endswith(b"\r\n\r\n5")
    assert b"413" in post(address, b"x" * 100_001)[:20]


def test_of_too_many_connections_the_longest_idle_one_makes_room(
    received: uploads.UploadReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_TIME_S", 60)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    with serving(small_app(received)) as server, contextlib.ExitStack() as stack:
        idle = []
        for _ in range(8):
            idle.append(stack.enter_context(socket.create_connection(server.address)))
            assert post(server.address).endswith(b"\r\n\r\n5")
        assert ended(idle[0]) == b""


KINDS: dict[str, Callable[[socket.socket], None]] = {
    "says nothing": lambda line: None,
    "part of a header": lambda line: line.sendall(b"POST /api/p"),
    "half a body": lambda line: line.sendall(
        b"POST /api/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000
    ),
    "half a video": lambda line: line.sendall(
        b"POST /api/videos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000
    ),
    "reads nothing": lambda line: line.sendall(b"GET /app.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20),
}


@pytest.mark.parametrize("kind", KINDS)
def test_beside_30_idle_clients_20_others_are_served(site: Any, image_of: Any, png_of: Any, kind: str) -> None:
    address = ("127.0.0.1", int(site.address.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            line = stack.enter_context(socket.create_connection(address))
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            KINDS[kind](line)
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda n: site("/api/images", png_of(image_of(n))), range(20)))
    assert {answer.status for answer in answers} == {200}
