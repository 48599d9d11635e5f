"""A web page on this machine: drop pictures or a video, move the thresholds, see which kernels dynamic layers use.

    pip install fastapi uvicorn
    python -m tools.app --weights runs/train/exp/weights/best.pt      # then open http://127.0.0.1:8000/

The page asks nobody but this program for anything. Ctrl-C ends it, and what was uploaded is deleted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from pathlib import Path

from tools.app.connections import address_of, listen, loopback, serve
from utils.config.app_options import AppOptions
from utils.config.cli import run_script
from utils.core.packages import import_optional

LOG = logging.getLogger(__name__)
WHAT = "python -m tools.app"


def main(options: AppOptions) -> None:
    for package in ("fastapi", "uvicorn"):
        import_optional(package, package, WHAT)
    with listen(options.host, options.port) as listener:
        # Here and not above: torch takes seconds to import, and a port that is taken should be named at once.
        from models.user_modules import load_modules
        from tools.app.engine import Engine, open_predictor
        from tools.app.server import create_app
        from tools.app.service import Limits, Service

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
                    app = create_app(service, [options.host, *options.allow_host])
                    serve(app, listener, at_end=service.close_soon)
            finally:
                service.close()
    LOG.info("ended")


if __name__ == "__main__":
    sys.exit(run_script(main, AppOptions))
