"""``parse_opt`` of v6.1's ``detect.py``."""

from __future__ import annotations

import argparse

from utils.config.keywords import parse_namespace
from utils.config.options import DetectOptions


def parse_opt() -> argparse.Namespace:
    """The options of the command line, for ``detect.main``."""
    return parse_namespace(DetectOptions)
