"""Files for other programs out of a trained model."""

from utils.export.checkpoint import export_checkpoint
from utils.export.results import ExportResult, format_results, log_results

__all__ = ["ExportResult", "export_checkpoint", "format_results", "log_results"]
