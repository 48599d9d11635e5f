"""The service over HTTP: addresses, bodies, errors. FastAPI is an optional package, so it is imported when needed.

The files of the page are at ``/``; ``/api/`` takes the bytes of files as bodies and answers with JSON. An error is
``{"detail": text}`` with a status from 400 on.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import IO, Any

from tools.app.guard import Guard
from tools.app.service import UPLOAD, Service, whole_number
from tools.app.uploads import RefusedError, UploadReceiver, UploadSlots, status_and_detail
from tools.app.video_job import TABLE, VideoJob
from utils.core.errors import InputError
from utils.core.packages import import_optional

PAGE = Path(__file__).parent / "page"
PAGE_FILES = {  # the only files that are sent from there
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in ("app", "draw", "routing", "video")},
}
STATE_S, KEEP_ALIVE_S = 0.2, 5.0  # how often the state of a video is read, and the longest pause of its events
Endpoint = Callable[[Any], Awaitable[Any]]


def create_app(service: Service, names: Iterable[str] = ()) -> Any:
    """Return the ASGI application; ``names`` are allowed in the Host header besides addresses."""
    fastapi = import_optional("fastapi", "fastapi", "tools.app")
    disconnect = import_optional("starlette.requests", "fastapi", "tools.app").ClientDisconnect
    # FastAPI's own pages load scripts from another host, hence none.
    app = fastapi.FastAPI(title="yolov5", docs_url=None, redoc_url=None, openapi_url=None)
    endpoints = Endpoints(service)
    for path, (name, media_type) in PAGE_FILES.items():
        app.add_route(path, endpoints.page_file(name, media_type), methods=["GET"])
    for method, path, endpoint in (
        ("GET", "model", endpoints.model),
        ("POST", "images", endpoints.add_image),
        ("GET", "images/{key}", endpoints.image_boxes),
        ("DELETE", "images/{key}", endpoints.remove_image),
        ("POST", "png", endpoints.png),
        ("POST", "videos", endpoints.add_video),
        ("DELETE", "videos/{key}", endpoints.remove_video),
        ("GET", "videos/{key}/events", endpoints.events),
        ("GET", "videos/{key}/preview", endpoints.preview),
        ("GET", "videos/{key}/result", endpoints.result),
        ("GET", "videos/{key}/table", endpoints.table),
    ):
        app.add_route(f"/api/{path}", endpoint, methods=[method])
    for problem in (RefusedError, InputError, disconnect, Exception):
        app.add_exception_handler(problem, endpoints.error)
    app.add_middleware(Guard, names=frozenset(names))
    return app


def _save(file: IO[bytes], path: Path) -> None:
    with path.open("wb") as stream:
        shutil.copyfileobj(file, stream)


class Endpoints:
    """A method per address: ``request`` -> answer."""

    def __init__(self, service: Service) -> None:
        self.service = service
        limits = service.limits
        self._uploads = UploadReceiver(limits.upload, "--max-upload", limits.uploads, service.folder)
        self._slots = UploadSlots(limits.waiting)
        self._responses = import_optional("fastapi.responses", "fastapi", "tools.app")
        self._in_thread = import_optional("fastapi.concurrency", "fastapi", "tools.app").run_in_threadpool

    def page_file(self, name: str, media_type: str) -> Endpoint:
        """Return the endpoint of one file of the page."""

        async def send(request: Any) -> Any:
            return self._responses.FileResponse(PAGE / name, media_type=media_type)

        return send

    async def model(self, request: Any) -> Any:
        return self._responses.JSONResponse(self.service.about())

    async def add_image(self, request: Any) -> Any:
        thresholds = self.service.thresholds(request.query_params)
        async with self._uploads.receive(request) as file, self._slots.slot():
            answer = await self._in_thread(self.service.add_image, file.read(), thresholds)
        return self._responses.JSONResponse(answer)

    async def image_boxes(self, request: Any) -> Any:
        thresholds = self.service.thresholds(request.query_params)
        answer = await self._in_thread(self.service.image_boxes, request.path_params["key"], thresholds)
        return self._responses.JSONResponse(answer)

    async def remove_image(self, request: Any) -> Any:
        self.service.remove_image(request.path_params["key"])
        return self._responses.JSONResponse({})

    async def png(self, request: Any) -> Any:
        async with self._uploads.receive(request) as file, self._slots.slot():
            content = await self._in_thread(self.service.as_png, file.read())
        return self._responses.Response(content, media_type="image/png")

    async def add_video(self, request: Any) -> Any:
        query = request.query_params
        thresholds, stride = self.service.thresholds(query), whole_number(query, "stride", 1, 10_000)
        self.service.check_video_limit()  # before a long upload; it is checked again when the upload is complete
        async with self._uploads.receive(request) as file:
            with self.service.video_folder() as folder:
                await self._in_thread(_save, file, folder / UPLOAD)
                job = await self._in_thread(self.service.start_video, folder, thresholds, stride)
        return self._responses.JSONResponse({"id": job.key}, status_code=202)

    async def events(self, request: Any) -> Any:
        """Send the states of a video, as server-sent events, until it is done."""
        return self._responses.StreamingResponse(self._states(self._job(request)), media_type="text/event-stream")

    async def _states(self, job: VideoJob) -> AsyncIterator[str]:
        with job.listening():
            last, silent = None, 0.0
            while not self.service.closing:
                state = job.state()
                if state != last:
                    yield f"data: {json.dumps(state)}\n\n"
                    last, silent = state, 0.0
                elif silent > KEEP_ALIVE_S:
                    yield ": keep alive\n\n"
                    silent = 0.0
                if state["status"] != "running":
                    break
                await asyncio.sleep(STATE_S)
                silent += STATE_S

    async def preview(self, request: Any) -> Any:
        try:
            content = await self._in_thread(self._job(request).preview)
        except RefusedError:  # requested by a page that does not know yet that the video has ended: no frame, no error
            content = None
        if content is None:
            return self._responses.Response(status_code=204)
        return self._responses.Response(content, media_type="image/jpeg")

    async def result(self, request: Any) -> Any:
        path = self._finished(request)
        kind = {".mp4": "video/mp4", ".webm": "video/webm"}[path.suffix]
        return self._responses.FileResponse(path, media_type=kind)

    async def table(self, request: Any) -> Any:
        return self._responses.FileResponse(self._finished(request).with_name(TABLE), media_type="application/json")

    async def remove_video(self, request: Any) -> Any:
        await self._in_thread(self.service.remove_video, request.path_params["key"])
        return self._responses.JSONResponse({})

    def _job(self, request: Any) -> VideoJob:
        return self.service.video(request.path_params["key"])

    def _finished(self, request: Any) -> Path:
        """Return the video with boxes. Raises RefusedError: it is not done."""
        path = self._job(request).result
        if path is None:
            raise RefusedError(404, "the video is not done")
        return path

    async def error(self, request: Any, problem: Exception) -> Any:
        """Answer with what is wrong, as JSON. The server logs a bug with its traceback."""
        status, detail = status_and_detail(problem)
        return self._responses.JSONResponse({"detail": detail}, status_code=status)
