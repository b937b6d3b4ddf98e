"""Checks of `rejected:` entries that lead elsewhere: is the file there, does the checkpoint exist by then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import spec
from runner.errors import Problem
from runner.recipe.checkpoint_refs import CheckpointRefs
from runner.recipe.layers import Layered, near_file, strings_of
from runner.recipe.shapes import Blocks, chain
from runner.yaml_marks import Path as ValuePath


@dataclass
class NegativeBlocks:
    """Checks the blocks `{sample: …}` and `{file: …}`; what is wrong is added to `problems`."""

    layered: Layered
    root: Path
    files: bool
    """Whether to look if a file that is named exists."""
    sources: Blocks
    stages: Mapping[str, Mapping[str, Any]]
    checkpoints: CheckpointRefs
    problems: list[Problem]

    def check(self) -> None:
        """Reports every entry that cannot be made."""
        for name, block in self.sources.items():
            for entry, path in _entries(block.get("rejected"), ("data", name, "rejected")):
                if self.files and isinstance(entry.get("file"), str):
                    self._file(entry["file"], (*path, "file"))
                if isinstance(entry.get("sample"), str):
                    self._sample(entry["sample"], name, (*path, "sample"))

    def _file(self, text: str, path: ValuePath) -> None:
        if not (self.root / text).is_file():
            where = self.layered.mark(path).at_value()
            expected = "a jsonl file with prompt and rejected, from the project root"
            self.problems.append(
                Problem(f"there is no file {text}", where, expected, near_file(self.root / text, text))
            )

    def _sample(self, text: str, name: str, path: ValuePath) -> None:
        """The checkpoint must be there before the first stage that takes these rows."""
        ref = spec.parse_ref(text)
        order = list(self.stages)
        first = next((stage for stage, block in self.stages.items() if self._takes(block, name)), None)
        if ref is None or first is None or ref.stage not in order[order.index(first) :]:
            self.checkpoints.check(text, path, order)
            return
        what = "is that stage itself" if ref.stage == first else "comes later"
        start = self.stages[first].get("from")
        self.problems.append(
            Problem(
                f"`{first}` takes these rows, and `{ref.stage}` {what}",
                self.layered.mark(path).at_value(),
                f"a checkpoint of a stage above `{first}`, or a folder",
                f"for example {start}" if isinstance(start, str) else None,
            )
        )

    def _takes(self, stage: Mapping[str, Any], name: str) -> bool:
        refs = [ref for ref, _ in strings_of(stage.get("data"), ())]
        return any(name in chain(self.sources, ref.partition(".")[0]) for ref in refs)


def _entries(value: Any, path: ValuePath) -> Iterator[tuple[Mapping[str, Any], ValuePath]]:
    """The entries of `rejected` that are blocks, with their places."""
    if isinstance(value, dict):
        yield value, path
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, dict):
            yield item, (*path, index)
