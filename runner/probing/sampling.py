"""A child of a run that asks a checkpoint for wrong replies: `{sample: …}` among the negatives of a data set."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from runner import recipe, spec
from runner.asking import Decoding
from runner.data import datasets, samples
from runner.data.rejecting import prompts_of
from runner.errors import UserError
from runner.folder import read_run
from runner.probing import engine
from runner.probing.questions import Message, Question
from runner.probing.rendering import seed_of


def main(arguments: Sequence[str]) -> int:
    """Ask, and write what was said.

    Args:
        arguments: run folder, data set or split, number of the entry in its `rejected`, the checkpoint's label and
            folder, and the file to write.
    """
    run, ref, number, label, checkpoint, file = arguments
    record = read_run(Path(run))
    loaded = recipe.load(Path(run) / "recipe.yaml", root=Path(record.project_root))
    try:
        data = datasets.build(loaded.spec, loaded.root).get(ref)
        how = data.rejected[int(number)]
        assert isinstance(how, spec.Sample), f"data.{ref}.rejected[{number}] is no sample"
        rows = [
            (row, prompt, tuple(Message(message.role, message.content) for message in messages))
            for row, prompt, messages in prompts_of(data)
        ]
        questions = [
            _question(prompt, messages, how, seed_of(loaded.spec.seed, f"{ref}:{number}:{row}", sample))
            for row, prompt, messages in rows
            for sample in range(how.samples)
        ]
        local = engine.Engine(Path(checkpoint))
        answers = iter(local.generate(questions))
    except UserError as error:
        print(error.screen(), file=sys.stderr)
        return error.exit_code
    said = []
    for row, prompt, messages in rows:
        given = [next(answers) for _ in range(how.samples)]
        failed = next((answer.error for answer in given if answer.error), "")
        if failed:
            print(f"row {row} cannot be asked: {failed}", file=sys.stderr)
            return os.EX_USAGE
        said.append((row, given[0].prompt or prompt or messages[-1].content, [answer.text for answer in given]))
    samples.write(Path(file), said, label)
    return 0


def _question(prompt: str, messages: tuple[Message, ...], how: spec.Sample, seed: int) -> Question:
    decoding = Decoding(max_new_tokens=how.max_new_tokens, temperature=how.temperature)
    return Question(prompt=prompt, messages=messages, decoding=decoding, seed=seed if how.temperature else 0)
