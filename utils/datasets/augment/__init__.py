"""Augmentations of images with their labels. All random draws come from the generator that is passed."""
