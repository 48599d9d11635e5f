"""v6.1's figures under its names and calls, for other people's scripts."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageFont
from torch import Tensor

from utils.core.boxes import xyxy2xywh
from utils.core.errors import InputError
from utils.core.image import write_image
from utils.plots import curves
from utils.plots.annotate import Color, color_for
from utils.plots.batches import plot_batch
from utils.plots.features import feature_grid
from utils.plots.figure import class_color, new_figure, save_figure, tidy
from utils.plots.fonts import font_for
from utils.plots.study import StudyLine, plot_study

_PALETTE_SIZE = 20
_FRACTIONS_UP_TO = 1.01  # boxes beyond this are in pixels
_WARMING, _ENDING = 90, 30  # rows of the records of iDetection that v6.1 leaves out at both ends
_STUDY_SIZES = tuple(range(256, 1536 + 128, 128))


class Colors:
    """``colors(i)``: the colour of a class as (r, g, b), with ``bgr`` as (b, g, r); ``palette`` has all ``n``."""

    def __init__(self) -> None:
        self.palette: list[Color] = [self._rgb(i) for i in range(_PALETTE_SIZE)]
        self.n = len(self.palette)

    def __call__(self, i: int | float, bgr: bool = False) -> Color:
        return color_for(int(i)) if bgr else self._rgb(int(i))

    @staticmethod
    def _rgb(i: int) -> Color:
        blue, green, red = color_for(i)
        return red, green, blue

    @staticmethod
    def hex2rgb(h: str) -> Color:
        """ "#ff8000" -> (255, 128, 0)."""
        red, green, blue = bytes.fromhex(h.removeprefix("#"))
        return red, green, blue


def check_pil_font(font: str | Path = "", size: int = 10) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font for Pillow: that of the file, else the one labels are drawn with. Nothing is fetched."""
    return ImageFont.truetype(str(font), size) if font and Path(font).is_file() else font_for("", size)


def feature_visualization(
    x: Tensor, module_type: str, stage: int, n: int = 32, save_dir: str | Path = "runs/detect/exp"
) -> None:
    """Write the first ``n`` channels of the first image's map [B, C, H, W] as an image, and all of them as .npy.

    The head, whose output is not a map, and maps of a single place are left out.
    """
    if "Detect" in module_type or x.ndim != 4 or x.shape[2] * x.shape[3] <= 1:
        return
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"stage{stage}_{module_type.rpartition('.')[2]}_features"
    write_image(folder / f"{stem}.png", feature_grid(x[0], n))
    np.save(folder / f"{stem}.npy", x[0].detach().float().cpu().numpy())


def hist2d(x: np.ndarray, y: np.ndarray, n: int = 100) -> np.ndarray:
    """[points] logarithm of how many points share the cell of each, of ``n`` x ``n`` cells over their range."""
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=n)
    column = np.searchsorted(x_edges, x, side="right").clip(1, n) - 1
    row = np.searchsorted(y_edges, y, side="right").clip(1, n) - 1
    return np.log(counts[column, row])


def butter_lowpass_filtfilt(data: np.ndarray, cutoff: float = 1500, fs: float = 50000, order: int = 5) -> np.ndarray:
    """``data`` without what is faster than ``cutoff``, at ``fs`` values a second: Butterworth, forwards and backwards.

    Raises:
        InputError: the package scipy is missing.
    """
    try:
        from scipy import signal
    except ImportError as error:
        raise InputError("butter_lowpass_filtfilt needs scipy: pip install scipy") from error
    return signal.filtfilt(*signal.butter(order, 2 * cutoff / fs), data)


def output_to_target(output: Sequence[Tensor]) -> np.ndarray:
    """Detections of each image [n, 6] x1, y1, x2, y2, confidence, class as rows [N, 7] image, class, xywh, conf."""
    rows = [np.zeros((0, 7), np.float32)]
    for number, found in enumerate(output):
        array = found.detach().float().cpu().numpy()
        place = np.full((len(array), 1), number, np.float32)
        rows.append(np.hstack((place, array[:, 5:6], xyxy2xywh(array[:, :4]), array[:, 4:5])))
    return np.concatenate(rows)


def plot_images(
    images: Tensor | np.ndarray,
    targets: Tensor | np.ndarray,
    paths: Sequence[str] | None = None,
    fname: str | Path = "images.jpg",
    names: Sequence[str] | Mapping[int, str] | None = None,
    max_size: int = 1920,
    max_subplots: int = 16,
) -> None:
    """Write images [B, 3, H, W] RGB, uint8 or 0..1, with their boxes as one sheet.

    Args:
        targets: [N, 6] image, class, xywh, or [N, 7] with a confidence; boxes as fractions or in pixels.
        names: of the classes.
        max_size: longest side of the sheet in pixels. max_subplots: most images on it.
    """
    rows = targets.detach().float().cpu().numpy().copy() if isinstance(targets, Tensor) else np.array(targets, float)
    rows = rows.reshape(-1, rows.shape[-1] if rows.size else 6)
    if rows.size and rows[:, 2:6].max() > _FRACTIONS_UP_TO:
        height, width = images.shape[2:]
        rows[:, 2:6] /= (width, height, width, height)
    plot_batch(images, rows, list(paths or ()), Path(fname), _listed(names), max_subplots, max_size)


def _listed(names: Sequence[str] | Mapping[int, str] | None) -> list[str]:
    if isinstance(names, Mapping):
        return [str(names.get(i, i)) for i in range(max(names, default=-1) + 1)]
    return list(names or ())


def plot_lr_scheduler(optimizer: Any, scheduler: Any, epochs: int = 300, save_dir: str | Path = "") -> None:
    """Write the learning rate of each epoch to ``LR.png``; optimizer and scheduler stay as they are."""
    optimizer, scheduler = copy.copy(optimizer), copy.copy(scheduler)
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]
    scheduler.optimizer = optimizer
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a scheduler that goes on without its optimizer
        for _ in range(epochs):
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
    figure = new_figure(6, 4)
    axes = figure.subplots()
    axes.plot(rates, marker=".")
    tidy(axes, "Learning rate", "epoch", "rate")
    axes.set(xlim=(0, epochs), ylim=(0, None))
    save_figure(figure, Path(save_dir) / "LR.png")


def plot_val_txt(file: str | Path = "val.txt") -> None:
    """From rows that begin with x1, y1, x2, y2: ``hist2d.png`` of the centres and ``hist1d.png``, in the folder."""
    centres = xyxy2xywh(np.loadtxt(file, dtype=np.float32, ndmin=2)[:, :4])[:, :2]
    folder = Path(file).absolute().parent
    figure = new_figure(6, 6)
    axes = figure.subplots()
    axes.hist2d(centres[:, 0], centres[:, 1], bins=600, cmax=10, cmin=0)
    tidy(axes, "Centres", "x", "y", grid=False)
    axes.set_aspect("equal")
    save_figure(figure, folder / "hist2d.png")
    _histograms(centres.T, ("x of the centre", "y of the centre"), folder / "hist1d.png")


def plot_targets_txt(file: str | Path = "targets.txt") -> None:
    """From rows image, class, x, y, w, h: histograms of the last four, ``targets.jpg`` in the folder."""
    values = np.loadtxt(file, dtype=np.float32, ndmin=2)[:, 2:6].T
    _histograms(values, ("x", "y", "width", "height"), Path(file).absolute().with_name("targets.jpg"))


def _histograms(columns: np.ndarray, titles: Sequence[str], file: Path) -> None:
    figure = new_figure(3.5 * len(titles), 3.2)
    for i, (axes, values, title) in enumerate(zip(figure.subplots(1, len(titles)), columns, titles, strict=True)):
        axes.hist(values, bins=100, color=class_color(i))
        tidy(axes, title, f"{values.mean():.3g} +/- {values.std():.3g}", "boxes")
    save_figure(figure, file)


def plot_val_study(file: str | Path = "", dir: str | Path = "", x: Sequence[int] | None = None) -> None:
    """Draw ``study*.txt`` of ``val.py --task study``, one or all of a folder: ``study.png`` there.

    Args:
        x: the image sizes of the rows; None: 256, 384, ... as far as there are rows.
    """
    folder = Path(dir) if dir else Path(file).absolute().parent
    files = [Path(file)] if file else sorted(folder.glob("study*.txt"))
    if not files:
        raise InputError(f"{folder}: no study*.txt in it; val.py --task study writes them")
    lines = []
    for each in files:
        rows = np.loadtxt(each, dtype=np.float64, ndmin=2)[:, :10]  # P, R, mAP50, mAP, 3 losses, 3 times
        sizes = list(x or _STUDY_SIZES)[: len(rows)]
        name = each.stem.rpartition("_")[2]
        lines.append(StudyLine(name, "dynamic" in each.stem, sizes, rows[:, 3].tolist(), rows[:, 8:10].sum(1).tolist()))
    plot_study(lines, folder / "study.png")


def profile_idetection(start: int = 0, stop: int = 0, labels: Sequence[str] = (), save_dir: str | Path = "") -> None:
    """Draw the records of the iDetection app, ``frames*.txt`` of a folder, side by side: ``idetection_profile.png``.

    Args:
        start, stop: rows of the files to draw; 0: all.
        labels: of the files; else their names.
    """
    titles = ("images", "storage (GB)", "memory (GB)", "battery", "raw dt (ms)", "smooth dt (ms)", "real-world FPS")
    files = sorted(Path(save_dir).glob("frames*.txt"))
    if not files:
        raise InputError(f"{Path(save_dir).absolute()}: no frames*.txt in it")
    figure = new_figure(12, 6)
    panels = figure.subplots(2, 4).ravel()
    panels[-1].set_axis_off()
    for number, file in enumerate(files):
        rows = np.loadtxt(file, ndmin=2)[_WARMING : -_ENDING or None][start : stop or None]
        if not rows.size:
            raise InputError(f"{file}: no rows are left of it")
        table = rows.T
        seconds = (table[0] - table[0][0]) * 1e-3
        name = labels[number] if number < len(labels) else file.stem.removeprefix("frames_")
        for axes, title, values in zip(panels, titles, table[1:]):
            axes.plot(seconds, values, marker=".", linewidth=1, markersize=2, label=name, color=class_color(number))
            tidy(axes, title, "seconds")
    panels[1].legend(frameon=False, fontsize=8)
    save_figure(figure, Path(save_dir) / "idetection_profile.png")


# Curves, which v6.1 has in utils.metrics ------------------------------------------------------------------------------


def plot_pr_curve(
    px: np.ndarray,
    py: Sequence[np.ndarray],
    ap: np.ndarray,
    save_dir: str | Path = "pr_curve.png",
    names: Sequence[str] | Mapping[int, str] = (),
) -> None:
    """Write precision over recall to the file ``save_dir``: ``px`` [M], ``py`` [nc] arrays [M], ``ap`` [nc, t]."""
    table, ap50 = np.array(py).reshape(-1, len(px)), np.asarray(ap)[:, 0] if len(ap) else np.zeros(0)
    curves.plot_pr_curve(px, table, ap50, _padded(names, len(table)), Path(save_dir))


def plot_mc_curve(
    px: np.ndarray,
    py: np.ndarray,
    save_dir: str | Path = "mc_curve.png",
    names: Sequence[str] | Mapping[int, str] = (),
    xlabel: str = "Confidence",
    ylabel: str = "Metric",
) -> None:
    """Write a metric over confidence to the file ``save_dir``: ``px`` [M], ``py`` [nc, M]; ``xlabel`` has no effect."""
    table = np.asarray(py).reshape(-1, len(px))
    curves.plot_metric_curve(px, table, _padded(names, len(table)), Path(save_dir), ylabel)


def _padded(names: Sequence[str] | Mapping[int, str], count: int) -> list[str]:
    """A name for each class, its number where there is none."""
    known = list(names.values()) if isinstance(names, Mapping) else list(names)
    return [known[i] if i < len(known) else str(i) for i in range(count)]
