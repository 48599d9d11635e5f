"""Using a trained model on images."""

from utils.inference.predictor import Candidates, ImageDetections, Predictor, Thresholds
from utils.inference.weights import WeightsInfo, input_size, open_weights, use_half

__all__ = [
    "Candidates",
    "ImageDetections",
    "Predictor",
    "Thresholds",
    "WeightsInfo",
    "input_size",
    "open_weights",
    "use_half",
]
