"""Models by name, for ``torch.hub``.

    model = torch.hub.load(".", "custom", path="best.pt", source="local")
    model = torch.hub.load(".", "yolov5n_dynamic", classes=4, source="local")

Nothing is downloaded: ``pretrained=True`` reads ``<name>.pt`` from the working directory or from ``weights/`` in it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

dependencies = ["torch", "yaml"]


def custom(
    path: str | Path = "path/to/model.pt",
    autoshape: bool = True,
    verbose: bool = True,
    device: str | torch.device | None = None,
    _verbose: bool = True,
    trust: bool = False,
) -> Any:
    """Load the model of a checkpoint or of an exported file.

    Args:
        path: ``.pt`` file, or one of another format.
        autoshape: wrap it in AutoShape, which takes images; False: it takes tensors.
        verbose, _verbose: log what is built; the second is the later name, which ``torch.hub`` passes on.
        device: "cpu", "0"; default: the first GPU if there is one.
        trust: open a file that may run code of its maker, as ``--trust`` does.

    Raises:
        FileNotFoundError, InputError: no such file, or not a model.
    """
    from utils.inference.backends import DetectMultiBackend

    target = _device(device)
    return _finish(DetectMultiBackend(path, device=target, trust=trust), target, autoshape, verbose and _verbose)


def _device(device: str | torch.device | None) -> torch.device:
    from utils.core.device import select_device

    return device if isinstance(device, torch.device) else select_device("" if device is None else str(device))


def _local_weights(name: str) -> Path:
    tried = [Path.cwd() / f"{name}.pt", Path.cwd() / "weights" / f"{name}.pt"]
    for path in tried:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{name}.pt not found; searched: {' and '.join(map(str, tried))}. Nothing is downloaded: put the file there, "
        "or use pretrained=False"
    )


def _finish(model: Any, device: torch.device, autoshape: bool, verbose: bool) -> Any:
    from utils.inference.autoshape import AutoShape

    return (AutoShape(model, verbose) if autoshape else model).to(device)


def _entry(name: str) -> Callable[..., Any]:
    """Return the function that ``torch.hub`` calls by a model's name."""

    def create(
        pretrained: bool = False,
        channels: int = 3,
        classes: int = 80,
        autoshape: bool = True,
        verbose: bool = True,
        device: str | torch.device | None = None,
        _verbose: bool = True,
    ) -> Any:
        from utils.checkpoint import load_checkpoint, transfer
        from utils.config.class_names import ClassNames
        from utils.inference.attempt_load import LoadedModel

        target = _device(device)
        path = _local_weights(name) if pretrained else None
        checkpoint = load_checkpoint(path) if path else None
        if path and checkpoint and (channels, classes) == (checkpoint.model_yaml.get("ch", 3), checkpoint.nc):
            return custom(path, autoshape, verbose and _verbose, target)
        model = LoadedModel(f"{name}.yaml", channels, classes)
        model.names = ClassNames(model.names)
        if checkpoint:
            transfer(model, checkpoint.weights).log(str(path))
            model.imgsz = checkpoint.recorded_size(str(path))
        return _finish(model, target, autoshape, verbose and _verbose)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"""Build {name}.yaml, untrained; with ``pretrained`` copy what fits of a local ``{name}.pt``.

    Args:
        pretrained: read ``{name}.pt`` from the working directory or from ``weights/`` in it.
        channels, classes: of the images, of the data set.
        autoshape, verbose, device, _verbose: as for ``custom``.

    Raises:
        FileNotFoundError: ``pretrained``, and no such file.
    """
    return create


yolov5n, yolov5s, yolov5m, yolov5l, yolov5x = map(_entry, ("yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x"))
yolov5n6, yolov5s6, yolov5m6 = map(_entry, ("yolov5n6", "yolov5s6", "yolov5m6"))
yolov5l6, yolov5x6 = map(_entry, ("yolov5l6", "yolov5x6"))
yolov5n_dynamic, yolov5s_dynamic = map(_entry, ("yolov5n_dynamic", "yolov5s_dynamic"))
yolov5m_dynamic, yolov5l_dynamic = map(_entry, ("yolov5m_dynamic", "yolov5l_dynamic"))
yolov5x_dynamic = _entry("yolov5x_dynamic")
