"""`recipe report`: one self-contained HTML file about a run, or about several beside each other."""

from runner.report.page import Written, markdown, write

__all__ = ["Written", "markdown", "write"]
