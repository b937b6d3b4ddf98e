"""The terminal: records of a run to rich renderables, and how they are shown while things go on.

Nothing is decided here, and no file is read.

What is shown of a decision is in `tables`, which the end of pytest and `recipe compare` share.
"""

from runner.console.ended import Ending, ending_screen
from runner.console.faults import print_error
from runner.console.going import RunView, StageProgress, Turned, run_screen, works_screen
from runner.console.live_view import LiveView
from runner.console.log_lines import LogLines
from runner.console.planned import plan_screen
from runner.console.waiting import Note, is_live, shown, waiting
from runner.console.words import UNKNOWN, bytes_words, duration, left_words, sparkline, work_words

__all__ = [
    "UNKNOWN",
    "Ending",
    "LiveView",
    "LogLines",
    "Note",
    "RunView",
    "StageProgress",
    "Turned",
    "bytes_words",
    "duration",
    "ending_screen",
    "is_live",
    "left_words",
    "plan_screen",
    "print_error",
    "run_screen",
    "shown",
    "sparkline",
    "waiting",
    "work_words",
    "works_screen",
]
