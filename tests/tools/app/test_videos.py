"""Videos of the page: what comes out, what is refused, and that nothing stays behind."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tools.app import video_job
from tools.app.model_thread import ModelOutput, ModelThread
from tools.app.service import Limits, Service
from tools.app.uploads import looks_like_video
from utils.inference import Predictor

pytest.importorskip("fastapi")


def frames_of(path: Path) -> list[np.ndarray]:
    capture, images = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        images.append(read[1])
    return images


def folders(site: Any) -> list[Path]:
    return list(site.service.folder.iterdir())


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def slow(site: Any, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The model takes its time; set the event to let it go on."""
    go, predict = threading.Event(), site.service.model.predict

    def slowly(image: np.ndarray) -> ModelOutput:
        go.wait(0.15)
        found: ModelOutput = predict(image)
        return found

    monkeypatch.setattr(site.service.model, "predict", slowly)
    return go


def test_a_video_comes_back_with_boxes_table_and_routing(
    site: Any, video: Callable[..., bytes], tmp_path: Path, predictor_of: Callable[..., Predictor]
) -> None:
    content = video(8)
    key = site("/api/videos?conf=0.4&stride=2", content).json["id"]
    states = site.events(key)
    assert [state["status"] for state in states[:-1]] == ["running"] * (len(states) - 1)
    last = states[-1]
    assert (last["status"], last["frames"], last["total"], last["fps"], last["note"]) == ("done", 4, 4, 5.0, "")

    (tmp_path / "in.avi").write_bytes(content)
    images = frames_of(tmp_path / "in.avi")[::2]
    expected = [predictor_of(conf=0.4)(image).boxes for image in images]
    assert last["objects"] == sum(map(len, expected)) > 4
    table = site(f"/api/videos/{key}/table").json
    assert [(entry["file"], entry["frame"]) for entry in table] == [("video", n) for n in (1, 3, 5, 7)]
    for entry, boxes in zip(table, expected, strict=True):
        got = [[*row["box_xyxy"], row["confidence"], row["class"]] for row in entry["detections"]]
        np.testing.assert_allclose(np.reshape(got, (-1, 6)), boxes.numpy(), atol=6e-4)

    result = site(f"/api/videos/{key}/result")
    kind = result.headers["content-type"]
    assert kind in ("video/webm", "video/mp4")
    (tmp_path / "out").write_bytes(result.body)
    drawn = frames_of(tmp_path / "out")
    assert len(drawn) == 4
    assert np.abs(drawn[0].astype(int) - images[0]).max() > 100  # boxes
    part = site(f"/api/videos/{key}/result", Range="bytes=0-9")
    assert (part.status, part.body) == (206, result.body[:10])  # browsers jump about in it so

    assert {layer: len(points) for layer, points in last["course"].items()} == {"10": 4, "14": 4}
    for layer, weights in last["routing"].items():
        np.testing.assert_allclose(weights, np.mean(last["course"][layer], axis=0), atol=1e-6)
    assert [file.name for file in (site.service.folder / key).iterdir() if file.name == "upload"] == []
    assert site(f"/api/videos/{key}", method="DELETE").status == 200
    assert not (site.service.folder / key).exists()
    assert site(f"/api/videos/{key}/result").status == 404


def test_two_videos_at_a_time_do_not_disturb_each_other(site: Any, video: Callable[..., bytes]) -> None:
    alone = site.events(site("/api/videos", video(8)).json["id"])[-1]
    keys = [site("/api/videos", video(frames)).json["id"] for frames in (8, 6)]
    first, second = (site.events(key)[-1] for key in keys)
    assert first == alone
    assert (second["status"], second["frames"]) == ("done", 6)
    for key in keys:
        site(f"/api/videos/{key}", method="DELETE")


def test_while_it_is_in_work_there_are_previews_and_a_way_to_cancel(
    site: Any, video: Callable[..., bytes], slow: threading.Event
) -> None:
    before = folders(site)
    key = site("/api/videos", video(20)).json["id"]
    assert site(f"/api/videos/{key}/result").status == 404
    with site.open(f"/api/videos/{key}/events") as news:
        wait_until(lambda: site(f"/api/videos/{key}/preview").status == 200)
        shown = cv2.imdecode(np.frombuffer(site(f"/api/videos/{key}/preview").body, np.uint8), cv2.IMREAD_COLOR)
        assert shown.shape == (64, 96, 3)
        assert site(f"/api/videos/{key}", method="DELETE").status == 200
        states = [json.loads(line[6:]) for line in news.read().decode().splitlines() if line.startswith("data: ")]
    assert states[-1]["status"] == "cancelled"
    assert states[-1]["frames"] < 20
    assert folders(site) == before
    late = site(f"/api/videos/{key}/preview")  # asked for before the end was known: nothing to see, and no error
    assert (late.status, late.body) == (204, b"")


def test_a_video_ends_when_its_visitor_goes_away(
    site: Any, video: Callable[..., bytes], slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = site("/api/videos", video(20)).json["id"]
    job = site.service.video(key)
    with site.open(f"/api/videos/{key}/events") as news:
        news.readline()
        monkeypatch.setattr(video_job, "NO_LISTENER_S", 0.3)
        time.sleep(0.6)
        assert job.running  # somebody listens
    wait_until(lambda: not job.running)
    assert job.state()["status"] == "cancelled"
    assert list(job.folder.iterdir()) == []
    site(f"/api/videos/{key}", method="DELETE")


def test_more_videos_at_a_time_are_refused_and_old_results_make_room(
    site: Any, video: Callable[..., bytes], slow: threading.Event
) -> None:
    keys = [site("/api/videos", video(6)).json["id"] for _ in range(2)]
    answer = site("/api/videos", video(6))
    assert (answer.status, answer.json["detail"][:25]) == (503, "2 videos are being proces")
    slow.set()
    for _ in range(2):
        for key in keys:
            site.events(key)
        keys.append(site("/api/videos", video(6)).json["id"])
    site.events(keys[-1])
    kept = [site(f"/api/videos/{key}/result").status for key in keys]
    assert kept == [404, 200, 200, 200]  # two results, and the one that was in work when the first made room
    assert sorted(path.name for path in folders(site)) == sorted(keys[1:])
    for key in keys:
        site(f"/api/videos/{key}", method="DELETE")
    assert folders(site) == []


@pytest.mark.parametrize(
    ("query", "body", "status", "text"),
    [
        ("", b"", 400, "no video"),
        ("", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n", 400, "no video"),
        ("", b"RIFF\x00\x00\x00\x00AVI LIST" + b"\0" * 300, 400, "cannot be read"),
        ("", b"\0\0\0\x18ftypisom" + b"\0" * 300, 400, "cannot be read"),
        ("", b"x" * 300_001, 413, "more than 0.3 MB"),
        ("stride=0", b"-", 400, "stride=0: a whole number from 1 to 10000"),
        ("stride=1.5", b"-", 400, "stride=1.5"),
        ("conf=2", b"-", 400, "conf is 2"),
    ],
)
def test_a_refused_video_leaves_nothing_behind(site: Any, query: str, body: bytes, status: int, text: str) -> None:
    before = folders(site)
    answer = site(f"/api/videos?{query}", body)
    assert answer.status == status
    assert text in answer.json["detail"]
    assert str(site.service.folder) not in answer.json["detail"]
    assert folders(site) == before


def test_too_many_frames_or_pixels_are_refused_with_the_way_out(site: Any, video: Callable[..., bytes]) -> None:
    answer = site("/api/videos", video(21))
    assert (answer.status, answer.json["detail"][:57]) == (
        413, "the video has 21 frames to process, allowed are 20: take ",
    )  # fmt: skip
    assert site.events(site("/api/videos?stride=2", video(21)).json["id"])[-1]["frames"] == 11
    answer = site("/api/videos", video(2, (160, 160)))
    assert (answer.status, answer.json["detail"][:37]) == (413, "the frames have 160 x 160 pixels, all")


def test_a_header_that_lies_about_the_frames_does_not_get_around_the_limit(
    site: Any, video: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.datasets.sources.video.plausible_count", lambda _: None)
    last = site.events(site("/api/videos", video(21)).json["id"])[-1]
    assert (last["status"], last["frames"], last["total"]) == ("done", 20, None)
    assert last["note"].startswith("Only the first 20 frames were processed")


def test_a_failure_in_the_middle_is_told_and_leaves_nothing_behind(
    site: Any, video: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(image: np.ndarray) -> ModelOutput:
        raise RuntimeError("a bug")

    monkeypatch.setattr(site.service.model, "predict", broken)
    key = site("/api/videos", video(6)).json["id"]
    last = site.events(key)[-1]
    assert (last["status"], last["detail"]) == ("failed", "something went wrong here; the terminal shows what")
    assert list((site.service.folder / key).iterdir()) == []


def test_videos_that_end_while_the_limit_is_checked_do_not_disturb(tmp_path: Path) -> None:
    service = Service(None, tmp_path, Limits())  # type: ignore[arg-type]

    class Ending:
        """Is taken out by another thread while somebody asks for it."""

        @property
        def running(self) -> bool:
            other = threading.Thread(target=service.remove_video, args=("a",))
            other.start()
            other.join(0.1)  # it has to wait for its turn
            return False

        def remove(self) -> None:
            pass

    service._videos.update(a=Ending(), b=Ending())  # type: ignore[arg-type]
    service.check_video_limit()
    wait_until(lambda: list(service._videos) == ["b"])


def test_an_upload_that_is_broken_off_leaves_nothing_behind(site: Any) -> None:
    import socket

    before, port = folders(site), int(site.address.rpartition(":")[2])
    head = b"POST /api/videos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 299000\r\n\r\n"
    for size in (500, 290_000):  # in memory, on disk
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall(head + b"x" * size)
    assert site("/api/videos", b"no video").status == 400  # those before it are over
    assert folders(site) == before


def test_the_model_answers_in_the_order_of_the_questions(
    predictor_of: Callable[..., Predictor], image_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many threads at once: each gets the answer to its own image, and the model runs in one thread."""
    from utils.config.app_options import AppOptions

    with ModelThread(predictor_of(), Path("a.pt"), AppOptions()) as model:
        seen: set[int] = set()
        forward = model.predictor.model.forward
        monkeypatch.setattr(
            model.predictor.model, "forward", lambda *given: seen.add(threading.get_ident()) or forward(*given)
        )
        answers: dict[int, ModelOutput] = {}
        threads = [
            threading.Thread(target=lambda n=n: answers.update({n: model.predict(image_of(n))})) for n in range(6)
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 1
        for number, output in answers.items():
            alone = model.predict(image_of(number))
            assert output.candidates.rows.equal(alone.candidates.rows)
            assert all(np.array_equal(output.routing[name], alone.routing[name]) for name in alone.routing)


@pytest.mark.parametrize(
    ("head", "video"),
    [
        (b"\0\0\0\x20ftypisom", True),
        (b"\x1aE\xdf\xa3\x01", True),
        (b"RIFF\1\2\3\4AVI LIST", True),
        (b"RIFF\1\2\3\4WEBPVP8 ", False),
        (b"G" + b"\0" * 187 + b"G", True),
        (b"GIF89a", True),
        (b"#EXTM3U\n", False),
        (b"ffconcat version 1.0\n", False),
        (b"<?xml version='1.0'?><MPD/>", False),
        (b"", False),
    ],
)
def test_only_containers_with_the_images_inside_reach_the_video_library(head: bytes, video: bool) -> None:
    assert looks_like_video(head) is video
