"""The command ``python -m tools.app``: options, the address, its end; and who may ask."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.app.__main__ import main
from tools.app.connections import address_of, is_loopback, listen
from tools.app.guard import Guard
from utils.config.app_options import AppOptions
from utils.config.cli import parse, run_script
from utils.core.errors import InputError

ROOT = Path(__file__).resolve().parents[3]


def test_help_needs_neither_torch_nor_the_server() -> None:
    code = (
        "import sys, tools.app.__main__ as app; from utils.config.cli import build_parser\n"
        "build_parser(app.AppOptions).format_help()\n"
        "print([name for name in ('torch', 'cv2', 'numpy', 'PIL', 'fastapi', 'uvicorn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--port", "70000"], "--port 70000 is no port"),
        (["--conf-thres", "2"], "--conf-thres 2.0 is out of range"),
        (["--max-upload", "0"], "--max-upload 0 is too small"),
        (["--max-frames", "0"], "--max-frames 0 is too small"),
        (["--imgsz", "16"], "--imgsz 16 is too small"),
        (["--host", ""], "--host is given an empty text"),
        (["--wieghts", "a.pt"], "did you mean '--weights'"),
    ],
)
def test_impossible_options_are_refused(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(AppOptions, argv)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_a_missing_package_is_named_with_its_pip_line(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in ("fastapi", "uvicorn"):
        monkeypatch.setitem(sys.modules, needed, None if needed == package else sys)
    with pytest.raises(InputError, match=f"needs the package {package}: pip install {package}"):
        main(AppOptions())


def test_a_port_that_is_taken_is_named(caplog: pytest.LogCaptureFixture, log_handlers_restored: None) -> None:
    pytest.importorskip("fastapi")
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert run_script(main, AppOptions, ["--port", str(port)]) == 1
    assert f"--port {port}: cannot listen at 127.0.0.1" in caplog.text
    assert "Choose another port, or 0" in caplog.text


def test_a_file_of_layers_that_is_not_there_is_named(
    caplog: pytest.LogCaptureFixture, log_handlers_restored: None
) -> None:
    pytest.importorskip("fastapi")
    assert run_script(main, AppOptions, ["--port", "0", "--modules", "nowhere/layers.py"]) == 1
    assert "nowhere/layers.py" in caplog.text


def test_an_address_that_is_not_ours_is_named() -> None:
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(InputError, match=r"--host no such host|cannot listen at 192\.0\.2\.1"):
            listen(host, 0)


def test_the_address_to_open_is_one_that_a_browser_takes() -> None:
    with listen("0.0.0.0", 0) as everywhere, listen("127.0.0.1", 0) as here:
        assert address_of(everywhere) == f"http://127.0.0.1:{everywhere.getsockname()[1]}/"
        assert (is_loopback(everywhere), is_loopback(here)) == (False, True)


# --- who may ask -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "allowed"),
    [
        ("/", {"host": "127.0.0.1:8000"}, True),
        ("/", {"host": "localhost"}, True),
        ("/", {"host": "[::1]:8000"}, True),
        ("/", {"host": "mine.example:8000"}, True),
        ("/", {"host": "evil.example"}, False),
        ("/", {"host": "localhost.evil.example"}, False),
        ("/", {"host": "evil.example:80@localhost"}, False),
        ("/", {"host": "1.2.3.4.evil.example"}, False),
        ("/", {"host": "[broken"}, False),
        ("/", {}, False),
        ("/", {"host": "localhost", "sec-fetch-site": "cross-site"}, True),  # a link to the page
        ("/api/model", {"host": "localhost", "sec-fetch-site": "cross-site"}, False),
        ("/api/model", {"host": "localhost", "sec-fetch-site": "same-site"}, False),
        ("/api/model", {"host": "localhost", "sec-fetch-site": "same-origin"}, True),
        ("/api/model", {"host": "localhost:1", "origin": "http://localhost:1"}, True),
        ("/api/model", {"host": "localhost:1", "origin": "http://localhost:2"}, False),
        ("/api/model", {"host": "localhost:1", "origin": "null"}, False),
        ("/api/model", {"host": "localhost:1", "origin": "http://["}, False),
        ("/api/model", {"host": "localhost:1", "origin": "http://localhost:1.evil.example"}, False),
    ],
)
def test_only_the_page_itself_may_ask(path: str, headers: dict[str, str], allowed: bool) -> None:
    guard = Guard(None, frozenset({"mine.example"}))  # type: ignore[arg-type]
    assert (guard.problem(path, headers) == "") is allowed


def test_a_stranger_is_turned_away_and_every_answer_carries_the_policy(site: Any) -> None:
    refused = site("/api/model", Host="evil.example")
    assert (refused.status, "evil.example" in refused.json["detail"]) == (403, True)
    assert site("/api/images", b"-", Origin="http://evil.example").status == 403
    for path in ("/", "/style.css", "/app.js", "/api/model", "/api/nothing"):
        headers = site(path).headers
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_nothing_but_the_parts_of_the_page_can_be_fetched(site: Any) -> None:
    for path in ("/server.py", "/../server.py", "/%2e%2e/server.py", "/page/index.html", "/docs", "/openapi.json"):
        assert site(path).status == 404, path


def test_the_page_names_no_other_host_and_all_its_parts_are_there(site: Any) -> None:
    import re

    text = site("/").body.decode()
    parts = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', text)
    assert parts == ["style.css", "app.js"]
    for name in ("style.css", "app.js", "draw.js", "routing.js", "video.js"):
        part = site(f"/{name}")
        assert part.status == 200
        assert "charset=utf-8" in part.headers["content-type"]
        text += part.body.decode()
        for module in re.findall(r'from "\./([^"]+)"', part.body.decode()):
            assert site(f"/{module}").status == 200
    assert re.findall(r"https?://[\w.-]+", text) == ["http://www.w3.org"]  # the name space of the icon


# --- its end ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_in_the_middle_of_a_video(
    eager_weights: Path, tmp_path: Path, video: Callable[..., bytes], number: signal.Signals
) -> None:
    pytest.importorskip("fastapi")
    command = [sys.executable, "-m", "tools.app", "--weights", str(eager_weights), "--imgsz", "320", "--port", "0"]
    command += ["--device", "cpu", "--max-frames", "199", "--max-upload", "3", "--conf-thres", "0.4"]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = []
        while "open http" not in (line := process.stdout.readline()):
            lines.append(line)
            assert line, "".join(lines)
        address = line.split()[1]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{address}api/model", timeout=60) as answer:
            about = json.loads(answer.read())
        assert (about["max_upload"], about["start"]["conf"], about["imgsz"]) == (3_000_000, 0.4, [320, 320])
        with pytest.raises(urllib.error.HTTPError, match="413"):
            opener.open(urllib.request.Request(f"{address}api/videos", video(200), method="POST"), timeout=60)
        request = urllib.request.Request(f"{address}api/videos?stride=2", video(200), method="POST")
        with opener.open(request, timeout=60) as answer:
            key = json.loads(answer.read())["id"]
        with opener.open(f"{address}api/videos/{key}/events", timeout=60) as news:
            assert json.loads(news.readline()[6:])["status"] == "running"
            assert [path.name[:11] for path in tmp_path.iterdir()] == ["yolov5-app-"]
            before = time.monotonic()
            process.send_signal(number)
            rest = process.communicate(timeout=60)[0]
        assert time.monotonic() - before < 20
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, rest.splitlines()) == (0, ["ended"])
    assert list(tmp_path.iterdir()) == []


def test_a_socket_is_free_again_at_once(site: Any) -> None:
    with listen("127.0.0.1", 0) as first:
        place = first.getsockname()
        with socket.create_connection(place), first.accept()[0]:
            pass
    with listen("127.0.0.1", place[1]) as second:
        assert second.getsockname() == place
