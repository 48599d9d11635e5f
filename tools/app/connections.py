"""The connections of a server: where it listens, how many it keeps, and how long it waits for those that say nothing.

Uvicorn, the server, limits how many may be connected and how long a connection rests between two requests. Somebody who
connects and sends nothing, or half a header, or reads no answer, it would wait for without end: see :func:`serve`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from utils.core.errors import InputError
from utils.core.packages import import_optional

HEAD_S = 10.0  # from the connection, or the last answer, to the end of the next request's header
STALLED_S = 60.0  # an answer of which nothing is read any more; a video that pauses is asked for again by browsers
MOST = 256  # connections
_MOST_HEADER_BYTES = 16_384
_MOST_SECONDS_TO_END = 3


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        InputError: no such address here, or the port is taken or reserved.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host}: not an address of this machine ({error}); use 127.0.0.1") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # a port that was in use a moment ago is free; elsewhere this would take it from others
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(MOST)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"--port {port}: cannot listen at {host} there ({reason}); is another program using it? "
            "Choose another port, or 0 for any free one"
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """What to type into a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    host = str(listener.getsockname()[0])
    return host == "::1" or host.startswith("127.")


def serve(app: Any, listener: socket.socket, at_end: Callable[[], None] = lambda: None) -> None:
    """Answer until a signal comes; then raises KeyboardInterrupt, unless that signal was ignored before (``nohup``).

    ``at_end`` is called when the signal comes, while answers are still being sent.
    """
    server_of(app, at_end).run(sockets=[listener])


def server_of(app: Any, at_end: Callable[[], None] = lambda: None) -> Any:
    """The uvicorn server of :func:`serve`."""
    uvicorn = import_optional("uvicorn", "uvicorn", "a server")

    class Server(uvicorn.Server):  # type: ignore[name-defined]
        def handle_exit(self, sig: int, frame: Any) -> None:
            at_end()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app, http=_protocol(), ws="none", lifespan="off", log_config=None, log_level="error", access_log=False,
        server_header=False, limit_concurrency=MOST + 1, h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
        timeout_graceful_shutdown=_MOST_SECONDS_TO_END,
    )  # fmt: skip
    return Server(config)


def _protocol() -> type:
    """Uvicorn's connection with the time limits of this module."""
    base = import_optional("uvicorn.protocols.http.h11_impl", "uvicorn", "a server").H11Protocol

    class Connection(base):  # type: ignore[misc, valid-type]
        """Cut off when its header is late or its answer is not read; the longest idle one makes room for a new one."""

        head_due: asyncio.TimerHandle | None = None  # while no request is being answered
        read_due: asyncio.TimerHandle | None = None  # while nothing more can be sent

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._watch()
            if len(self.connections) > MOST:
                idle = [other for other in self.connections if other.head_due is not None and other is not self]
                if idle:
                    min(idle, key=lambda other: other.head_due.when()).transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self.head_due)
            _cancel(self.read_due)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.read_due = self.loop.call_later(STALLED_S, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self.read_due)
            self.read_due = None

        def _watch(self) -> None:
            answering = self.cycle is not None and not self.cycle.response_complete
            if answering:
                _cancel(self.head_due)
                self.head_due = None
            elif self.head_due is None:
                self.head_due = self.loop.call_later(HEAD_S, self.transport.abort)

    return Connection


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
