"""Scoring a model on a data set."""

from utils.evaluation.evaluator import Evaluator, NmsSettings
from utils.evaluation.results import EvalResult, ImageResult, Tally

__all__ = ["EvalResult", "Evaluator", "ImageResult", "NmsSettings", "Tally"]
