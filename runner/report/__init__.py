"""`recipe report`: one self-contained HTML file about a run, or about several beside each other."""

from runner.report.page import Written, markdown, write
from runner.report.pictures import FORMATS, pictures

__all__ = ["FORMATS", "Written", "markdown", "pictures", "write"]
