"""Using a trained model on images."""

from utils.inference.predictor import Candidates, Detections, Predictor, Thresholds
from utils.inference.tiles import SlicedPredictor
from utils.inference.weights import Origin, input_size, open_weights
from utils.inference.writers import Crops, DrawnImages, TextLabels

__all__ = [
    "Candidates", "Crops", "Detections", "DrawnImages", "Origin", "Predictor", "SlicedPredictor", "TextLabels",
    "Thresholds", "input_size", "open_weights",
]  # fmt: skip
