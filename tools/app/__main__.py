"""A web page on this machine: open images or a video, move the thresholds, see which kernels dynamic layers use.

    pip install fastapi uvicorn
    python -m tools.app --weights runs/train/exp/weights/best.pt      # then open http://127.0.0.1:8000/

The page sends requests to this program only. Ctrl-C ends it, and all uploads are deleted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from pathlib import Path

from tools.app.connections import address_of, create_server, is_loopback, listen
from utils.config.app_options import AppOptions
from utils.config.cli import run_script
from utils.core.packages import import_optional

LOG = logging.getLogger(__name__)


def main(options: AppOptions) -> None:
    for package in ("fastapi", "uvicorn"):
        import_optional(package, package, "python -m tools.app")
    with listen(options.host, options.port) as listener:
        # Here and not above: torch takes seconds to import, and a port in use should be reported at once.
        from models.user_modules import load_modules
        from tools.app.model_thread import ModelThread, open_predictor
        from tools.app.server import create_app
        from tools.app.service import Limits, Service

        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # broken frames are counted, not reported one by one
        load_modules(options.modules)
        predictor, file = open_predictor(options)
        limits = Limits(upload=options.max_upload * 10**6, frames=options.max_frames)
        with (
            tempfile.TemporaryDirectory(prefix="yolov5-app-") as folder,
            ModelThread(predictor, file, options) as model,
            contextlib.closing(Service(model, Path(folder), limits)) as service,
            contextlib.suppress(KeyboardInterrupt),
        ):
            LOG.info("open %s in a browser; Ctrl-C ends it", address_of(listener))
            if not is_loopback(listener):
                LOG.warning("--host %s: everyone who reaches this machine can use the page", options.host)
            app = create_app(service, [options.host, *options.allow_host])
            create_server(app, service.stop_events).run(sockets=[listener])
    LOG.info("ended")


if __name__ == "__main__":
    sys.exit(run_script(main, AppOptions))
