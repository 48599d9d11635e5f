"""A small detection service: the bytes of an image in, JSON out.

    pip install fastapi uvicorn
    python examples/serve.py --weights best.onnx --port 8000
    curl --data-binary @image.jpg http://127.0.0.1:8000/detect
    curl -F image=@image.jpg http://127.0.0.1:8000/detect            # as a form, as YOLOv5's own example takes it

``--weights`` is a checkpoint or an exported file. ``POST /detect`` answers with ``width``, ``height``, ``detections``:
for each ``name``, ``class``, ``confidence`` and ``box`` (x1, y1, x2, y2 in pixels, inside the image). An error is
``{"detail": text}`` with status 400 (no image), 403 (unknown host name, or a page of another site), 408 (too slow), 413
(too many bytes or pixels) or 503 (too many at a time). ``GET /health`` names the classes. For requests by a host name
and not by an address, such as ``http://detection:8000/``, give ``--allow-host detection``.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from email.message import Message
from pathlib import Path
from typing import IO, Any

import torch
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools.app.connections import address_of, create_server, listen
from tools.app.guard import Guard
from tools.app.uploads import RefusedError, UploadReceiver, UploadSlots, decode_upload, status_and_detail
from utils.core.errors import InputError, explain_error
from utils.inference import Predictor, Thresholds, input_size, open_weights

MAX_BYTES, MAX_PIXELS = 20 * 2**20, 50_000_000
AT_A_TIME = 8  # images in memory; further ones wait on disk
ALL_UPLOADS = 40 * MAX_BYTES  # bytes of uploads that are not complete
MAX_PARTS = 100  # of a form


def create_app(
    predictor: Predictor,
    model: str,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    names: Sequence[str] = (),
) -> FastAPI:
    """Return the service around a predictor.

    Args:
        predictor: the model.
        model: its name, for ``/health``.
        max_bytes, max_pixels: of an image.
        names: host names that are allowed besides addresses.
    """
    # FastAPI's own pages load scripts from another host, hence none.
    app = FastAPI(title="detection", docs_url=None, redoc_url=None, openapi_url=None)
    one_at_a_time = threading.Lock()
    uploads, slots = UploadReceiver(max_bytes, "this service", ALL_UPLOADS), UploadSlots(AT_A_TIME)

    def predict(content_type: str, file: IO[bytes]) -> dict[str, Any]:
        image = decode_upload(file_of(content_type, file.read()), max_pixels)
        with one_at_a_time:
            detections = predictor(image)
        rows = []
        for *box, confidence, kind in detections.boxes.tolist():
            label = {"name": detections.names[int(kind)], "class": int(kind), "confidence": round(confidence, 4)}
            rows.append({**label, "box": [round(side, 1) for side in box]})
        return {"width": image.shape[1], "height": image.shape[0], "detections": rows}

    @app.get("/health")  # without a thread: all of them may be waiting for the model
    async def health() -> dict[str, Any]:
        return {"model": model, "classes": list(predictor.names)}

    @app.post("/detect")
    async def detect(request: Request) -> dict[str, Any]:
        async with uploads.receive(request) as file, slots.slot():
            return await run_in_threadpool(predict, request.headers.get("content-type", ""), file)

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        status, detail = status_and_detail(error)
        return JSONResponse({"detail": detail}, status)

    for problem in (RefusedError, InputError, ClientDisconnect):
        app.add_exception_handler(problem, refuse)
    app.add_middleware(Guard, names=frozenset(names), private="/")
    return app


def file_of(content_type: str, body: bytes) -> bytes:
    """Return the one file of a form (``curl -F``); a body of any other type is the file itself.

    Raises:
        InputError: a form with no file, or with several.
    """
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        return body
    separator = b"\r\n--" + boundary.encode("ascii", "replace")
    parts = (b"\r\n" + body).split(separator, MAX_PARTS + 2)[1:-1]
    if len(parts) > MAX_PARTS:
        raise InputError(f"the form has more than {MAX_PARTS} parts; send one image: curl -F image=@image.jpg")
    heads_and_files = [part.partition(b"\r\n\r\n")[::2] for part in parts]
    files = [file for head, file in heads_and_files if b"filename" in head.lower()]
    if len(files) != 1:
        raise InputError(f"the form has {len(files)} files; send one image: curl -F image=@image.jpg")
    return files[0]


def load_predictor(weights: str, imgsz: int | None, device: str, conf: float) -> Predictor:
    chosen = torch.device(device)
    model, _ = open_weights([weights], chosen)
    return Predictor(model, chosen, input_size(model, (imgsz,) if imgsz else ()), Thresholds(conf))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="checkpoint or exported file")
    parser.add_argument("--imgsz", type=int, help="longest side of the network's input; none: that of --weights")
    parser.add_argument("--conf", type=float, default=0.25, help="drop detections below this confidence")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all of the machine")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--allow-host", nargs="+", default=[], help="further host names of this machine")
    options = parser.parse_args()
    try:
        with listen(options.host, options.port) as listener:
            predictor = load_predictor(options.weights, options.imgsz, options.device, options.conf)
            app = create_app(predictor, Path(options.weights).name, names=[options.host, *options.allow_host])
            print(f"answering at {address_of(listener)}detect; Ctrl-C ends it", flush=True)
            create_server(app).run(sockets=[listener])
    except KeyboardInterrupt:
        print("ended")
    except Exception as error:
        if not explain_error(error):
            raise
        sys.exit(f"error: {explain_error(error)}")


if __name__ == "__main__":
    main()
