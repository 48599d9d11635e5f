"""A web page to try a model on images and videos: ``python -m tools.app --weights best.pt``."""
