"""The parts of a training run that ``train.py`` puts together."""
