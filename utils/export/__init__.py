"""Files for other programs out of a trained model."""

from utils.export.base import Exporter, Job, check_writable
from utils.export.report import Row, log_rows
from utils.export.run import export_all

__all__ = ["Exporter", "Job", "Row", "check_writable", "export_all", "log_rows"]
