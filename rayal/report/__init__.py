"""What a run looks like: one self-contained page."""

from rayal.report.build import write_report
from rayal.report.page import render
from rayal.report.view import PickView, RoundView, RunView, SpendView

__all__ = ["PickView", "RoundView", "RunView", "SpendView", "render", "write_report"]
