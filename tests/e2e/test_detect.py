"""detect.py on images, videos and streams, as its users call it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import detect
from models.yolo import Model
from utils.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from utils.config.cli import parse, run_script
from utils.config.options import DetectOptions
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.core.image import read_image
from utils.datasets.sources import FileSource, Frame, LiveSource
from utils.datasets.sources.live import LiveSettings
from utils.inference.predictor import ImageDetections, Predictor
from utils.inference.window import set_qt_fonts

Find = Callable[..., Path]


@pytest.fixture
def find(eager_weights: Path, tmp_path: Path) -> Find:
    """``find(source, **options)`` runs detect.py with a model that sees objects everywhere; returns the run folder."""

    def run(source: Path | str, **given: Any) -> Path:
        usual = {"weights": (str(eager_weights),), "imgsz": (64,), "max_det": 3, "device": "cpu"}
        detect.main(DetectOptions(**{**usual, "source": str(source), "project": str(tmp_path / "out"), **given}))
        return max((tmp_path / "out").iterdir(), key=lambda p: p.stat().st_mtime)

    return run


def noise(seed: int, hw: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3)).astype(np.uint8)


def write_video(path: Path, images: list[np.ndarray]) -> Path:
    """Lossless."""
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 10, (width, height))
    assert writer.isOpened()
    for image in images:
        writer.write(image)
    writer.release()
    return path


@pytest.fixture
def video_file(tmp_path: Path) -> Path:
    return write_video(tmp_path / "film.avi", [noise(n) for n in range(5)])


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "detections.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_video_becomes_a_video_with_tables_labels_and_crops(find: Find, video_file: Path, caplog: Any) -> None:
    with caplog.at_level("INFO"):
        folder = find(video_file, save_csv=True, save_json=True, save_txt=True, save_crop=True, batch_size=2)
    (video,) = (path for path in folder.iterdir() if path.stem == "film")
    capture = cv2.VideoCapture(str(video))
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (10, 5)
    assert sorted(path.name for path in (folder / "labels").iterdir()) == [f"film_{n}.txt" for n in range(1, 6)]
    rows = table(folder)
    assert [row["frame"] for row in rows] == [str(n) for n in range(1, 6) for _ in range(3)]
    entries = json.loads((folder / "detections.json").read_bytes())
    assert [entry["frame"] for entry in entries] == [1, 2, 3, 4, 5]
    assert sum(len(entry["detections"]) for entry in entries) == len(rows) == len(list(folder.rglob("crops/*/*.jpg")))
    assert f"{video_file}: 5 frames, 15 objects" in caplog.text and "ms NMS per frame" in caplog.text


def test_of_a_video_every_nth_frame(find: Find, video_file: Path) -> None:
    assert {row["frame"] for row in table(find(video_file, save_csv=True, nosave=True, vid_stride=2))} == {
        "1",
        "3",
        "5",
    }


def test_images_and_videos_of_a_folder_together(find: Find, video_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mixed/deep").mkdir(parents=True)
    shutil.move(video_file, tmp_path / "mixed/deep/film.avi")
    cv2.imwrite(str(tmp_path / "mixed/a.png"), noise(9))
    folder = find(tmp_path / "mixed", batch_size=4)
    names = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.*"))
    assert names == ["a", "deep/film"]


def test_images_of_one_name_keep_label_files_of_their_own(find: Find, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.png"):
        cv2.imwrite(str(tmp_path / "in" / name), noise(1))
    folder = find(tmp_path / "in", save_txt=True)
    assert sorted(path.name for path in (folder / "labels").iterdir()) == ["a.png.txt", "a.txt"]


def test_crops_never_take_the_place_of_another(find: Find, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a1.png"):
        cv2.imwrite(str(tmp_path / "in" / name), noise(1, (64, 64)))
    folder = find(tmp_path / "in", save_crop=True, nosave=True, max_det=12, classes=(0,), save_csv=True)
    assert len(list(folder.rglob("crops/*/*.jpg"))) == len(table(folder)) > 12


def test_a_dead_and_a_living_stream(find: Find, video_file: Path, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "my.streams").write_text(f"rtsp://127.0.0.1:9/none\n{video_file}\n", encoding="utf-8")
    folder = find(tmp_path / "my.streams", reconnect=0, save_csv=True)
    rows = table(folder)
    assert rows and {row["file"] for row in rows} == {str(video_file)}
    assert "rtsp://127.0.0.1:9/none: cannot be opened; given up" in caplog.text
    assert any(path.suffix in (".webm", ".mp4") for path in folder.iterdir())


def test_a_stream_that_sends_nothing_is_an_error(find: Find) -> None:
    with pytest.raises(InputError, match=r"--source rtsp://127\.0\.0\.1:9/none: no frame has arrived"):
        find("rtsp://me:secret@127.0.0.1:9/none", reconnect=0)


def test_a_video_without_frames_is_an_error_and_no_division(find: Find, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    with caplog.at_level("INFO"), pytest.raises(InputError, match="none of its images and frames could be read"):
        find(tmp_path / "empty.mp4")
    assert "0 images, 0 objects" in caplog.text and "empty.mp4: not a readable video" in caplog.text


class Interrupted(FileSource):
    """Ctrl-C after three frames."""

    def batches(self, size: int = 1) -> Iterator[list[Frame]]:
        for number, batch in enumerate(super().batches(size)):
            if number == 3:
                raise KeyboardInterrupt
            yield batch


def test_ctrl_c_finishes_video_and_tables(
    find: Find, video_file: Path, tmp_path: Path, eager_weights: Path, monkeypatch: Any, log_handlers_restored: None
) -> None:  # fmt: skip
    monkeypatch.setattr("utils.datasets.sources.FileSource", Interrupted)
    argv = [
        "--weights",
        str(eager_weights),
        "--source",
        str(video_file),
        "--imgsz",
        "64",
        "--project",
        str(tmp_path / "out"),
    ]
    assert run_script(detect.main, DetectOptions, [*argv, "--save-json", "--max-det", "3", "--device", "cpu"]) == 130
    (folder,) = (tmp_path / "out").iterdir()
    assert len(json.loads((folder / "detections.json").read_bytes())) == 3
    (video,) = (path for path in folder.iterdir() if path.stem == "film")
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_ctrl_c_is_the_usual_end_of_a_stream(find: Find, video_file: Path, monkeypatch: Any) -> None:
    class Endless(LiveSource):
        def batches(self, size: int = 1) -> Iterator[list[Frame]]:
            yield next(super().batches(size))
            raise KeyboardInterrupt

    source = Endless([str(video_file)], LiveSettings(reconnect=0))
    monkeypatch.setattr("utils.datasets.sources.open_source", lambda *_: source)
    assert len(table(find("cam", save_csv=True, nosave=True))) == 3
    assert not source.readers[0].is_alive()


def test_large_images_in_tiles(find: Find, tmp_path: Path, monkeypatch: Any) -> None:
    cv2.imwrite(str(tmp_path / "large.png"), noise(1, (100, 150)))
    shapes: list[list[tuple[int, ...]]] = []
    original = Predictor.predict

    def watched(self: Predictor, images: list[np.ndarray]) -> list[ImageDetections]:
        shapes.append([image.shape[:2] for image in images])
        return original(self, images)

    monkeypatch.setattr(Predictor, "predict", watched)
    rows = table(find(tmp_path / "large.png", slice=64, overlap=0.2, save_csv=True, batch_size=4, max_det=50))
    assert shapes == [[(64, 64)] * 4, [(64, 64)] * 2 + [(100, 150)]]
    assert len(rows) == 50
    shapes.clear()
    find(tmp_path / "large.png", slice=64, slice_only=True, batch_size=9)
    assert shapes == [[(64, 64)] * 6]


def weights_named(path: Path, names: list[str], **more: Any) -> Path:
    torch.manual_seed(0)
    model = Model("yolov5n.yaml", nc=len(names))
    state = dict(model.state_dict())
    save_checkpoint(
        path,
        Checkpoint(
            model_yaml=model.yaml, nc=model.nc, names=names, stride=model.stride.tolist(), model=state, **more
        ),
    )  # fmt: skip
    return path


def test_a_data_yaml_names_the_classes_of_a_file_without_names(find: Find, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "my.yaml").write_text("train: .\nval: .\nnames: [cat, dog]\n", encoding="utf-8")
    cv2.imwrite(str(tmp_path / "a.png"), noise(1))
    nameless = weights_named(tmp_path / "nameless.pt", ["0", "1"])
    given = {"data": str(tmp_path / "my.yaml"), "save_csv": True, "conf_thres": 0.0}
    rows = table(find(tmp_path / "a.png", weights=(str(nameless),), **given))
    assert rows and {row["name"] for row in rows} <= {"cat", "dog"}
    rows = table(find(tmp_path / "a.png", **given))
    assert {row["name"] for row in rows} <= {"ant", "bee"}
    assert "calls class 0 'cat', the file of --weights 'ant': the names of the file are used" in caplog.text


def test_a_data_yaml_of_another_number_of_classes_is_refused(find: Find, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("train: .\nval: .\nnames: [cat]\n", encoding="utf-8")
    with pytest.raises(InputError, match="has 1 class, the model 2"):
        find(ROOT / "data/images", data=str(tmp_path / "my.yaml"))


def test_update_takes_the_optimizer_out(find: Find, tmp_path: Path, caplog: Any) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), noise(1))
    path = weights_named(tmp_path / "fat.pt", ["a"], optimizer={"state": torch.zeros(100_000)})
    before = path.stat().st_size
    with caplog.at_level("INFO"):
        find(tmp_path / "a.png", weights=(str(path),), update=True)
    assert path.stat().st_size < before / 1.5 and load_checkpoint(path).optimizer is None
    assert f"--update: {path}" in caplog.text
    with caplog.at_level("INFO"):
        find(tmp_path / "a.png", weights=(str(path),), update=True)
    assert "fat.pt holds no optimizer" in caplog.text


def test_half_precision_without_a_gpu_is_one_warning(find: Find, tmp_path: Path, caplog: Any) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), noise(1))
    find(tmp_path / "a.png", half=True)
    assert caplog.messages.count("--half needs a GPU: running in float32") == 1


def test_without_a_screen_a_window_is_one_warning(find: Find, video_file: Path, caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("utils.inference.window.can_open_window", lambda: False)
    assert list(find(video_file, view_img=True).iterdir())
    assert caplog.text.count("--view-img: no window can be opened here") == 1


def test_the_window_is_given_fonts_where_opencv_brings_none(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("QT_QPA_FONTDIR", str(tmp_path / "missing"))
    set_qt_fonts()
    assert list(Path(os.environ["QT_QPA_FONTDIR"]).glob("*.ttf"))
    monkeypatch.setenv("QT_QPA_FONTDIR", str(tmp_path))  # a folder of the user's is left alone
    set_qt_fonts()
    assert os.environ["QT_QPA_FONTDIR"] == str(tmp_path)


def test_q_in_the_window_ends_a_video(find: Find, video_file: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("utils.inference.window.can_open_window", lambda: True)
    shown: list[str] = []
    for name, action in (("imshow", lambda title, _: shown.append(title)), ("destroyAllWindows", lambda: None)):
        monkeypatch.setattr(cv2, name, action)
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) == 2 else -1)
    assert len(table(find(video_file, view_img=True, save_csv=True, nosave=True))) == 2 * 3
    assert shown == [str(video_file)] * 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--overlap", "0.3"], "--overlap does nothing without --slice"),
        (["--slice-only"], "--slice-only does nothing without --slice"),
        (["--slice", "8"], "--slice 8 is too small"),
        (["--slice", "640", "--overlap", "0.95"], "--overlap 0.95 makes too many tiles"),
        (["--slice", "640", "--visualize"], "omit --slice"),
        (["--vid-stride", "0"], "--vid-stride 0 is too small"),
        (["--batch-size", "0"], "--batch-size 0 is too small"),
        (["--reconnect", "-1"], "--reconnect -1 is too small"),
    ],
)
def test_impossible_options_are_refused(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(DetectOptions, argv)
    assert message in capsys.readouterr().err


def test_help_needs_neither_torch_nor_anything_else_that_is_slow() -> None:
    code = (
        "import sys, detect; from utils.config.cli import build_parser\n"
        "build_parser(detect.DetectOptions).format_help()\n"
        "print([name for name in ('torch', 'cv2', 'numpy', 'PIL', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- against the reference -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(golden: Any, shared_data: Path, shared_weights: Path) -> tuple[Predictor, list[np.ndarray], list[Any]]:
    """The official nano model, ten images, and what v6.1 finds in them."""
    from utils.checkpoint import load_model

    model, _ = load_model(shared_weights / "yolov5n-coco-v6.0.pt")
    entries = golden.json("eval")["detect"]["images"][:10]
    images = [read_image(next((shared_data / "tiny-coco").rglob(entry["image"]))) for entry in entries]
    predictor = Predictor(model, torch.device("cpu"))
    found = [predictor(image).boxes.numpy() for image in images]
    return predictor, images, [entries, found]


def test_detections_are_those_of_v61(reference: Any) -> None:
    _, _, (entries, found) = reference
    assert sum(len(boxes) for boxes in found) > 40
    for entry, boxes in zip(entries, found):
        expected = np.array(entry["detections"]).reshape(-1, 6)
        np.testing.assert_allclose(boxes[:, :4], expected[:, :4], atol=2e-3, err_msg=entry["image"])
        np.testing.assert_allclose(boxes[:, 4], expected[:, 4], atol=2e-6)
        np.testing.assert_array_equal(boxes[:, 5], expected[:, 5])


@pytest.mark.parametrize(("batch_size", "step"), [(4, 1), (8, -1)])
def test_batches_and_order_change_no_box(reference: Any, batch_size: int, step: int) -> None:
    predictor, images, (_, alone) = reference
    numbers = list(range(10))[::step]
    for begin in range(0, 10, batch_size):
        chosen = numbers[begin : begin + batch_size]
        for number, found in zip(chosen, predictor.predict([images[n] for n in chosen])):
            assert len(found) == len(alone[number])
            np.testing.assert_allclose(found.boxes, alone[number], atol=1e-3, rtol=1e-5)


def test_an_onnx_file_with_suppression_inside_gives_the_boxes_of_v61(
    reference: Any, shared_weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    from utils.config.export_options import ExportOptions
    from utils.export import export_checkpoint
    from utils.inference.backends import open_exported

    _, images, (entries, alone) = reference
    cpu = torch.device("cpu")
    options = ExportOptions(include=("onnx",), dynamic=True, nms=True, output=str(tmp_path), imgsz=(320,))
    row = export_checkpoint(shared_weights / "yolov5n-coco-v6.0.pt", options, cpu)[1]
    assert row.made, row.note
    predictor = Predictor(open_exported(row.path, cpu), cpu)
    for entry, image, expected in zip(entries, images, alone, strict=True):
        boxes = predictor(image).boxes.numpy()
        assert boxes.shape == expected.shape, entry["image"]
        np.testing.assert_allclose(boxes, expected, atol=2e-3, rtol=1e-4, err_msg=entry["image"])


def test_a_lossless_video_gives_the_boxes_of_its_images(reference: Any, tmp_path: Path) -> None:
    predictor, images, (_, alone) = reference
    numbers = [n for n in range(10) if images[n].shape == (480, 640, 3)][:3]
    video_file = write_video(tmp_path / "film.avi", [images[n] for n in numbers])
    frames = list(FileSource(str(video_file)))
    assert len(frames) == 3
    for frame, number in zip(frames, numbers):
        np.testing.assert_array_equal(frame.image, images[number])
        np.testing.assert_array_equal(predictor(frame.image).boxes, alone[number])


def test_a_second_run_in_the_folder_replaces_what_there_was_of_its_images_only(find: Find, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a2.png", "b.png"):
        cv2.imwrite(str(tmp_path / "in" / name), noise(1, (64, 64)))
    wanted = {"save_txt": True, "save_crop": True, "save_csv": True, "save_json": True, "exist_ok": True}
    folder = find(tmp_path / "in", **wanted)
    others = {path: path.read_bytes() for path in folder.rglob("crops/*/a2*.jpg")}  # crops of a2, and the second of a
    of_b = {path: path.read_bytes() for path in folder.rglob("*/b*.*")}
    (folder / "labels/notes.txt").write_text("mine")
    cv2.imwrite(str(next(folder.glob("crops/*")) / "a9.jpg"), noise(2))
    find(tmp_path / "in/a.png", conf_thres=1.0, **wanted)
    assert sorted(path.name for path in (folder / "labels").iterdir()) == ["a2.txt", "b.txt", "notes.txt"]
    left = [path.name for path in folder.rglob("crops/*/*.jpg")]
    assert left.count("a9.jpg") == 1 and "a.jpg" not in left
    assert 0 < len([name for name in left if name.startswith("a2")]) < len(others)
    assert {path: path.read_bytes() for path in of_b} == of_b
    assert table(folder) == [] and len(json.loads((folder / "detections.json").read_bytes())) == 1
    find(tmp_path / "in", **wanted)
    assert {path: path.read_bytes() for path in folder.rglob("crops/*/b*.jpg")}.keys() == {
        path for path in of_b if path.suffix == ".jpg"
    }


def test_a_list_with_dots_in_its_paths_writes_below_the_run_folder_only(find: Find, tmp_path: Path) -> None:
    for place in ("in/a/x.png", "other/b.png"):
        (tmp_path / place).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / place), noise(1))
    (tmp_path / "in/list.txt").write_text("a/x.png\na/../../other/b.png\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    folder = find(tmp_path / "in/list.txt", save_txt=True, save_crop=True)
    assert {path: path.read_bytes() for path in before} == before
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.png")} == {"in/a/x.png", "other/b.png"}


@pytest.mark.parametrize("name", ["in", "hard"])
def test_an_image_is_never_drawn_over_itself_or_its_label(find: Find, tmp_path: Path, name: str) -> None:
    for folder in ("in", "hard"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), noise(1))
    os.link(tmp_path / "in/a.png", tmp_path / "hard/a.png")
    before = (tmp_path / "in/a.png").read_bytes()
    with pytest.raises(InputError, match=r"a\.png: would overwrite the input .*in/a\.png; choose another output"):
        find(tmp_path / "in", project=str(tmp_path), name=name, exist_ok=True)
    assert (tmp_path / "in/a.png").read_bytes() == before
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "images/a.png").write_bytes(before)
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(InputError, match=r"labels/a\.txt: would overwrite"):
        find(tmp_path / "images", project=str(tmp_path), name=".", exist_ok=True, save_txt=True, nosave=True)
    assert (tmp_path / "labels/a.txt").read_text() == "0 0.5 0.5 0.1 0.1\n"


def test_links_in_an_old_run_folder_do_not_lead_results_elsewhere(find: Find, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), noise(1))
    (tmp_path / "out/exp").mkdir(parents=True)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/keep.csv").write_text("mine")
    (tmp_path / "out/exp/labels").symlink_to(tmp_path / "victim")
    (tmp_path / "out/exp/detections.csv").symlink_to(tmp_path / "victim/keep.csv")
    for option in ("save_txt", "save_csv"):
        with pytest.raises(InputError, match="a link leads to"):
            find(tmp_path / "a.png", exist_ok=True, **{option: True})
    assert [(path.name, path.read_text()) for path in (tmp_path / "victim").iterdir()] == [("keep.csv", "mine")]


def test_a_pattern_in_a_folder_whose_name_has_brackets_finds_its_images(find: Find, tmp_path: Path) -> None:
    for place in ("run [1]/deep/a.png", "run 1/deep/other.png"):
        (tmp_path / place).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / place), noise(1))
    folder = find(f"{tmp_path}/run [1]/*/*.png")
    assert [str(path.relative_to(folder)) for path in folder.rglob("*.png")] == ["deep/a.png"]


@pytest.mark.parametrize("odd", [["\x1b[2Jcat", "=cmd|' /c calc'!A0"], ["x" * 5000, "con"], ["a/b", ".."]])
def test_names_of_classes_and_files_do_no_harm_anywhere(
    find: Find, tmp_path: Path, eager_weights: Path, capsys: Any, odd: list[str]
) -> None:
    checkpoint = load_checkpoint(eager_weights)
    save_checkpoint(tmp_path / "odd.pt", replace(checkpoint, names=odd))
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/=\x1b[31m.png"), noise(1, (64, 64)))
    folder = find(
        tmp_path / "in", weights=(str(tmp_path / "odd.pt"),), save_csv=True, save_txt=True, save_crop=True, max_det=50
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\\x1b[31m.png" in printed
    text = (folder / "detections.csv").read_text(encoding="utf-8")
    assert "\x1b" not in text and ",=cmd" not in text
    assert all(cell[0] not in "=@\t" for row in table(folder) for cell in row.values() if cell)
    made = [path.name for path in (folder / "crops").iterdir()]
    assert made and all(len(name.encode()) <= 100 and name not in odd for name in made)
