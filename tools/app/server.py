"""The service over HTTP: addresses, bodies, errors. FastAPI is an optional package, so it is looked for when needed.

The page and its parts are at ``/``; ``/api/`` takes the bytes of files as bodies and answers with JSON. An error is
``{"detail": text}`` with a status from 400 on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import IO, Any

from tools.app.guard import Guard
from tools.app.service import UPLOAD, Service, whole_number
from tools.app.uploads import Places, RefusedError, Uploads, answer_to
from tools.app.video_job import TABLE, VideoJob
from utils.core.errors import InputError
from utils.core.packages import import_optional

LOG = logging.getLogger(__name__)
PAGE = Path(__file__).parent / "page"
PARTS = {  # the only files that are ever sent from here
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/draw.js": ("draw.js", "text/javascript; charset=utf-8"),
    "/routing.js": ("routing.js", "text/javascript; charset=utf-8"),
    "/video.js": ("video.js", "text/javascript; charset=utf-8"),
}
NEWS_S, SIGN_OF_LIFE_S = 0.2, 5.0  # how often a video is looked after, and something is sent in any case


def create_app(service: Service, names: Iterable[str] = ()) -> Any:
    """The ASGI application; ``names`` may stand in the Host header besides addresses."""
    fastapi = import_optional("fastapi", "fastapi", "tools.app")
    requests = import_optional("starlette.requests", "fastapi", "tools.app")
    # The pages that describe an interface are loaded from elsewhere, hence none.
    app = fastapi.FastAPI(title="yolov5", docs_url=None, redoc_url=None, openapi_url=None)
    calls = Calls(service)
    for path, (name, media_type) in PARTS.items():
        app.add_route(path, calls.part(name, media_type), methods=["GET"])
    app.add_route("/api/model", calls.model, methods=["GET"])
    app.add_route("/api/pictures", calls.add_picture, methods=["POST"])
    app.add_route("/api/pictures/{key}", calls.boxes, methods=["GET"])
    app.add_route("/api/pictures/{key}", calls.forget_picture, methods=["DELETE"])
    app.add_route("/api/png", calls.png, methods=["POST"])
    app.add_route("/api/videos", calls.add_video, methods=["POST"])
    app.add_route("/api/videos/{key}", calls.remove_video, methods=["DELETE"])
    app.add_route("/api/videos/{key}/news", calls.news, methods=["GET"])
    app.add_route("/api/videos/{key}/preview", calls.preview, methods=["GET"])
    app.add_route("/api/videos/{key}/result", calls.result, methods=["GET"])
    app.add_route("/api/videos/{key}/table", calls.table, methods=["GET"])
    for problem in (RefusedError, InputError, requests.ClientDisconnect, Exception):
        app.add_exception_handler(problem, calls.error)
    app.add_middleware(Guard, names=frozenset(names))
    return app


def _save(file: IO[bytes], path: Path) -> None:
    with path.open("wb") as stream:
        shutil.copyfileobj(file, stream)


class Calls:
    """A method per address: ``request`` -> answer."""

    def __init__(self, service: Service) -> None:
        self.service = service
        limits = service.limits
        self._uploads = Uploads(limits.upload, "--max-upload", limits.uploads, service.folder)
        self._places = Places(limits.waiting)
        self._answers = import_optional("fastapi.responses", "fastapi", "tools.app")
        self._in_thread = import_optional("fastapi.concurrency", "fastapi", "tools.app").run_in_threadpool

    def part(self, name: str, kind: str) -> Callable[[Any], Any]:
        """What answers with a file of the page."""

        async def send(request: Any) -> Any:
            return self._answers.FileResponse(PAGE / name, media_type=kind)

        return send

    async def model(self, request: Any) -> Any:
        return self._answers.JSONResponse(self.service.about())

    async def add_picture(self, request: Any) -> Any:
        limits = self.service.thresholds(request.query_params)
        async with self._uploads.receive(request) as file, self._places.one():
            found = await self._in_thread(self.service.add_picture, file.read(), limits)
        return self._answers.JSONResponse(found)

    async def boxes(self, request: Any) -> Any:
        limits = self.service.thresholds(request.query_params)
        found = await self._in_thread(self.service.boxes, request.path_params["key"], limits)
        return self._answers.JSONResponse(found)

    async def forget_picture(self, request: Any) -> Any:
        self.service.forget_picture(request.path_params["key"])
        return self._answers.JSONResponse({})

    async def png(self, request: Any) -> Any:
        async with self._uploads.receive(request) as file, self._places.one():
            content = await self._in_thread(self.service.as_png, file.read())
        return self._answers.Response(content, media_type="image/png")

    async def add_video(self, request: Any) -> Any:
        asked = request.query_params
        limits, stride = self.service.thresholds(asked), whole_number(asked, "stride", 1, 10_000)
        self.service.check_room()  # before a long upload; what counts is the room when it is complete
        async with self._uploads.receive(request) as file:
            with self.service.video_folder() as folder:
                await self._in_thread(_save, file, folder / UPLOAD)
                job = await self._in_thread(self.service.start_video, folder, limits, stride)
        return self._answers.JSONResponse({"id": job.key}, status_code=202)

    async def news(self, request: Any) -> Any:
        """The states of a video, as server-sent events, until it is done."""
        job = self._video(request)
        return self._answers.StreamingResponse(self._states(job), media_type="text/event-stream")

    async def _states(self, job: VideoJob) -> AsyncIterator[str]:
        with job.listening():
            last, silent = None, 0.0
            while not self.service.closing:
                state = job.state()
                if state != last:
                    yield f"data: {json.dumps(state)}\n\n"
                    last, silent = state, 0.0
                elif silent > SIGN_OF_LIFE_S:
                    yield ": still here\n\n"
                    silent = 0.0
                if state["status"] != "running":
                    break
                await asyncio.sleep(NEWS_S)
                silent += NEWS_S

    async def preview(self, request: Any) -> Any:
        job = self.service.find_video(request.path_params["key"])
        content = None if job is None else await self._in_thread(job.preview)
        if content is None:  # asked for by a page that has not heard of the end yet: nothing to see, no error
            return self._answers.Response(status_code=204)
        return self._answers.Response(content, media_type="image/jpeg")

    async def result(self, request: Any) -> Any:
        path = self._video(request).result
        if path is None:
            raise RefusedError(404, "the video is not done")
        kind = {".mp4": "video/mp4", ".webm": "video/webm"}[path.suffix]
        return self._answers.FileResponse(path, media_type=kind)

    async def table(self, request: Any) -> Any:
        job = self._video(request)
        if job.result is None:
            raise RefusedError(404, "the video is not done")
        return self._answers.FileResponse(job.folder / TABLE, media_type="application/json")

    async def remove_video(self, request: Any) -> Any:
        await self._in_thread(self.service.remove_video, request.path_params["key"])
        return self._answers.JSONResponse({})

    def _video(self, request: Any) -> VideoJob:
        return self.service.video(request.path_params["key"])

    async def error(self, request: Any, problem: Exception) -> Any:
        """What is wrong, as JSON. A bug is logged with its traceback by the server."""
        status, detail = answer_to(problem)
        return self._answers.JSONResponse({"detail": detail}, status_code=status)
