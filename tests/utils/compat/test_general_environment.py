"""``utils.general``: environment of a script, checks without a network, the record of a search, a second stage."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from utils.compat import general
from utils.core.errors import InputError
from utils.plots.evolve import EVOLVE_METRICS

HYP = {"lr0": 0.01, "momentum": 0.9}


# --- print_mutation --------------------------------------------------------------------------------------------------


def test_trials_are_recorded_and_the_best_is_kept(tmp_path: Path) -> None:
    general.print_mutation((0.1, 0.1, 0.2, 0.1, 1, 1, 1), HYP, tmp_path, "")
    general.print_mutation((0.1, 0.1, 0.8, 0.6, 1, 1, 1), HYP | {"lr0": 0.02}, tmp_path, "")
    general.print_mutation((0.1, 0.1, 0.3, 0.2, 1, 1, 1), HYP | {"lr0": 0.03}, tmp_path, "")
    with (tmp_path / "evolve.csv").open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    assert header == [*EVOLVE_METRICS, *HYP] and [row[7] for row in rows] == ["0.01", "0.02", "0.03"]
    text = (tmp_path / "hyp_evolve.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == HYP | {"lr0": 0.02} and "number 1, fitness 0.62" in text
    assert (tmp_path / "evolve.png").is_file()


def test_a_table_of_v61_is_gone_on_with(tmp_path: Path) -> None:
    names = [*EVOLVE_METRICS, *HYP]
    row = [0.1, 0.1, 0.2, 0.1, 1, 1, 1, 0.05, 0.9]
    text = ",".join(f"{name:>20}" for name in names) + "\n" + ",".join(f"{value:>20.5g}" for value in row) + "\n"
    (tmp_path / "evolve.csv").write_text(text, encoding="utf-8")
    general.print_mutation((0.1, 0.1, 0.1, 0.05, 1, 1, 1), HYP, tmp_path, "")
    assert yaml.safe_load((tmp_path / "hyp_evolve.yaml").read_text(encoding="utf-8"))["lr0"] == 0.05


def test_other_columns_and_clouds_are_refused(tmp_path: Path) -> None:
    results = (0.1,) * 7
    with pytest.raises(InputError, match="nothing is exchanged with a cloud"):
        general.print_mutation(results, HYP, tmp_path, "gs-bucket")
    with pytest.raises(InputError, match="7 numbers expected"):
        general.print_mutation(results[:3], HYP, tmp_path, "")
    general.print_mutation(results, HYP, tmp_path, "")
    with pytest.raises(InputError, match=r"evolve\.csv: its columns are not those of this trial"):
        general.print_mutation(results, {"lr0": 0.01}, tmp_path, "")


# --- a classifier behind the detector --------------------------------------------------------------------------------


class Reddish(nn.Module):
    """Class 1 where an image is red in its middle, else class 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == (3, 224, 224) and x.max() <= 1
        red = x[:, 0, 112, 112]
        return torch.stack([1 - red, red], dim=1)


def test_a_classifier_confirms_detections_of_its_class_in_pixels_of_the_image() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:60, 20:40] = (0, 0, 255)
    rows = torch.tensor([[10.0, 20, 20, 30, 0.9, 1], [60, 20, 70, 30, 0.8, 1]])  # of an image at half the size
    empty = torch.zeros(0, 6)
    first, second, third = general.apply_classifier(
        [rows, empty, None], Reddish(), torch.zeros(3, 3, 50, 100), [image] * 3
    )
    assert first is not None and first.tolist() == [[20, 40, 40, 60, pytest.approx(0.9), 1]]
    assert second is empty and third is None


# --- the machine -----------------------------------------------------------------------------------------------------


def test_what_depends_on_the_machine_is_looked_up_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLOV5_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("YOLOv5_VERBOSE", "false")
    assert tmp_path / "settings" == general.CONFIG_DIR and not general.CONFIG_DIR.exists()
    assert general.user_config_dir().is_dir()
    assert general.VERBOSE is False and 1 <= general.NUM_THREADS <= 8
    assert general.FILE.is_file() and (general.ROOT / "train.py").is_file()


def test_where_a_script_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLAB_GPU", "KAGGLE_URL_BASE", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    assert not general.is_colab() and not general.is_kaggle() and not general.is_pip()
    assert general.is_docker() in (True, False)
    monkeypatch.setenv("COLAB_GPU", "1")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert general.is_colab() and general.is_kaggle()


def test_whether_a_folder_can_be_written(tmp_path: Path) -> None:
    assert general.is_writeable(tmp_path) and general.is_writeable(tmp_path, test=True)
    assert not general.is_writeable(tmp_path / "none", test=True)


def test_a_block_that_takes_too_long_is_left() -> None:
    start = time.monotonic()
    with general.Timeout(0.05):
        time.sleep(5)
    assert time.monotonic() - start < 4
    with (
        pytest.raises(TimeoutError, match="too slow"),
        general.Timeout(0.05, timeout_msg="too slow", suppress_timeout_errors=False),
    ):
        time.sleep(5)
    with general.Timeout(5):
        pass
    time.sleep(0.06)  # no alarm is left


def test_a_body_runs_in_a_folder(tmp_path: Path) -> None:
    before = Path.cwd()

    @general.WorkingDirectory(tmp_path)
    def where() -> Path:
        return Path.cwd()

    assert where() == tmp_path.resolve() and Path.cwd() == before


def test_an_error_is_logged_in_place_of_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    @general.try_except
    def divide(a: int, b: int) -> float:
        return a / b

    assert divide(1, 2) == 0.5 and divide(1, 0) is None


def test_texts() -> None:
    assert general.clean_str("a?b=c&d") == "a_b_c_d"
    assert general.url2file("https://host/a%20b.txt?auth=1") == "a b.txt"
    assert general.is_chinese("\u4eba") and not general.is_chinese("person")
    assert general.emojis("ok \U0001f680").startswith("ok ")
    assert general.methods(Reddish())[:1] and "forward" in general.methods(Reddish)


def test_sizes_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 500_000)
    assert general.file_size(tmp_path) == general.file_size(tmp_path / "a") == 0.5
    assert general.file_size(tmp_path / "none") == 0


# --- checks ----------------------------------------------------------------------------------------------------------


def test_a_connection_is_tried_and_its_failure_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert general.check_online("127.0.0.1", port)
    assert not general.check_online("127.0.0.1", port, seconds=0.5)


def test_a_checkout_behind_its_branch_is_told_without_fetching(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*words: str) -> None:
        settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
        subprocess.run(
            ["git", *settings, *words], check=True, capture_output=True, env={**os.environ, "HOME": str(tmp_path)}
        )

    assert general.check_git_status(tmp_path / "none") == 0
    git("init", str(tmp_path / "one"))
    for number in range(2):
        git("-C", str(tmp_path / "one"), "commit", "--allow-empty", "-m", str(number))
    git("clone", str(tmp_path / "one"), str(tmp_path / "two"))
    assert general.check_git_status(tmp_path / "two") == 0
    git("-C", str(tmp_path / "two"), "reset", "--hard", "HEAD~1")
    assert general.check_git_status(tmp_path / "two") == 1


def test_versions_and_fonts() -> None:
    general.check_python("3.10")
    with pytest.raises(InputError, match=r"Python 99\.0 is needed"):
        general.check_python("99.0")
    found = general.check_font("Arial.ttf")
    assert found is None or Path(found).is_file()
