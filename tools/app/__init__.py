"""A web page to try a model on pictures and videos: ``python -m tools.app --weights best.pt``."""
