"""`recipe compare`: two checkpoints, runs or verdict files, suite by suite and case by case. It never imports torch."""

from runner.comparing.markdown_screen import markdown
from runner.comparing.records import Compared, SuiteCompared, compare
from runner.comparing.screen import screen
from runner.comparing.sides import Side, find

__all__ = ["Compared", "Side", "SuiteCompared", "compare", "find", "markdown", "screen"]
