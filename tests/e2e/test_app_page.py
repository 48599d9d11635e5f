"""The web page in a real browser: opened, clicked, captured. Needs Chromium or Chrome on the PATH.

The browser is driven over a pipe by its own protocol (https://chromedevtools.github.io/devtools-protocol/), so nothing
else has to be installed. With APP_SCREENSHOTS=folder the images of the page are kept there.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
Scene = Callable[[int], np.ndarray]
PROGRAM = next(filter(None, map(shutil.which, PROGRAMS)), None)

fcntl = pytest.importorskip("fcntl")  # pipes as the browser wants them
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
if PROGRAM is None:
    pytest.skip("no Chromium on the PATH", allow_module_level=True)


class Browser:
    """One page of a headless Chromium.

    Attributes:
        events: everything it reported: requests, lines of the console, exceptions.
    """

    def __init__(self, program: str, profile: Path) -> None:
        here_in, there_out = os.pipe()
        there_in, here_out = os.pipe()
        for end in (there_in, there_out):  # out of the way of the numbers 3 and 4, which the browser expects
            os.set_inheritable(end, False)
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (there_in, there_out)]
        command = [program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        command += ["--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no other way

        def connect() -> None:
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(3, 4),
            preexec_fn=connect,
        )  # fmt: skip
        for end in (there_in, there_out, *high):
            os.close(end)
        self._in, self._out, self._rest, self._number = here_in, here_out, b"", 0
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self, seconds: float = 60) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], seconds)[0], "the browser says nothing"
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has gone"
            self._rest += part
        first, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression in the page is true."""
        end = time.monotonic() + seconds
        while not self.js(expression):
            assert time.monotonic() < end, (
                f"waited in vain for {expression}; the page: {self.js('document.body.innerText')}"
            )
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of an element."""
        self.js(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        box = self.js(f"(() => {{const b = document.querySelector({selector!r}).getBoundingClientRect(); "
                      "return [b.x + b.width / 2, b.y + b.height / 2]})()")  # fmt: skip
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str, code: int, times: int = 1) -> None:
        """A key of the keyboard."""
        for _ in range(times):
            for kind in ("rawKeyDown", "keyUp"):
                self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Put files into a file input."""
        found = self("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]["objectId"]
        self("DOM.setFileInputFiles", files=[str(file) for file in files], objectId=found)

    def window(self, width: int, height: int, dark: bool = False) -> None:
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self("Emulation.setEmulatedMedia", features=scheme)

    def screenshot(self, name: str = "") -> np.ndarray:
        """The window, HWC BGR; kept under ``name`` when asked for."""
        content = base64.b64decode(self("Page.captureScreenshot", format="png")["data"])
        if name and "APP_SCREENSHOTS" in os.environ:
            (Path(os.environ["APP_SCREENSHOTS"]) / f"{name}.png").write_bytes(content)
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)

    def of(self, method: str) -> list[dict[str, Any]]:
        """What was reported under this name."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._session = {}
            self("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)


@pytest.fixture(scope="module")
def address(lively_weights: Path) -> Iterator[str]:
    """Of the running program; at the end Ctrl-C has to end it with code 0."""
    command = [sys.executable, "-m", "tools.app", "--weights", str(lively_weights), "--imgsz", "96", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--port", "0"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("open "):
            break
    else:
        pytest.fail("".join(lines))
    yield line.split()[1]
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert (process.returncode, rest.splitlines()) == (0, ["ended"])


@pytest.fixture
def browser(address: str, tmp_path: Path) -> Iterator[Browser]:
    """At the page, and at the end: nobody else was asked for anything, and nothing went wrong."""
    assert PROGRAM is not None
    found = Browser(PROGRAM, tmp_path / "profile")
    try:
        found.window(1280, 900)
        found("Page.navigate", url=address)
        found.until("document.body && document.body.dataset.ready === 'yes'")
        yield found
        asked = [event["request"]["url"] for event in found.of("Network.requestWillBeSent")]
        assert {url for url in asked if not url.startswith((address, "data:", "about:", f"blob:{address}"))} == set()
        assert any("api/model" in url for url in asked)
        entries = found.js("performance.getEntriesByType('resource').map(entry => entry.name)")
        assert all(entry.startswith((address, "data:")) for entry in entries)
    finally:
        found.close()


def quiet(browser: Browser) -> None:
    """No line in the console, no exception."""
    assert browser.of("Runtime.exceptionThrown") == []
    assert browser.of("Runtime.consoleAPICalled") == []
    assert [event["entry"] for event in browser.of("Log.entryAdded") if event["entry"]["level"] != "verbose"] == []


@pytest.fixture(scope="session")
def scene(blurred_noise: Callable[..., np.ndarray]) -> Scene:
    """``scene(seed)``: an image of 180 x 120 pixels."""
    return lambda seed: blurred_noise(seed, (120, 180))


@pytest.fixture
def images(tmp_path: Path, scene: Scene) -> list[Path]:
    files = [tmp_path / "first.png", tmp_path / "zweites Bild ü.png"]
    for seed, file in enumerate(files):
        file.write_bytes(cv2.imencode(".png", scene(seed))[1].tobytes())
    return files


@pytest.fixture(scope="module")
def found_at(lively_weights: Path) -> Callable[..., list[list[float]]]:
    """``found_at(image, conf)``: the boxes of detect.py."""
    import torch

    from utils.checkpoint import load_model
    from utils.inference import Predictor, Thresholds

    predictor = Predictor(load_model(lively_weights)[0], torch.device("cpu"), 96)

    def find(image: np.ndarray, conf: float) -> list[list[float]]:
        predictor.thresholds = Thresholds(conf)
        rows: list[list[float]] = predictor(image).boxes.tolist()
        return rows

    return find


def shown(browser: Browser) -> list[list[str]]:
    """The rows of the table."""
    rows: list[list[str]] = browser.js(
        "[...document.querySelectorAll('#detections tbody tr')].map(row => [...row.cells].map(c => c.textContent))"
    )
    return rows


def as_shown(boxes: list[list[float]]) -> list[list[str]]:
    """Boxes as the table writes them. Halves are rounded up there."""
    return [
        [("ant", "bee")[int(kind)], f"{conf:.3f}", ", ".join(str(int(np.floor(side + 0.5))) for side in xyxy)]
        for *xyxy, conf, kind in boxes
    ]


def assert_table_is(browser: Browser, boxes: list[list[float]]) -> None:
    browser.until(f"document.getElementById('count').dataset.count === '{len(boxes)}'")
    got, expected = shown(browser), as_shown(boxes)
    assert [row[0] for row in got] == [row[0] for row in expected][:300]
    assert [float(row[1]) for row in got] == pytest.approx([float(row[1]) for row in expected][:300], abs=1.1e-3)
    assert [row[2] for row in got] == [row[2] for row in expected][:300]


def test_images_thresholds_and_kernels(
    browser: Browser, images: list[Path], scene: Scene, found_at: Callable[..., list[list[float]]]
) -> None:
    browser.choose("#files", images)
    assert_table_is(browser, found_at(scene(0), 0.25))

    # The slider, by the keyboard: every step of 0.01 gives what detect.py gives.
    browser.js("document.getElementById('conf').focus()")
    counts = {len(found_at(scene(0), 0.25))}
    for conf in (0.26, 0.27, 0.28):
        browser.press("ArrowRight", 39)
        expected = found_at(scene(0), conf)
        assert browser.js("+document.getElementById('conf').dataset.value") == conf
        assert_table_is(browser, expected)
        counts.add(len(expected))
    assert len(counts) > 1, "the image is too easy for this test"
    assert min(counts) > 0

    # The other image, by the mouse, has its own boxes at the moved threshold.
    browser.until("[...document.querySelectorAll('#items button')].every(one => one.textContent.includes('objects'))")
    browser.click("#items li:nth-child(2) button")
    assert_table_is(browser, found_at(scene(1), 0.28))
    weights = browser.js("[...document.querySelectorAll('.layer')].map(one => [one.dataset.layer, "
                         "[...one.querySelectorAll('[data-weight]')].map(part => +part.dataset.weight)])")  # fmt: skip
    assert [name for name, _ in weights] == ["10", "14"]
    assert all(len(parts) == 4 and sum(parts) == pytest.approx(1, abs=1e-5) for _, parts in weights)
    widths = browser.js(
        "[...document.querySelectorAll('.layer:first-child .stack span')].map(one => "
        "one.getBoundingClientRect().width / one.parentElement.getBoundingClientRect().width)"
    )
    assert widths == pytest.approx(weights[0][1], abs=0.01)
    quiet(browser)


def test_the_canvas_has_the_colour_of_the_class_where_the_best_box_is(
    browser: Browser, images: list[Path], scene: Scene, found_at: Callable[..., list[list[float]]]
) -> None:
    from utils.plots.annotate import color_for

    browser.choose("#files", images[:1])
    boxes = found_at(scene(0), 0.25)
    assert_table_is(browser, boxes)
    browser.until("document.getElementById('canvas').dataset.scale")
    scale = browser.js("+document.getElementById('canvas').dataset.scale")
    x1, _, x2, y2, _, kind = boxes[0]
    x, y = round((x1 + x2) / 2 * scale), min(y2 * scale, 120 * scale - 1)  # the middle of its lower edge
    pixels = browser.js(
        "(() => {const canvas = document.getElementById('canvas');"
        f"return [...canvas.getContext('2d').getImageData({x}, {int(y) - 2}, 1, 5).data]}})()"
    )
    column = [tuple(pixels[i : i + 3]) for i in range(0, 20, 4)]
    assert color_for(int(kind))[::-1] in column
    assert color_for(int(kind))[::-1] != tuple(scene(0)[int(y2) - 1, int((x1 + x2) / 2), ::-1])
    image = browser.screenshot("boxes")
    assert image.shape == (900, 1280, 3)
    near = np.abs(image.astype(int) - color_for(int(kind))).max(2) < 8
    assert near.sum() > 100, "the colour of the class is nowhere in the window"
    quiet(browser)


def test_classes_labels_downloads_and_removal(
    browser: Browser, images: list[Path], scene: Scene, found_at: Callable[..., list[list[float]]], tmp_path: Path
) -> None:
    browser("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "got"))
    browser.choose("#files", images[:1])
    boxes = found_at(scene(0), 0.25)
    assert_table_is(browser, boxes)
    browser.click("#class-filter summary")
    browser.click("#classes li:nth-child(1) input")  # only "bee" is left
    bees = [box for box in boxes if box[5] == 1]
    assert 0 < len(bees) < len(boxes)
    assert_table_is(browser, bees)
    browser.click("#save-json")
    browser.click("#save-image")
    names = ["first-boxes.png", "first.json"]
    end = time.monotonic() + 30
    while not (tmp_path / "got").is_dir() or sorted(file.name for file in (tmp_path / "got").iterdir()) != names:
        browser.js("1")
        assert time.monotonic() < end, "the files did not come"
        time.sleep(0.1)
    saved = json.loads((tmp_path / "got/first.json").read_text(encoding="utf-8"))
    assert (saved["file"], saved["model"], saved["width"]) == ("first.png", "lively.pt", 180)
    assert [row["box_xyxy"] for row in saved["detections"]] == [box[:4] for box in bees]
    assert saved["thresholds"]["classes"] == "1"
    drawn = cv2.imread(str(tmp_path / "got/first-boxes.png"))
    assert drawn.shape == scene(0).shape
    assert np.abs(drawn.astype(int) - scene(0)).max() > 60
    browser.click("#remove")
    browser.until("document.getElementById('stage').hidden")
    assert shown(browser) == []
    quiet(browser)


def test_what_is_refused_stands_on_the_page(browser: Browser, images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image at all")
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    browser.choose("#files", [tmp_path / "broken.jpg", tmp_path / "broken.mp4", images[0]])
    browser.until("document.querySelectorAll('.problem').length === 2")
    text = browser.js("document.getElementById('problems').innerText")
    assert "broken.jpg: this is no image" in text
    assert "broken.mp4: this is no video" in text
    browser.click(".problem button")
    browser.until("document.querySelectorAll('.problem').length === 1")
    browser.click("#items li:nth-child(3) button")  # the good one is not disturbed
    browser.until("+document.getElementById('count').dataset.count > 0")
    assert browser.of("Runtime.exceptionThrown") == []


def test_a_video_is_worked_on_and_played(browser: Browser, tmp_path: Path, scene: Scene) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (180, 120))
    for seed in range(12):
        writer.write(scene(seed))
    writer.release()
    browser.choose("#files", [tmp_path / "film.avi"])
    browser.until("!document.getElementById('video').hidden && document.getElementById('video').readyState >= 2", 90)
    assert browser.js("document.getElementById('video').videoWidth") == 180
    assert browser.js("document.getElementById('video').duration") == pytest.approx(1.2, abs=0.15)
    assert re.search(r"film.avi: 12 frames, \d+ objects", browser.js("document.getElementById('summary').textContent"))
    courses = browser.js(
        "[...document.querySelectorAll('.course')].map(strip => "
        "[...strip.getContext('2d').getImageData(strip.width / 2, strip.height / 2, 1, 1).data][3])"
    )
    assert courses == [255, 255]  # painted
    browser.js("document.getElementById('video').play()")
    browser.until("document.getElementById('video').currentTime > 0.2")
    assert browser.js("document.getElementById('again').hidden")
    browser.click("#agnostic")
    browser.until("!document.getElementById('again').hidden")
    browser.click("#again")
    browser.until("document.getElementById('again').hidden")
    browser.until("!document.getElementById('video').hidden && document.getElementById('video').readyState >= 2", 90)
    browser.screenshot("video")
    quiet(browser)


def test_a_video_can_be_cancelled_and_the_next_is_worked_on(browser: Browser, tmp_path: Path, scene: Scene) -> None:
    for name, frames in (("long.avi", 1000), ("short.avi", 3)):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter.fourcc(*"MJPG"), 10, (180, 120))
        for seed in range(frames):
            writer.write(scene(seed % 8))
        writer.release()
    browser.choose("#files", [tmp_path / "long.avi", tmp_path / "short.avi"])
    browser.until("/frame [1-9]\\d* of 1000/.test(document.getElementById('progress-text').textContent)")
    browser.until(
        "!document.getElementById('preview').hidden && document.getElementById('preview').naturalWidth === 180"
    )
    browser.click("#cancel")
    browser.until("document.getElementById('summary').textContent === 'long.avi: cancelled'")
    # The page may ask for a frame just as the video ends.
    browser.js("window.late = new Image(); late.onerror = () => {late.title = 'none'}")
    browser.js("late.src = 'api/videos/0/preview'")
    browser.until("late.title === 'none'")
    browser.click("#items li:nth-child(2) button")
    browser.until("document.getElementById('summary').textContent.startsWith('short.avi: 3 frames')")
    quiet(browser)


def test_an_image_can_be_dropped_onto_the_page(
    browser: Browser, images: list[Path], scene: Scene, found_at: Callable[..., list[list[float]]]
) -> None:
    content = base64.b64encode(images[0].read_bytes()).decode()
    browser.js(
        f"(() => {{const bytes = Uint8Array.from(atob('{content}'), one => one.charCodeAt(0));"
        "const carried = new DataTransfer(); carried.items.add(new File([bytes], 'dropped.png', {type: 'image/png'}));"
        "const event = new DragEvent('drop', {dataTransfer: carried, bubbles: true, cancelable: true});"
        "document.body.dispatchEvent(event)})()"
    )
    assert_table_is(browser, found_at(scene(0), 0.25))
    assert browser.js("document.getElementById('summary').textContent").startswith("dropped.png: 180 × 120")
    quiet(browser)


def test_it_fits_narrow_windows_and_dark_ones(browser: Browser, images: list[Path]) -> None:
    browser.choose("#files", images)
    browser.until("+document.getElementById('count').dataset.count > 0")
    grounds = []
    for name, width, dark in (("wide", 1440, False), ("narrow", 390, False), ("dark", 1440, True)):
        browser.window(width, 900, dark)
        browser.until(f"window.innerWidth === {width}")
        assert browser.js("document.documentElement.scrollWidth") <= width, "something hangs out at the right"
        grounds.append(int(browser.screenshot(name)[-5:, :5].mean()))
    assert grounds[0] > 200
    assert grounds[2] < 60
    unnamed = browser.js(
        "[...document.querySelectorAll('input, button')].filter(one => !(one.labels?.length || "
        "one.textContent.trim() || one.getAttribute('aria-label'))).map(one => one.outerHTML)"
    )
    assert unnamed == []
    quiet(browser)
