"""YAML text → plain values and the line and column of every path in them: strict, and nothing is constructed."""

from runner.yaml_marks.marks import Mark, Marks, Path, Source
from runner.yaml_marks.reading import MAX_CHARS, Marked, read, typed

__all__ = ["MAX_CHARS", "Mark", "Marked", "Marks", "Path", "Source", "read", "typed"]
