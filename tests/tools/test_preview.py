"""The preview shows exactly what training would see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tools import preview
from utils.config.cli import parse, run_script
from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.core.errors import InputError
from utils.core.image import read_image
from utils.datasets.dataset import DetectionDataset
from utils.datasets.labels.splits import load_labels

pytestmark = pytest.mark.usefixtures("log_handlers_restored")


@pytest.fixture
def data(make_dataset: Any, tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "set", 5, 2)


def run(data: Path, folder: Path, *extra: str) -> int:
    argv = ["--data", str(data), "--n", "4", "--imgsz", "64", "--output", str(folder), *extra]
    return run_script(preview.main, preview.PreviewOptions, argv)


def test_two_grids_of_the_same_size_are_written(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "out") == 0
    augmented, plain = (read_image(tmp_path / "out" / name) for name in ("augmented.jpg", "plain.jpg"))
    assert augmented.shape == plain.shape
    assert not np.array_equal(augmented, plain)


def test_the_samples_are_those_of_the_training_set(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[torch.Tensor, torch.Tensor, list[str]]] = []

    def note(images: torch.Tensor, targets: torch.Tensor, paths: list[str], *rest: Any, **more: Any) -> None:
        drawn.append((images, targets, paths))

    monkeypatch.setattr(preview, "plot_batch", note)
    assert run(data, tmp_path / "out", "--seed", "7") == 0
    records = load_labels(DatasetSpec.load(data), "train").records
    keys = preview.choose(5, 4, 7)
    hyp = Hyp.load("hyp.scratch-low.yaml")
    for augment, (images, targets, paths) in zip((True, False), drawn):
        dataset = DetectionDataset(records, 64, augment=augment, hyp=hyp, seed=7)
        for place, key in enumerate(keys):
            item = dataset[key]
            assert torch.equal(images[place], item.image)
            assert torch.equal(targets[targets[:, 0] == place][:, 1:], item.targets[:, 1:])
            assert paths[place] == str(records[key[1]].image)


def test_the_hyper_parameters_given_are_used(data: Path, tmp_path: Path) -> None:
    hyp = tmp_path / "hyp.yaml"
    off = ("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr", "mosaic")
    hyp.write_text("".join(f"{key}: 0.0\n" for key in off), encoding="utf-8")
    assert run(data, tmp_path / "out", "--hyp", str(hyp)) == 0
    augmented, plain = (read_image(tmp_path / "out" / name) for name in ("augmented.jpg", "plain.jpg"))
    assert np.array_equal(augmented, plain)


def test_the_same_seed_draws_the_same_grid(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run(data, tmp_path / name, "--seed", seed)
    a, b, c = ((tmp_path / name / "augmented.jpg").read_bytes() for name in "abc")
    assert a == b != c


def test_images_come_again_in_the_next_epoch_only_when_all_were_drawn() -> None:
    keys = preview.choose(3, 7, 0)
    assert [epoch for epoch, _ in keys] == [0, 0, 0, 1, 1, 1, 2]
    assert sorted(index for _, index in keys[:3]) == sorted(index for _, index in keys[3:6]) == [0, 1, 2]


def test_the_last_line_counts_no_more_images_than_there_are(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    size = len(list((data.parent / "images/train").iterdir()))
    run(data, tmp_path / "out", "--n", str(size + 1))
    assert f"{size} of {size} images of train drawn, some again: {size + 1} drawings" in "".join(capfd.readouterr())


def test_another_split_can_be_looked_at(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "out", "--task", "val") == 0


def test_a_grid_that_is_there_is_replaced_only_with_leave(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/plain.jpg").write_bytes(b"mine")
    assert run(data, tmp_path / "out") == 1
    assert "plain.jpg is there already" in "".join(capfd.readouterr())
    assert (tmp_path / "out/plain.jpg").read_bytes() == b"mine"
    assert run(data, tmp_path / "out", "--exist-ok") == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--n", "0"], "--n 0 is too small"),
        (["--imgsz", "16"], "--imgsz 16 is too small"),
        (["--task", "speed"], "--task"),
        (["--output", ""], "--output is given an empty text"),
    ],
)
def test_an_option_error_is_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(preview.PreviewOptions, argv)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_image_of_the_set_is_never_written_over(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    data = make_dataset(tmp_path / "set")
    image = next((tmp_path / "set").rglob("*train*/*.*g"))
    image.rename(image.with_name("plain.jpg"))
    before = image.with_name("plain.jpg").read_bytes()
    with pytest.raises(InputError, match=r"plain\.jpg: would overwrite the input"):
        preview.main(preview.PreviewOptions(data=str(data), n=2, imgsz=64, output=str(image.parent), exist_ok=True))
    assert image.with_name("plain.jpg").read_bytes() == before and not (image.parent / "augmented.jpg").exists()
