"""The shipped data yamls and the scripts that fetch their sets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from utils.config.dataset_spec import SPLITS, DatasetSpec
from utils.config.paths import ROOT

YAMLS = sorted((ROOT / "data").glob("*.yaml"))
SCRIPTS = sorted((ROOT / "data/scripts").glob("*.sh"))
V61 = ("Argoverse", "GlobalWheat2020", "Objects365", "SKU-110K", "VOC", "VisDrone", "coco", "coco128", "xView")


def test_every_data_yaml_of_v61_is_there_and_no_other_but_the_embedded_set(golden: Any) -> None:
    assert sorted(golden.json("datasets_v6.1")) == sorted(f"{name}.yaml" for name in V61)
    assert {path.stem for path in YAMLS} == {*V61, "digits"}


@pytest.mark.parametrize("name", V61)
def test_classes_paths_and_addresses_are_those_of_v61(golden: Any, name: str) -> None:
    expected = golden.json("datasets_v6.1")[f"{name}.yaml"]
    spec = DatasetSpec.load(f"{name}.yaml")
    assert list(spec.names) == expected["names"]
    assert spec.nc == expected["nc"]
    assert spec.root == (ROOT / "data" / expected["path"]).resolve()
    assert [remote.url for remote in spec.download] == [url for url in [expected.get("download")] if url]
    assert spec.download_script is None
    for split in SPLITS:
        entries = expected.get(split) or []
        entries = [entries] if isinstance(entries, str) else entries
        assert list(getattr(spec, split)) == [spec.root / entry for entry in entries]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_a_data_yaml_says_what_the_set_is_and_how_its_files_lie(path: Path) -> None:
    head = [line for line in path.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if line.startswith("# ")]
    assert len(head) >= 2
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 123


# Scripts --------------------------------------------------------------------------------------------------------------

needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "unzip"))), reason="bash and unzip are not installed"
)
# Stands in for curl: the last word is an address, whose file is taken from the folder $SERVED.
CURL = """#!/usr/bin/env bash
set -eu
while [ $# -gt 1 ]; do [ "$1" = --output ] && out=$2; shift; done
echo "$1" >> "$SERVED/asked"
[ -e "$SERVED/${1##*/}" ] || exit 22
cp "$SERVED/${1##*/}" "$out"
"""


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """Folder of the files that the stand-in for curl knows."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "bin").mkdir()
    curl = folder / "bin/curl"
    curl.write_text(CURL, encoding="utf-8")
    curl.chmod(0o755)
    return folder


def run(script: str, served: Path, cwd: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and all output of a script of data/scripts."""
    cwd.mkdir(exist_ok=True)
    path = os.pathsep.join([str(served / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", str(ROOT / "data/scripts" / script), *arguments],
        cwd=cwd, env={**os.environ, "PATH": path, "SERVED": str(served)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def pack(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_scripts_of_v61_are_there_and_stop_at_the_first_failure() -> None:
    assert [path.name for path in SCRIPTS] == ["download_weights.sh", "get_coco.sh", "get_coco128.sh"]
    assert all(re.search(r"^set -eu$", path.read_text(encoding="utf-8"), re.MULTILINE) for path in SCRIPTS)


@needs_tools
@pytest.mark.parametrize("script", [path.name for path in SCRIPTS])
def test_an_unknown_word_fetches_nothing(script: str, served: Path, tmp_path: Path) -> None:
    code, output = run(script, served, tmp_path / "cwd", "--nonsense")
    assert code == 1
    assert output.startswith("error: ")
    assert not (served / "asked").exists()


@needs_tools
def test_coco128_lands_in_the_folder_named_and_is_not_fetched_twice(served: Path, tmp_path: Path) -> None:
    pack(served / "coco128.zip", "coco128/images/train2017/a.jpg", "coco128/labels/train2017/a.txt")
    assert run("get_coco128.sh", served, tmp_path / "cwd", "sets")[0] == 0
    expected = ["coco128/images/train2017/a.jpg", "coco128/labels/train2017/a.txt"]
    assert below(tmp_path / "cwd/sets") == expected
    code, output = run("get_coco128.sh", served, tmp_path / "cwd", "sets")
    assert code == 1
    assert "is there already; nothing was changed" in output
    assert below(tmp_path / "cwd/sets") == expected


@needs_tools
def test_coco_has_labels_lists_and_the_parts_asked_for(served: Path, tmp_path: Path) -> None:
    pack(served / "coco2017labels.zip", "coco/labels/val2017/a.txt", "coco/val2017.txt")
    pack(served / "val2017.zip", "val2017/a.jpg")
    assert run("get_coco.sh", served, tmp_path / "cwd", "--val", "--folder", "sets")[0] == 0
    assert below(tmp_path / "cwd/sets") == [
        "coco/images/val2017/a.jpg",
        "coco/labels/val2017/a.txt",
        "coco/val2017.txt",
    ]
    pack(served / "test2017.zip", "test2017/b.jpg")
    assert run("get_coco.sh", served, tmp_path / "cwd", "--val", "--test", "--folder", "sets")[0] == 0
    assert "coco/images/test2017/b.jpg" in below(tmp_path / "cwd/sets")
    asked = (served / "asked").read_text(encoding="utf-8").splitlines()
    assert [url.rpartition("/")[2] for url in asked] == ["coco2017labels.zip", "val2017.zip", "test2017.zip"]


@needs_tools
def test_weights_land_in_the_working_directory_and_one_that_is_there_is_left_alone(
    served: Path, tmp_path: Path
) -> None:
    for name in ("yolov5n", "yolov5s6"):
        (served / f"{name}.pt").write_text(name, encoding="utf-8")
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd/yolov5n.pt").write_text("mine", encoding="utf-8")
    assert run("download_weights.sh", served, tmp_path / "cwd", "yolov5n", "yolov5s6")[0] == 0
    assert (tmp_path / "cwd/yolov5n.pt").read_text(encoding="utf-8") == "mine"
    assert (tmp_path / "cwd/yolov5s6.pt").read_text(encoding="utf-8") == "yolov5s6"


@needs_tools
@pytest.mark.parametrize(
    ("script", "arguments"),
    [("get_coco128.sh", ["sets"]), ("get_coco.sh", ["--folder", "sets"]), ("download_weights.sh", ["yolov5n"])],
)
def test_without_a_network_the_address_and_a_way_by_hand_are_named(
    script: str, arguments: list[str], served: Path, tmp_path: Path
) -> None:
    code, output = run(script, served, tmp_path / "cwd", *arguments)
    assert code == 1
    assert re.search(r"error: https?://\S+ cannot be fetched; .*fetch it elsewhere", output)
    assert below(tmp_path / "cwd") == []
