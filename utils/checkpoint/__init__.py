"""Checkpoints: the safe format of this repository, reading of official files, transfer of weights."""

from utils.checkpoint.format import Checkpoint, load_checkpoint, load_model, save_checkpoint
from utils.checkpoint.transfer import TransferReport, transfer

__all__ = ["Checkpoint", "TransferReport", "load_checkpoint", "load_model", "save_checkpoint", "transfer"]
