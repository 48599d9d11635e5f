"""A small detection service: the bytes of a picture in, JSON out.

    pip install fastapi uvicorn
    python examples/serve.py --weights best.onnx --port 8000
    curl --data-binary @picture.jpg http://127.0.0.1:8000/detect

``--weights`` is a checkpoint or an exported file. ``POST /detect`` answers with ``width``, ``height``, ``detections``:
for each ``name``, ``class``, ``confidence`` and ``box`` (x1, y1, x2, y2 in pixels of the picture). An error is
``{"detail": text}`` with status 400 (no picture) or 413 (too many bytes or pixels). ``GET /health`` names the classes.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.config.paths import ROOT
from utils.errors import InputError
from utils.inference import Predictor, input_size, open_weights
from utils.inference.uploads import TooLargeError, decode_upload

MAX_BYTES, MAX_PIXELS = 20 * 2**20, 50_000_000


def create_app(predictor: Predictor, model: str, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> FastAPI:
    """The service around a predictor; ``model`` is the name it gives itself."""
    app, one_at_a_time = FastAPI(title="detection"), threading.Lock()

    def find(content: bytes) -> dict[str, Any]:
        image = decode(content, max_pixels)
        with one_at_a_time:
            found = predictor(image)
        rows = []
        for *xyxy, confidence, kind in found.boxes.tolist():
            about = {"name": found.names[int(kind)], "class": int(kind), "confidence": round(confidence, 4)}
            rows.append({**about, "box": [round(side, 1) for side in xyxy]})
        return {"width": image.shape[1], "height": image.shape[0], "detections": rows}

    @app.get("/health")  # without a thread of its own: those may all wait for the model
    async def health() -> dict[str, Any]:
        return {"model": model, "classes": list(predictor.names)}

    @app.post("/detect")
    async def detect(request: Request) -> dict[str, Any]:
        content = bytearray()
        async for part in request.stream():  # counted while it arrives: nobody fills the memory
            content += part
            if len(content) > max_bytes:
                raise HTTPException(413, f"the picture has more than {max_bytes} bytes")
        return await run_in_threadpool(find, bytes(content))

    return app


def decode(content: bytes, max_pixels: int) -> np.ndarray:
    """Bytes of a picture file -> HWC BGR uint8; the size is read first: a small file cannot become a huge picture."""
    try:
        return decode_upload(content, max_pixels)
    except InputError as error:
        raise HTTPException(413 if isinstance(error, TooLargeError) else 400, str(error)) from error


def load(weights: str, imgsz: int | None, device: str, conf: float) -> Predictor:
    chosen = torch.device(device)
    model, _ = open_weights([weights], chosen, ROOT / "runs/train")
    return Predictor(model, chosen, input_size(model, (imgsz,) if imgsz else ()), conf=conf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="checkpoint or exported file")
    parser.add_argument("--imgsz", type=int, help="longest side of the network's input; none: that of --weights")
    parser.add_argument("--conf", type=float, default=0.25, help="drop detections below this confidence")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: every one of the machine")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    import uvicorn

    try:
        predictor = load(options.weights, options.imgsz, options.device, options.conf)
    except (InputError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    uvicorn.run(create_app(predictor, Path(options.weights).name), host=options.host, port=options.port)


if __name__ == "__main__":
    main()
