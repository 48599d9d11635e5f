"""Files for other programs out of a trained model."""

from utils.export.checkpoint import export_checkpoint
from utils.export.report import Row, log_rows, table

__all__ = ["Row", "export_checkpoint", "log_rows", "table"]
