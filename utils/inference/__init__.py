"""Using a trained model on pictures."""

from utils.inference.predictor import Detections, Predictor
from utils.inference.tiles import SlicedPredictor
from utils.inference.writers import Crops, DrawnImages, TextLabels

__all__ = ["Crops", "Detections", "DrawnImages", "Predictor", "SlicedPredictor", "TextLabels"]
