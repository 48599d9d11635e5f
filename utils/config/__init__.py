"""Typed settings: options of the scripts, hyper-parameters, data sets."""

from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.config.options import DetectOptions, TrainOptions, ValOptions
from utils.config.paths import ROOT

__all__ = ["ROOT", "DatasetSpec", "DetectOptions", "Hyp", "TrainOptions", "ValOptions"]
