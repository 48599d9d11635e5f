"""TensorFlow's SavedModel (folder ``<name>_saved_model``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from utils.inference.backends.metadata import from_json
from utils.inference.backends.tensorflow import ABOUT, TensorFlowBackend
from utils.inference.venvs import TENSORFLOW


class SavedModelBackend(TensorFlowBackend):
    """One folder. A graph that does more than compute is refused."""

    kind = "saved_model"
    what = "a SavedModel"
    stack = TENSORFLOW

    @staticmethod
    def said_in(file: Path) -> Mapping[str, str]:
        about = file / ABOUT
        return from_json(about.read_bytes()) if about.is_file() else {}
