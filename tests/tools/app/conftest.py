"""The web page's service on the loopback, around untrained models that see objects everywhere."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch

from tools.app.model_thread import ModelThread
from tools.app.service import Limits, Service
from utils.config.app_options import AppOptions
from utils.inference import Predictor, Thresholds

SIZE = 96


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """A running service: ``site("/api/model")``, ``site("/api/images", content)``."""

    def __init__(self, service: Service, address: str) -> None:
        self.service, self.address = service, address
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def open(self, path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.address + path, body, named, method=method)
        return self._opener.open(request, timeout=60)

    def __call__(self, path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Answer:
        try:
            with self.open(path, body, method, **headers) as answer:
                return Answer(answer.status, answer.read(), {k.lower(): v for k, v in answer.headers.items()})
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read(), {k.lower(): v for k, v in error.headers.items()})

    def events(self, key: str) -> list[dict[str, Any]]:
        """All states of a video until it is done."""
        with self.open(f"/api/videos/{key}/events") as stream:
            lines = [line.decode() for line in stream]
        return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


@contextlib.contextmanager
def running(service: Service) -> Iterator[Site]:
    """The service, listening on this machine."""
    from tools.app.connections import create_server
    from tools.app.server import create_app

    server = create_server(create_app(service))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # who asks before the server runs waits
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Site(service, f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        service.close()
        server.should_exit = True
        thread.join(30)
        listener.close()


@pytest.fixture(scope="session")
def predictor_of(lively_model: Callable[..., Any]) -> Callable[..., Predictor]:
    """``predictor_of(cfg, conf=...)``: what detect.py would use for an untrained model."""

    def make(cfg: str = "yolov5n_dynamic.yaml", **limits: Any) -> Predictor:
        return Predictor(lively_model(cfg), torch.device("cpu"), SIZE, Thresholds(**limits))

    return make


@pytest.fixture(scope="session")
def start(predictor_of: Callable[..., Predictor]) -> Callable[..., contextlib.AbstractContextManager[Site]]:
    """``start(folder, cfg=..., limits=Limits())``: a running service, to be used in a ``with`` statement."""

    @contextlib.contextmanager
    def run(folder: Path, cfg: str = "yolov5n_dynamic.yaml", limits: Limits | None = None) -> Iterator[Site]:
        model = ModelThread(predictor_of(cfg), Path("tiny.pt"), AppOptions())
        with model, running(Service(model, folder, limits or Limits())) as site:
            yield site

    return run


@pytest.fixture(scope="module")
def site(
    start: Callable[..., contextlib.AbstractContextManager[Site]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A service with small limits: 300 KB, 20,000 pixels, 20 frames, 2 images kept, 2 videos at a time."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    small = Limits(upload=300_000, pixels=20_000, frames=20, images=2, waiting=2, videos=2, results=2)
    with start(tmp_path_factory.mktemp("videos"), limits=small) as running_site:
        yield running_site


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory, blurred_noise: Callable[..., np.ndarray]) -> Callable[..., bytes]:
    """``video(frames, hw)``: the bytes of a video whose frames differ."""
    folder = tmp_path_factory.mktemp("made")

    def make(frames: int = 8, hw: tuple[int, int] = (64, 96)) -> bytes:
        file = folder / f"{frames}_{hw[0]}.avi"
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10, hw[::-1])
        for number in range(frames):
            writer.write(blurred_noise(number, hw))
        writer.release()
        return file.read_bytes()

    return make


@pytest.fixture(scope="session")
def image_of(blurred_noise: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return blurred_noise


@pytest.fixture(scope="session")
def png_of() -> Callable[[np.ndarray], bytes]:
    """``png_of(image)``: the bytes of a file."""
    return lambda image: cv2.imencode(".png", image)[1].tobytes()
