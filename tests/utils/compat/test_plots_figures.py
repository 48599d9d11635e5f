"""v6.1's figures, called as its scripts call them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from utils import metrics, plots
from utils.core.errors import InputError
from utils.core.image import read_image


def test_colours() -> None:
    colors = plots.Colors()
    assert colors(3) == colors(3 + colors.n) == colors.palette[3] == colors(3, bgr=True)[::-1]
    assert colors.hex2rgb("#FF8000") == (255, 128, 0)


def test_detections_become_rows() -> None:
    found = [torch.zeros(0, 6), torch.tensor([[10.0, 20, 30, 60, 0.9, 2]])]
    assert plots.output_to_target(found) == pytest.approx(np.array([[1, 2, 20, 40, 20, 40, 0.9]]))
    assert plots.output_to_target([]).shape == (0, 7)


@pytest.mark.parametrize("in_pixels", [False, True])
def test_a_sheet_of_images_takes_fractions_and_pixels(tmp_path: Path, in_pixels: bool) -> None:
    images = torch.zeros(2, 3, 256, 256, dtype=torch.uint8)
    box = torch.tensor([0.5, 0.5, 0.25, 0.25]) * (256 if in_pixels else 1)
    targets = torch.cat([torch.tensor([1.0, 1]), box])[None]
    plots.plot_images(images, targets, ["a.jpg", "b.jpg"], tmp_path / "x.png", {0: "ant", 1: "bee"})
    sheet = read_image(tmp_path / "x.png")
    second = sheet[:, -256:]
    assert second[96:160, 94:98].max() > 100  # the left edge of the box
    assert sheet[20:200, 20:236].max() < 20  # nothing in the first image


def test_a_map_becomes_a_image_and_an_array(tmp_path: Path) -> None:
    plots.feature_visualization(torch.rand(1, 4, 8, 8), "models.common.Conv", 3, save_dir=tmp_path)
    assert np.load(tmp_path / "stage3_Conv_features.npy").shape == (4, 8, 8)
    plots.feature_visualization(torch.rand(1, 4, 8, 8), "models.yolo.Detect", 9, save_dir=tmp_path)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".npy", ".png"]


def test_density_of_points() -> None:
    x = np.array([0.0, 0.0, 0.0, 1.0])
    assert plots.hist2d(x, x, n=4) == pytest.approx(np.log([3, 3, 3, 1]))


def test_a_low_pass_keeps_the_slow_part() -> None:
    pytest.importorskip("scipy")
    t = np.arange(2000) / 50000
    slow, fast = np.sin(2 * np.pi * 100 * t), np.sin(2 * np.pi * 20000 * t)
    assert np.abs(plots.butter_lowpass_filtfilt(slow + fast) - slow)[100:-100].max() < 0.01


def test_the_rates_to_come_are_drawn_and_nothing_has_moved(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    plots.plot_lr_scheduler(optimizer, scheduler, 5, tmp_path)
    assert (tmp_path / "LR.png").is_file()
    assert optimizer.param_groups[0]["lr"] == 0.1 and scheduler.last_epoch == 0


def test_tables_of_boxes_are_drawn_in_their_folder(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((50, 6)).astype(np.float32)
    np.savetxt(tmp_path / "val.txt", rows)
    np.savetxt(tmp_path / "targets.txt", rows)
    plots.plot_val_txt(tmp_path / "val.txt")
    plots.plot_targets_txt(tmp_path / "targets.txt")
    assert {"hist2d.png", "hist1d.png", "targets.jpg"} <= {file.name for file in tmp_path.iterdir()}


def test_studies_of_a_folder_share_a_chart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study"):
        plots.plot_val_study(dir=tmp_path)
    for name in ("a", "b"):
        np.savetxt(tmp_path / f"study_coco_{name}.txt", np.random.default_rng(0).random((3, 10)))
    plots.plot_val_study(dir=tmp_path, x=[256, 384, 512])
    assert (tmp_path / "study.png").is_file()


def test_records_of_the_app_are_drawn(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "frames_phone.txt", np.random.default_rng(0).random((200, 8)))
    plots.profile_idetection(save_dir=tmp_path)
    assert (tmp_path / "idetection_profile.png").is_file()


def test_curves_are_found_among_the_metrics(tmp_path: Path) -> None:
    axis = np.linspace(0, 1, 10)
    metrics.plot_pr_curve(axis, [axis[::-1]], np.full((1, 10), 0.5), tmp_path / "pr.png", {0: "ant"})
    metrics.plot_mc_curve(axis, axis[None], tmp_path / "f1.png", ["ant"], ylabel="F1")
    assert (tmp_path / "pr.png").is_file() and (tmp_path / "f1.png").is_file()


def test_the_rank_is_that_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert plots.RANK == -1
    monkeypatch.setenv("RANK", "2")
    assert plots.RANK == 2


def test_the_font_of_labels(tmp_path: Path) -> None:
    assert plots.check_pil_font("Arial.ttf", 12).getbbox("abc")[2] > 5
