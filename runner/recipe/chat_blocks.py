"""Checks of how conversations are written and cut: is there such a chat template, is there one where it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import spec
from runner.errors import Problem, Where
from runner.recipe.layers import Layered, blocks_of, did_you_mean, near_file
from runner.recipe.wording import shown

_NEEDS_TEMPLATE = ("messages", "system")
"""Keys of a data set that a chat template alone can write."""
_HINT = f"say model.chat_template: {', '.join(spec.CHAT_TEMPLATES)}, or a file"


@dataclass
class ChatBlocks:
    """Checks them; what is wrong is added to `problems`."""

    layered: Layered
    root: Path
    files: bool
    problems: list[Problem]

    def check(self) -> None:
        """Reports a template that is not there, conversations without one, and rows cut in a way that cannot be."""
        model = self.layered.values.get("model")
        model = model if isinstance(model, dict) else {}
        name = model.get("chat_template")
        if isinstance(name, str) and self.files:
            self._template(name)
        # what a checkpoint's tokenizer carries is known when it is looked at
        trained = isinstance(model.get("tokenizer"), dict)
        if name == "none" or (name is None and trained):
            self._conversations("takes it away" if name == "none" else "none is set, and a new tokenizer has none")
        for stage, block in blocks_of(self.layered.values, "stages").items():
            self._overlap(stage, block)

    def _report(self, message: str, where: Where, expected: str | None = None, hint: str | None = None) -> None:
        self.problems.append(Problem(message, where, expected, hint))

    def _template(self, name: str) -> None:
        if name in (*spec.CHAT_TEMPLATES, "none") or (self.root / name).is_file():
            return
        near = did_you_mean(name, [*spec.CHAT_TEMPLATES, "none"]) or near_file(self.root / name, name)
        self._report(
            f"there is no chat template {shown(name)}",
            self.layered.mark(("model", "chat_template")).at_value(),
            f"{', '.join(spec.CHAT_TEMPLATES)}, none, or a file from the project root",
            near,
        )

    def _conversations(self, why: str) -> None:
        for data, block in blocks_of(self.layered.values, "data").items():
            for key in _NEEDS_TEMPLATE:
                if block.get(key) is not None:
                    where = self.layered.mark(("data", data, key)).at_key()
                    self._report(f"`{key}` needs a chat template: {why}", where, None, _HINT)
                    break

    def _overlap(self, stage: str, block: dict[str, Any]) -> None:
        weight = block.get("prompt_loss_weight")
        if block.get("chunk_overlap") and isinstance(weight, (int, float)) and weight > 0:
            self._report(
                "`chunk_overlap` and `prompt_loss_weight` exclude each other: a chunk would train what it repeats",
                self.layered.mark(("stages", stage, "chunk_overlap")).at_key(),
                None,
                "remove one of them",
            )
