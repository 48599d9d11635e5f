"""``parse_opt`` of the four scripts: the options of the command line, for their ``main``."""

from __future__ import annotations

import argparse

from utils.config.keywords import parse_namespace
from utils.config.options import DetectOptions, ExportOptions, TrainOptions, ValOptions


def parse_train_opt(known: bool = False) -> argparse.Namespace:
    """``train.parse_opt``; ``known`` ignores options of other programs."""
    return parse_namespace(TrainOptions, known)


def parse_val_opt() -> argparse.Namespace:
    """``val.parse_opt``."""
    return parse_namespace(ValOptions)


def parse_detect_opt() -> argparse.Namespace:
    """``detect.parse_opt``."""
    return parse_namespace(DetectOptions)


def parse_export_opt() -> argparse.Namespace:
    """``export.parse_opt``."""
    return parse_namespace(ExportOptions)
