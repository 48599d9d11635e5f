"""A web page on this machine: drop pictures or a video, move the thresholds, see which kernels dynamic layers use.

    pip install fastapi uvicorn
    python -m utils.app --weights runs/train/exp/weights/best.pt      # then open http://127.0.0.1:8000/

The page asks nobody but this program for anything. Ctrl-C ends it, and what was uploaded is deleted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import tempfile
from pathlib import Path

from utils.config.app_options import AppOptions
from utils.config.cli import run_script
from utils.errors import InputError
from utils.packages import require

LOG = logging.getLogger(__name__)
WHAT = "python -m utils.app"


def main(options: AppOptions) -> None:
    for package in ("fastapi", "uvicorn"):
        require(package, package, WHAT)
    with listen(options.host, options.port) as listener:
        # Here and not above: torch takes seconds to import, and a port that is taken should be named at once.
        from models.user_modules import load_modules
        from utils.app.engine import Engine, open_predictor
        from utils.app.server import run_server
        from utils.app.service import Limits, Service

        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a broken frame is counted, not lamented
        load_modules(options.modules)
        predictor, file = open_predictor(options)
        limits = Limits(upload=options.max_upload * 10**6, frames=options.max_frames)
        with tempfile.TemporaryDirectory(prefix="yolov5-app-") as folder, Engine(predictor, file, options) as engine:
            service = Service(engine, Path(folder), limits)
            LOG.info("open %s in a browser; Ctrl-C ends it", address_of(listener))
            if not loopback(listener):
                LOG.warning("--host %s: everybody who reaches this machine can use the page", options.host)
            try:
                with contextlib.suppress(KeyboardInterrupt):
                    run_server(service, listener, options.host)
            finally:
                service.close()
    LOG.info("ended")


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
        listener.listen()
    except OSError as error:
        listener.close()
        raise InputError(
            f"--port {port}: cannot listen at {host} there ({error.strerror}); is another program using it? "
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


if __name__ == "__main__":
    sys.exit(run_script(main, AppOptions))
