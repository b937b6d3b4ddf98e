"""`recipe preview`: real rows of each stage, token by token, and which of them are learned."""

from runner.preview.records import StagePreview
from runner.preview.rows import preview
from runner.preview.screen import screen

__all__ = ["StagePreview", "preview", "screen"]
