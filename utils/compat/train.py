"""``parse_opt`` of v6.1's ``train.py``."""

from __future__ import annotations

import argparse

from utils.config.keywords import parse_namespace
from utils.config.options import TrainOptions


def parse_opt(known: bool = False) -> argparse.Namespace:
    """The options of the command line, for ``train.main``; ``known`` passes over options of other programs."""
    return parse_namespace(TrainOptions, known)
