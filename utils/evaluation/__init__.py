"""Scoring a model on a data set."""

from utils.evaluation.evaluator import EvalResult, Evaluator, NmsSettings

__all__ = ["EvalResult", "Evaluator", "NmsSettings"]
