"""Wrong input ends a script with one clear line and exit code 1 (2 for option errors), never with a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import detect
import train
import val
from utils.config.cli import run_script
from utils.config.options import DetectOptions, TrainOptions, ValOptions

pytestmark = pytest.mark.usefixtures("log_handlers_restored")
SMALL = ["--epochs", "1", "--batch-size", "4", "--imgsz", "64", "--workers", "0", "--device", "cpu"]


@pytest.fixture
def training_fails(toy: Path, tmp_path: Path, capfd) -> Callable[..., str]:
    """Runs train.py with arguments that replace the usual ones; returns the error line after checking the exit code."""

    def run(*arguments: str, data: Path | str | None = None) -> str:
        given = ["--cfg", "yolov5n.yaml", "--data", str(data or toy), *SMALL, "--project", str(tmp_path / "runs")]
        code = run_script(train.main, TrainOptions, [*given, *arguments])
        assert not (tmp_path / "runs").exists(), "a run folder was left behind"
        return error_line(capfd, code, 1)

    return run


def error_line(capfd, code: int, expected: int) -> str:
    out, err = capfd.readouterr()
    assert code == expected
    assert "Traceback" not in out + err
    lines = [line for line in (out + err).replace("\r", "\n").splitlines() if "error: " in line]
    assert len(lines) == 1
    return lines[0]


def test_missing_data_yaml(training_fails) -> None:
    assert "nowhere.yaml" in training_fails("--data", "nowhere.yaml")


def test_missing_images(training_fails, tmp_path: Path) -> None:
    data = tmp_path / "d.yaml"
    data.write_text(yaml.safe_dump({"train": "no/such", "val": "no/such", "names": ["a"]}))
    line = training_fails(data=data)
    assert str(tmp_path / "no/such") in line and "d.yaml" in line


def test_class_beyond_nc_names_file_and_line(training_fails, make_dataset, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "set")
    label = tmp_path / "set/labels/train/2.txt"
    label.write_text(label.read_text() + "7 0.5 0.5 0.1 0.1\n")
    line = training_fails(data=data)
    assert f"{label}:2" in line and "7" in line


def test_classes_beyond_nc_of_both_sets_are_named_at_once(training_fails, make_dataset, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "set")
    files = [tmp_path / f"set/labels/{split}/1.txt" for split in ("train", "val")]
    for file in files:
        file.write_text("7 0.5 0.5 0.1 0.1\n")
    line = training_fails(data=data)
    assert all(f"{file}:1 (class 7)" in line for file in files)


def test_empty_labels(training_fails, tmp_path: Path, make_dataset) -> None:
    data = make_dataset(tmp_path / "set")
    for label in (tmp_path / "set/labels/train").iterdir():
        label.unlink()
    line = training_fails(data=data)
    assert "images/train/0.png" in line and "labels/train/0.txt" in line


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--cfg", "yolov5q.yaml"], "yolov5q.yaml"),
        (["--weights", "none.pt"], "none.pt: no such file"),
        (["--hyp", "none.yaml"], "none.yaml"),
    ],
)
def test_files_that_are_not_there(training_fails, arguments: list[str], part: str) -> None:
    assert part in training_fails(*arguments)


def test_wrong_weights_and_yamls(training_fails, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pt"
    wrong.write_text("hello")
    assert "wrong.pt: not a checkpoint" in training_fails("--weights", str(wrong))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1, 2\nb: 3")
    assert "broken.yaml:2" in training_fails("--cfg", str(broken))


def test_unknown_hyp_key_names_the_nearest(training_fails, tmp_path: Path) -> None:
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text("lr_0: 0.1\n")
    line = training_fails("--hyp", str(hyp))
    assert "lr_0" in line and "'lr0'" in line


def test_freezing_a_layer_that_is_not_there(training_fails) -> None:
    assert "--freeze 31: there is no layer 25" in training_fails("--freeze", "31")


def test_yaml_that_wants_to_build_objects_runs_nothing(training_fails, tmp_path: Path) -> None:
    marker, file = tmp_path / "ran", tmp_path / "evil.yaml"
    file.write_text(f"train: !!python/object/apply:pathlib.Path.touch [{marker}]\n")
    for option in ("--data", "--cfg", "--hyp"):
        assert "evil.yaml" in training_fails(option, str(file))
    assert not marker.exists()


def test_download_scripts_are_never_run(training_fails, tmp_path: Path) -> None:
    marker, data = tmp_path / "ran", tmp_path / "d.yaml"
    script = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    data.write_text(yaml.safe_dump({"train": "no", "val": "no", "names": ["a"], "download": script}))
    training_fails(data=data)
    assert not marker.exists()


def test_a_corrupt_image_is_named_and_training_goes_on(make_dataset, tmp_path: Path, capfd) -> None:
    data = make_dataset(tmp_path / "set")
    (tmp_path / "set/images/train/0.png").write_bytes(b"broken")
    arguments = ["--cfg", "yolov5n.yaml", "--data", str(data), *SMALL, "--project", str(tmp_path / "runs")]
    assert run_script(train.main, TrainOptions, arguments) == 0
    assert "images/train/0.png" in "".join(capfd.readouterr())
    assert (tmp_path / "runs/exp/weights/best.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--epoch_s", "3"], "unknown option '--epoch_s'; did you mean '--epochs'?"),
        (["--epochs", "many"], "many"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--optimizer", "LION"], "LION"),
        (["--bucket", "gs://b"], "--bucket gs://b"),
    ],
)
def test_wrong_options_exit_with_two(capfd, arguments: list[str], part: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run_script(train.main, TrainOptions, arguments)
    assert part in error_line(capfd, int(caught.value.code or 0), 2)


def test_val_and_detect_say_what_is_missing(trained: Path, tmp_path: Path, capfd) -> None:
    best, project = str(trained / "weights/best.pt"), ["--project", str(tmp_path / "runs")]
    code = run_script(val.main, ValOptions, ["--weights", "none.pt", *project])
    assert "none.pt" in error_line(capfd, code, 1)
    code = run_script(val.main, ValOptions, ["--weights", best, "--data", "none.yaml", *project])
    assert "none.yaml" in error_line(capfd, code, 1)
    code = run_script(detect.main, DetectOptions, ["--weights", best, "--source", "no/where", *project])
    assert "no/where" in error_line(capfd, code, 1)
    code = run_script(detect.main, DetectOptions, ["--weights", best, "--source", str(tmp_path / "*.png"), *project])
    assert "no image or video matches" in error_line(capfd, code, 1)
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def odd_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory, with files that are none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "brackets.yaml").write_text("[" * 20_000)
    (tmp_path / "int.yaml").write_text("train: a\nnc: !!int abc\n")
    (tmp_path / "null.yaml").write_text('path: "a\\0b"\ntrain: x\nval: x\nnames: [a]\n')
    (tmp_path / "far.yaml").write_text(f"train: {'n' * 300}\nval: {'d/' * 3000}\nnames: [a]\n")
    for name in ("pipe.jpg", "pipe.pt", "pipe.yaml", "pipe.txt"):
        os.mkfifo(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="of POSIX")
@pytest.mark.parametrize(
    "words",
    [
        "detect --weights file/x.pt", "detect --weights loop", "detect --weights pipe.pt", "detect --source pipe.jpg",
        "detect --source pipe.txt", "detect --source file/x.jpg", "detect --source loop/x.jpg",
        f"detect --source {'n' * 300}",
        "detect --source /dev/full", f"detect --weights {'d/' * 3000}x.pt", "train --data int.yaml",
        "train --data null.yaml",
        "train --data brackets.yaml", "train --data pipe.yaml", "train --data far.yaml", "train --hyp pipe.yaml",
        "train --data loop", "train --cfg brackets.yaml", "train --resume loop", "val --data int.yaml --weights file",
    ],
)  # fmt: skip
def test_an_odd_path_is_one_line(odd_files: None, capfd: pytest.CaptureFixture[str], words: str) -> None:
    script, *argv = words.split()
    main, options_class = {
        "train": (train.main, TrainOptions), "val": (val.main, ValOptions), "detect": (detect.main, DetectOptions),
    }[script]  # fmt: skip
    code = run_script(main, options_class, [*argv, "--device", "cpu", "--project", "runs"])  # type: ignore[type-var]
    assert error_line(capfd, code, 1)
    assert not Path("runs").exists()
