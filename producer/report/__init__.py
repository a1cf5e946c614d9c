"""The report of a run: one self-contained HTML page, made from plain data."""

from producer.report.data import Card, FailureRow, ReportData
from producer.report.render import render_report

__all__ = ["Card", "FailureRow", "ReportData", "render_report"]
