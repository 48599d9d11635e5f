"""The checks of ``python -m tools.check`` beyond what training needs, and their report."""
