"""The connections of a server: address, number, and time limits for clients that are slow or send nothing.

Uvicorn, the server, limits the number of connections and the pause between two requests. It has no limit for a client
that connects and sends nothing, sends part of a header, or does not read an answer: see :func:`create_server`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from utils.core.errors import InputError
from utils.core.packages import import_optional

HEADER_TIME_S = 10.0  # from the connection, or the last answer, to the end of the next request's header
READ_TIME_S = 60.0  # for an answer that is not read; browsers request the rest of a paused video again
MAX_CONNECTIONS = 256
_MAX_HEADER_BYTES = 16_384
_SHUTDOWN_TIME_S = 3


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address of this machine.

    Raises:
        InputError: no such address here, or the port is used or reserved.
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
        listener.listen(MAX_CONNECTIONS)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"--port {port}: cannot listen at {host} there ({reason}); is another program using it? "
            "Choose another port, or 0 for any free one"
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address to open in a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def is_loopback(listener: socket.socket) -> bool:
    """Return whether only this machine reaches the address."""
    host = str(listener.getsockname()[0])
    return host == "::1" or host.startswith("127.")


def create_server(app: Any, at_end: Callable[[], None] = lambda: None) -> Any:
    """Return a uvicorn server with the limits of this module; ``server.run(sockets=[listener])`` answers requests.

    ``run`` returns after a signal: it raises KeyboardInterrupt, unless that signal was ignored before (``nohup``).

    Args:
        app: ASGI application.
        at_end: called when the signal arrives, while answers are still being sent.
    """
    uvicorn = import_optional("uvicorn", "uvicorn", "a server")

    class Server(uvicorn.Server):  # type: ignore[name-defined]
        def handle_exit(self, sig: int, frame: Any) -> None:
            at_end()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        http=_connection_class(),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS + 1,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        timeout_graceful_shutdown=_SHUTDOWN_TIME_S,
    )
    return Server(config)


def _connection_class() -> type:
    """Return uvicorn's connection class with the time limits of this module."""
    base = import_optional("uvicorn.protocols.http.h11_impl", "uvicorn", "a server").H11Protocol

    class Connection(base):  # type: ignore[misc, valid-type]
        """Closed when its header is late or its answer is not read; the longest idle one is closed for a new one."""

        header_timer: asyncio.TimerHandle | None = None  # set while no request is being answered
        read_timer: asyncio.TimerHandle | None = None  # set while nothing more can be sent

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._update_header_timer()
            if len(self.connections) > MAX_CONNECTIONS:
                idle = [other for other in self.connections if other.header_timer is not None and other is not self]
                if idle:
                    min(idle, key=lambda other: other.header_timer.when()).transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self.header_timer, self.read_timer):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._update_header_timer()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._update_header_timer()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.read_timer = self.loop.call_later(READ_TIME_S, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.read_timer is not None:
                self.read_timer.cancel()
                self.read_timer = None

        def _update_header_timer(self) -> None:
            answering = self.cycle is not None and not self.cycle.response_complete
            if not answering and self.header_timer is None:
                self.header_timer = self.loop.call_later(HEADER_TIME_S, self.transport.abort)
            elif answering and self.header_timer is not None:
                self.header_timer.cancel()
                self.header_timer = None

    return Connection
