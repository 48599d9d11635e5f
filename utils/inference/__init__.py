"""Using a trained model on pictures."""

from utils.inference.predictor import Detections, Predictor
from utils.inference.tiles import SlicedPredictor
from utils.inference.weights import Origin, input_size, open_weights
from utils.inference.writers import Crops, DrawnImages, TextLabels

__all__ = [
    "Crops", "Detections", "DrawnImages", "Origin", "Predictor", "SlicedPredictor", "TextLabels", "input_size",
    "open_weights",
]  # fmt: skip
