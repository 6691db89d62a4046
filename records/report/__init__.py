"""What happened in a run, as one self-contained page."""

from records.report.page import write_report

__all__ = ["write_report"]
