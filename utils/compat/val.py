"""Names of v6.1's ``val.py`` that this repository's makes elsewhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.config.keywords import parse_namespace
from utils.config.options import ValOptions
from utils.datasets.label_text import label_text
from utils.evaluation.coco_results import as_written, result_entry
from utils.metrics import match_as_v61 as process_batch

__all__ = ["parse_opt", "process_batch", "save_one_json", "save_one_txt"]


def parse_opt() -> argparse.Namespace:
    """The options of the command line, for ``val.main``."""
    return parse_namespace(ValOptions)


def save_one_txt(predn: Tensor, save_conf: bool, shape: tuple[int, int], file: str | Path) -> None:
    """Write the detections [k, 6] (x1 y1 x2 y2 confidence class) of an image of ``shape`` (h, w) as a label file."""
    Path(file).write_text(label_text(predn, shape, save_conf), encoding="utf-8")


def save_one_json(predn: Tensor, jdict: list[dict[str, Any]], path: Path, class_map: Sequence[int]) -> None:
    """Append the detections [k, 6] of an image to a list in COCO's format; its id is its name or the number in it."""
    name, found = Path(path).stem, predn.cpu().double().numpy()
    image_id = int(name) if name.isdecimal() else name
    kinds = found[:, 5].astype(int).tolist()
    jdict.extend(result_entry(image_id, class_map[k], row) for k, row in zip(kinds, as_written(found).tolist()))
