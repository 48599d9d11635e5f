"""A web page to try a model on pictures and videos: ``python -m utils.app --weights best.pt``."""
