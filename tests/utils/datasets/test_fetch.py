"""Getting missing images: only when asked for, only below the set's folder, scripts only with the user's word."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import train
import val
from utils.config.cli import run_script
from utils.config.dataset_spec import DatasetSpec
from utils.config.options import TrainOptions, ValOptions
from utils.core.errors import InputError
from utils.datasets.fetch import fetch_missing


def zipped(path: Path, *names: str) -> Path:
    """An archive whose files hold their own names."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def spec_of(folder: Path, download: Any, path: str = "sets/birds") -> DatasetSpec:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"path": path, "train": "images/train", "val": "images/val", "names": ["a"], "download": download}
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return DatasetSpec.load(file)


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


FILES = ("images/train/a.jpg", "images/val/b.jpg", "labels/train/a.txt")


@pytest.mark.parametrize("prefix", ["", "birds/"])
def test_an_archive_lands_in_the_folder_of_the_set_with_or_without_its_name(prefix: str, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "any.zip", *(prefix + name for name in FILES), "__MACOSX/._a.jpg")
    spec = spec_of(tmp_path / "yamls", archive.as_uri())
    fetch_missing(spec, ("train", "val"))
    assert below(tmp_path / "yamls/sets") == [f"birds/{name}" for name in FILES]
    assert spec.sources("val") == [tmp_path / "yamls/sets/birds/images/val"]


@pytest.mark.parametrize("single_cls", [False, True])
def test_the_yaml_is_read_anew_after_a_download(single_cls: bool, tmp_path: Path) -> None:
    spec_of(tmp_path / "yamls", zipped(tmp_path / "a.zip", *FILES).as_uri())
    file = tmp_path / "yamls/data.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("- a\n", "- a\n- b\n"), encoding="utf-8")
    before = DatasetSpec.load(file, single_cls)
    after = fetch_missing(before, ("train", "val"))
    assert after is not before
    assert after == before


def test_several_addresses_are_fetched_in_turn(tmp_path: Path) -> None:
    urls = [zipped(tmp_path / f"{i}.zip", name).as_uri() for i, name in enumerate(FILES)]
    fetch_missing(spec_of(tmp_path / "yamls", urls), ("train", "val"))
    assert below(tmp_path / "yamls/sets/birds") == list(FILES)


def test_a_file_that_is_no_archive_is_put_into_the_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    urls = [zipped(tmp_path / "a.zip", *FILES).as_uri(), (tmp_path / "notes.txt").as_uri()]
    fetch_missing(spec_of(tmp_path / "yamls", urls), ("train", "val"))
    assert "notes.txt" in below(tmp_path / "yamls/sets/birds")


def test_a_sha256_in_the_yaml_is_held_to(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", *FILES)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    spec = spec_of(tmp_path / "yamls", [{"url": archive.as_uri(), "sha256": "f" * 64}])
    with pytest.raises(InputError, match=f"its sha256 is {digest}, expected ffff.*unpack it so that .*images/train is"):
        fetch_missing(spec, ("train", "val"))
    assert not (tmp_path / "yamls/sets").exists()
    fetch_missing(spec_of(tmp_path / "yamls", {"url": archive.as_uri(), "sha256": digest}), ("train", "val"))
    assert below(tmp_path / "yamls/sets/birds") == list(FILES)


def test_nothing_is_fetched_when_the_images_are_there(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "sets/birds/images" / split).mkdir(parents=True)
    fetch_missing(spec_of(tmp_path, "file:///no/such/file.zip"), ("train", "val", "test"))


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    own = tmp_path / "yamls/sets/birds/labels/train/a.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine", encoding="utf-8")
    spec = spec_of(tmp_path / "yamls", zipped(tmp_path / "a.zip", *FILES).as_uri())
    with pytest.raises(InputError, match=rf"{own} is there already with another content"):
        fetch_missing(spec, ("train", "val"))
    assert below(tmp_path / "yamls/sets") == ["birds/labels/train/a.txt"]
    own.write_text("labels/train/a.txt", encoding="utf-8")  # what the archive holds
    fetch_missing(spec, ("train", "val"))
    assert below(tmp_path / "yamls/sets/birds") == list(FILES)


@pytest.mark.parametrize("end", ["%2fvictim.txt", "..%2fvictim.txt", "%2e%2e", "..%5cvictim.txt", "victim%00.txt"])
def test_a_name_that_is_hidden_by_its_code_leads_nowhere(end: str, tmp_path: Path) -> None:
    (tmp_path / "yamls/sets").mkdir(parents=True)
    (tmp_path / "yamls/sets/victim.txt").write_text("mine")
    spec = spec_of(tmp_path / "yamls", f"{tmp_path.as_uri()}/{end}")
    with pytest.raises(InputError, match="does not end in a plain file name"):
        fetch_missing(spec, ("train", "val"))
    assert below(tmp_path) == ["yamls/data.yaml", "yamls/sets/victim.txt"]


def test_a_link_in_the_folder_of_the_set_does_not_lead_an_archive_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "yamls/sets/birds").mkdir(parents=True)
    (tmp_path / "yamls/sets/birds/images").symlink_to(tmp_path / "elsewhere")
    spec = spec_of(tmp_path / "yamls", zipped(tmp_path / "a.zip", *FILES).as_uri())
    with pytest.raises(InputError, match=r"birds/images/train/a\.jpg: a link leads to"):
        fetch_missing(spec, ("train", "val"))
    assert below(tmp_path / "elsewhere") == []


def test_a_refused_archive_leaves_nothing_behind(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "yamls", zipped(tmp_path / "a.zip", *FILES, "../../evil.txt").as_uri())
    with pytest.raises(InputError, match=r"evil\.txt"):
        fetch_missing(spec, ("train", "val"))
    assert below(tmp_path) == ["a.zip", "yamls/data.yaml"]


def test_the_limit_is_held_to(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "yamls", zipped(tmp_path / "a.zip", *FILES).as_uri())
    with pytest.raises(InputError, match="limit"):
        fetch_missing(spec, ("train", "val"), limit_gb=1e-8)


def test_an_archive_without_the_images_says_so(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "yamls", zipped(tmp_path / "a.zip", "other/a.jpg").as_uri())
    with pytest.raises(FileNotFoundError, match=r"does not hold what the yaml names: .*images/train"):
        fetch_missing(spec, ("train", "val"))


def test_a_yaml_without_an_address_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no 'download:' address"):
        fetch_missing(spec_of(tmp_path, None), ("train",))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([{"link": "https://a.org/x.zip"}], "neither an address nor url:"),
        ([{"url": "https://a.org/x.zip", "sha": "0"}], "unknown key 'sha'"),
        ([{"url": "https://a.org/x.zip", "sha256": "abc"}], "'abc' is not 64 hexadecimal digits"),
        ([{"url": "https://a.org/x.zip", "sha256": 123}], "put it in quotes"),
        (["get it yourself"], "neither an address"),
        (7, "7 is neither"),
    ],
)
def test_a_mistake_in_the_yaml_names_file_and_key(entry: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"data\.yaml: download: .*{message}"):
        spec_of(tmp_path, entry)


# Scripts --------------------------------------------------------------------------------------------------------------

MAKE = "from pathlib import Path\nfor s in ('train', 'val'):\n    Path(yaml['path'], 'images', s).mkdir(parents=True)\n"


def test_a_script_is_shown_and_does_not_run_without_leave(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    spec = spec_of(tmp_path, MAKE)
    with pytest.raises(InputError, match="nothing of it ran; read it above, then add --allow-scripts"):
        fetch_missing(spec, ("train", "val"))
    assert "    for s in ('train', 'val'):" in caplog.text
    assert not (tmp_path / "sets").exists()


def test_a_python_script_runs_in_the_folder_of_the_yaml_and_knows_its_content(tmp_path: Path) -> None:
    marker = "from utils.core.errors import InputError\nPath('here').touch()\n"
    fetch_missing(spec_of(tmp_path, MAKE + marker), ("train", "val"), allow_scripts=True)
    assert (tmp_path / "here").exists()
    assert (tmp_path / "sets/birds/images/train").is_dir()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit(3)", r"failed \(exit code 3\)"),
        ("import os; os.kill(os.getpid(), 9)", r"was killed \(SIGKILL, .* memory runs out\)"),
    ],
)
def test_a_script_that_fails_is_one_line_with_how_it_ended(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(InputError, match=f"the download script {message}; see its output above"):
        fetch_missing(spec_of(tmp_path, script), ("train",), allow_scripts=True)


def test_a_shell_script_beside_the_yaml_runs_with_its_arguments(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "get.sh").write_text('mkdir -p "sets/birds/images/$1" "sets/birds/images/$2"\n', encoding="utf-8")
    fetch_missing(spec_of(tmp_path, "bash get.sh train val"), ("train", "val"), allow_scripts=True)
    assert "    mkdir -p" in caplog.text
    assert (tmp_path / "sets/birds/images/val").is_dir()


@pytest.mark.parametrize("words", ["/bin/ls", "../outside.sh", "-c 'touch marker'", "'", "none.sh", "tools/demo.py"])
def test_a_shell_script_elsewhere_never_runs(words: str, tmp_path: Path) -> None:
    (tmp_path / "outside.sh").write_text("touch marker\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"only a script file below .*data/scripts or "):
        fetch_missing(spec_of(tmp_path / "yamls", f"bash {words}"), ("train",), allow_scripts=True)
    assert not (tmp_path / "yamls/marker").exists()


def test_no_second_command_is_smuggled_in(tmp_path: Path) -> None:
    (tmp_path / "get.sh").write_text('echo "$@"\n', encoding="utf-8")
    with pytest.raises(FileNotFoundError):
        fetch_missing(spec_of(tmp_path, "bash get.sh ; touch marker\ntouch marker"), ("train",), allow_scripts=True)
    assert not (tmp_path / "marker").exists()


# train.py and val.py --------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(make_dataset: Any, tmp_path: Path) -> Path:
    """A data yaml whose images are only in an archive."""
    made = make_dataset(tmp_path / "made")
    with zipfile.ZipFile(tmp_path / "toy.zip", "w") as archive:
        for file in (path for path in made.parent.rglob("*") if path.is_file() and path != made):
            archive.write(file, file.relative_to(made.parent))
    content = {**yaml.safe_load(made.read_text()), "path": "toy", "download": (tmp_path / "toy.zip").as_uri()}
    (tmp_path / "here").mkdir()
    file = tmp_path / "here/data.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


SMALL = ["--batch-size", "4", "--imgsz", "64", "--workers", "0", "--device", "cpu"]


@pytest.mark.usefixtures("log_handlers_restored")
def test_train_fetches_only_when_told_to(packed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    argv = [
        "--cfg",
        "yolov5n.yaml",
        "--data",
        str(packed),
        "--epochs",
        "0",
        *SMALL,
        "--project",
        str(tmp_path / "runs"),
    ]
    assert run_script(train.main, TrainOptions, argv) == 1
    assert "(--download fetches it)" in "".join(capfd.readouterr())
    assert below(packed.parent) == ["data.yaml"]
    assert run_script(train.main, TrainOptions, [*argv, "--download"]) == 0
    assert "toy/images/train/0.png" in below(packed.parent)


@pytest.mark.usefixtures("log_handlers_restored")
def test_val_fetches_the_split_it_needs(
    packed: Path, eager_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = ["--weights", str(eager_weights), "--data", str(packed), *SMALL, "--project", str(tmp_path / "runs")]
    assert run_script(val.main, ValOptions, argv) == 1
    assert run_script(val.main, ValOptions, [*argv, "--download"]) == 0


def test_only_images_labels_and_notes_are_kept_of_what_a_yaml_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = (
        "cv2.py",
        "sitecustomize.pyc",
        ".profile",
        ".config/autostart/a.txt",
        "images/train/run.sh",
        "GNUmakefile",
    )
    fetch_missing(spec_of(tmp_path / "yamls", zipped(tmp_path / "a.zip", *FILES, *others).as_uri()), ("train", "val"))
    assert below(tmp_path / "yamls/sets/birds") == list(FILES)
    assert f"skipped: {len(others)}, such as cv2.py" in caplog.text


def test_a_script_that_a_yaml_names_as_a_single_file_is_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="neither an archive nor a file of a data set"):
        fetch_missing(spec_of(tmp_path / "yamls", (tmp_path / "cv2.py").as_uri()), ("train",))
