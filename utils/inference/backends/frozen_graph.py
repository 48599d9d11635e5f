"""A frozen graph of TensorFlow (``.pb``), for programs of its first generation."""

from __future__ import annotations

from utils.inference.backends.tensorflow import TensorFlowBackend
from utils.inference.venvs import TENSORFLOW


class FrozenGraphBackend(TensorFlowBackend):
    """One ``.pb`` file, which says in a node what it is. A graph that does more than compute is refused."""

    kind = "pb"
    what = "a frozen graph"
    stack = TENSORFLOW
