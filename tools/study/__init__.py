"""Comparing variants of a model fairly: arms x learning rates x seeds x data sets from one yaml, see README.md here."""
