"""Feature maps of the layers of a model, collected by hooks and drawn as grids of channels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from models.yolo import Detect, Model
from utils.core.image import write_image
from utils.core.names import file_name
from utils.core.output import OutputFolder
from utils.plots.grid import image_grid

GRID_COLUMNS = 8
_GAP = 2  # white pixels between the channels
_CELL_PX = (64, 192)  # channels are enlarged or made smaller so that their longer side is in this range


def feature_grid(feature_map: Tensor | np.ndarray, channels: int = 32) -> np.ndarray:
    """Draw the first channels of a feature map side by side, each coloured over its own range, dark for low values.

    Args:
        feature_map: [C, H, W], any floating type; values that are not finite count as 0.
        channels: most channels to show.

    Returns:
        [h, w, 3] BGR uint8, at most 8 channels in a row.

    Raises:
        ValueError: not three dimensions, or one of them is empty.
    """
    if feature_map.ndim != 3 or 0 in feature_map.shape:
        raise ValueError(f"expected a feature map [C, H, W] with values, got the shape {tuple(feature_map.shape)}")
    shown = torch.as_tensor(feature_map)[:channels].detach().float().cpu()
    cells = [_colour(channel) for channel in shown.nan_to_num(0.0, 0.0, 0.0).numpy()]
    return image_grid(cells, min(GRID_COLUMNS, len(cells)), _GAP)


def _colour(channel: np.ndarray) -> np.ndarray:
    """Convert [H, W] float to [h, w, 3] BGR, with one block per value if it is enlarged."""
    low, high = float(channel.min()), float(channel.max())
    spread = high - low
    grey: np.ndarray = np.zeros(channel.shape, np.uint8)
    if spread > 0:
        grey = np.rint((channel.astype(np.float64) - low) / spread * 255).astype(np.uint8)
    longer = max(channel.shape)
    smallest, largest = _CELL_PX
    if longer < smallest:
        times = math.ceil(smallest / longer)
        grey = grey.repeat(times, axis=0).repeat(times, axis=1)
    elif longer > largest:
        height, width = (max(1, round(side * largest / longer)) for side in channel.shape)
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS)


class FeatureMaps:
    """Collects the feature maps of all layers but the head, in a ``with`` statement.

        with FeatureMaps(model) as features:
            model(image)
        features.save(folder)

    Of every layer, the first image of the first call is used: with test-time augmentation the full-size view.

    Args:
        model: a :class:`Model`, or a module that contains one, such as an AugmentedModel.

    Raises:
        ValueError: it contains no model.
    """

    def __init__(self, model: nn.Module) -> None:
        inner = next((module for module in model.modules() if isinstance(module, Model)), None)
        if inner is None:
            raise ValueError(f"{type(model).__name__} holds no model whose layers could be shown")
        self.layers = [layer for layer in inner.model if not isinstance(layer, Detect)]
        self.by_layer: dict[int, Tensor] = {}  # by index of the layer: [C, H, W]
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> FeatureMaps:
        self.by_layer.clear()
        self._hooks = [layer.register_forward_hook(self._keep(index)) for index, layer in enumerate(self.layers)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _keep(self, index: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if index not in self.by_layer and isinstance(output, Tensor) and output.ndim == 4 and output.numel():
                self.by_layer[index] = output[0].detach().clone()  # later layers may write into it

        return hook

    def save(self, folder: Path, channels: int = 32) -> None:
        """Write ``stage<index>_<type>_features.png`` (the first channels) and ``.npy`` (all, float32) per layer."""
        output = OutputFolder(folder)
        for index, feature_map in sorted(self.by_layer.items()):
            kind = str(getattr(self.layers[index], "type", type(self.layers[index]).__name__)).rpartition(".")[2]
            save_feature_map(feature_map, output, file_name(f"stage{index}_{kind}_features"), channels)


def save_feature_map(feature_map: Tensor, output: OutputFolder, stem: str, channels: int = 32) -> None:
    """Write the first channels of a feature map [C, H, W] as ``<stem>.png`` and all, in float32, as ``<stem>.npy``."""
    write_image(output.path(f"{stem}.png"), feature_grid(feature_map, channels))
    np.save(output.path(f"{stem}.npy"), feature_map.detach().float().cpu().numpy())


class FeatureFiles:
    """Writes feature maps of images, each to a folder named after its image below ``folder``."""

    def __init__(self, folder: Path | OutputFolder) -> None:
        self.folder = OutputFolder.of(folder)
        self._used: Counter[Path] = Counter()

    def write(self, relative: Path, feature_maps: FeatureMaps) -> Path:
        """Save feature maps in ``relative`` without its suffix, with a number from the second image of that name on."""
        stem = relative.with_suffix("")
        self._used[stem] += 1
        number = self._used[stem]
        folder = self.folder.path(stem if number == 1 else stem.with_name(f"{stem.name}{number}"))
        feature_maps.save(folder)
        return folder
