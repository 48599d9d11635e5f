"""Checks of every request, and security headers of every answer: only the page itself may use this program."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/?#\[\]]+)(?::\d+)?")
# data: is the icon. The page has no inline script or style, and loads nothing from other hosts.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware that answers requests of other pages with status 403.

    * The Host header must be an address, ``localhost`` or one of ``names``: a foreign page may let its own host name
      point at this machine ("DNS rebinding"), but then the header holds that name.
    * Paths that begin with ``private`` answer this page and programs other than browsers, but no page of another
      origin, also none of another port of this machine.
    """

    def __init__(self, app: Application, names: frozenset[str] = frozenset(), private: str = "/api/") -> None:
        self.app, self.names, self.private = app, {name.lower() for name in names} | {"localhost"}, private

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        problem = self.problem(scope["path"], headers)
        if not problem:
            await self.app(scope, receive, send_with_headers)
            return
        body = json.dumps({"detail": problem}).encode()
        kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send_with_headers({"type": "http.response.start", "status": 403, "headers": kind})
        await send_with_headers({"type": "http.response.body", "body": body})

    def problem(self, path: str, headers: MutableMapping[str, str]) -> str:
        """Return what is wrong with a request for ``path``, "" if nothing is."""
        host = headers.get("host", "")
        if not self._is_known(host):
            shown = host[:80].encode("ascii", "backslashreplace").decode()
            return f"the Host header '{shown}' is not this program; use its address, localhost, or --allow-host {shown}"
        if not path.startswith(self.private):
            return ""
        foreign = headers.get("origin", f"http://{host}") not in (f"http://{host}", f"https://{host}")
        if foreign or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "only the page of this program may send this request"
        return ""

    def _is_known(self, host: str) -> bool:
        parts = _HOST.fullmatch(host.lower())
        if parts is None:
            return False
        name = parts[1].strip("[]")
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True
