"""``utils.callbacks`` of YOLOv5: ``utils/core/v61.py`` lists the module that defines each name."""

from utils.core.v61 import only_served

__all__, __getattr__ = only_served("utils.callbacks")
