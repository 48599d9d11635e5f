"""Evaluation of a model on a data set."""

from utils.evaluation.evaluator import Evaluator
from utils.evaluation.results import EvalResult, ImageResult, MetricsCollector

__all__ = ["EvalResult", "Evaluator", "ImageResult", "MetricsCollector"]
