"""A whole project in a moment: data, probes and a recipe of three stages; and `recipe run` on it, in processes."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from runner import checkpoints
from tests.faults.forked import Forked

COLOURS = ("red", "blue", "green", "grey")
ROWS = 40
RUN = Path("results", "tiny")
"""Where its run is, from its root."""

RECIPE = """\
recipe: tiny
seed: 7

model:
  # dropout draws while training: what resumes must go on with the same draws
  config: {model_type: qwen3, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2,
           head_dim: 16, intermediate_size: 64, max_position_embeddings: 128, tie_word_embeddings: true,
           attention_dropout: 0.1}
  tokenizer: {train: char, from_data: [facts, questions]}

data:
  words:
    path: words.tsv
    split: {by: word, train: 0.5, held_out: 0.5}
  facts:
    rows: words
    pick:
      n: 2
      of:
        - text: "{{ word }} is {{ colour }}"
        - text: "{{ colour }} is the colour of {{ word }}"
        - text: "a {{ colour }} {{ word }}"
  questions:
    rows: words
    prompt: "what is {{ word }}?"
    completion: " {{ word }} is {{ colour }}"
  pairs:
    rows: questions.train
    rejected: " {{ word }} is {{ other.colour }}"

stages:
  base: {kind: pretrain, data: facts, num_train_epochs: 24, learning_rate: 3.0e-3, global_batch_size: 8,
         save_steps: [30], logging_steps: 1}
  qa: {kind: sft, from: base@last, data: questions.train, num_train_epochs: 2, learning_rate: 1.0e-3,
       global_batch_size: 8, save_strategy: epoch, logging_steps: 1}
  prefer: {kind: dpo, from: qa@best, data: pairs, num_train_epochs: 1, learning_rate: 1.0e-3, global_batch_size: 8,
           logging_steps: 1}

probes:
  always: {file: "probes/test_words.py::test_always", cases: questions.train, stages: [qa, prefer]}
  right: {file: "probes/test_words.py::test_right", cases: questions.held_out, stages: [qa, prefer],
          gate: {min_pass_rate: 0.9}}

best: always
"""

PROBES = """\
from runner import probe

@probe(prompt="what is {{ word }}?", max_new_tokens=24)
def test_always(reply, record):
    record(length=len(reply))

@probe(prompt="what is {{ word }}?", max_new_tokens=24)
def test_right(case, reply):
    assert reply == f" {case.word} is certainly {case.colour}"
"""


def write_project(root: Path) -> Path:
    """Write the project into `root`; gives its recipe. Its gated suite is red, whatever is trained."""
    (root / "probes").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    letters = "bdfgklmnprst"
    words = [f"{letters[i % 12]}a{letters[i // 12]}o" for i in range(ROWS)]
    rows = [f"{word}\t{COLOURS[i * 7 % 4]}" for i, word in enumerate(words)]
    (root / "words.tsv").write_text("\n".join(["word\tcolour", *rows]) + "\n", encoding="utf-8")
    (root / "probes" / "test_words.py").write_text(PROBES, encoding="utf-8")
    recipe = root / "tiny.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return recipe


def leave_out_dpo(recipe: Path) -> None:
    """Rewrite the recipe without its last stage, for runs that need not pay TRL's imports."""
    text = recipe.read_text(encoding="utf-8")
    kept = text[: text.index("  prefer: {kind")] + text[text.index("\nprobes:") :]
    recipe.write_text(kept.replace("stages: [qa, prefer]", "stages: qa"), encoding="utf-8")


@dataclass(frozen=True)
class Done:
    """A process that ended."""

    code: int
    screen: str


@dataclass(frozen=True)
class Project:
    """A project whose recipe ran to its end."""

    root: Path
    first: Done
    """What `recipe run` came to."""

    @property
    def run(self) -> Path:
        """The folder of its run, or of its variants."""
        return self.root / RUN

    def copy(self, target: Path) -> Project:
        """One that a test may change."""
        shutil.copytree(self.root, target)
        return replace(self, root=target)


@contextmanager
def started(root: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`recipe` in a process group of its own; killed at the end where it has not ended."""
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("recipe")), *arguments],
        cwd=root,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


def afresh(root: Path, *arguments: str, **environment: str) -> Done:
    """The same in an interpreter of its own, as a user has it."""
    with started(root, *arguments, **environment) as process:
        screen, _ = process.communicate(timeout=300)
    return Done(process.returncode, screen)


@cache
def _forked() -> Forked:
    made = Forked("runner.train.preference")
    atexit.register(made.close)
    return made


def recipe(root: Path, *arguments: str, **environment: str) -> Done:
    """Run `recipe` to its end, without the seconds in which an interpreter imports torch."""
    with tempfile.NamedTemporaryFile() as log:
        _forked().start(root, arguments, Path(log.name), {**os.environ, **environment})
        return Done(_forked().wait(), Path(log.name).read_text(encoding="utf-8"))


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[str] | None = None, timeout_s: float = 120) -> None:
    """Look every few milliseconds; an AssertionError when it takes too long, or `process` ends before."""
    end = time.monotonic() + timeout_s
    while not ready():
        if process is not None and process.poll() is not None and not ready():
            raise AssertionError(f"it ended before, with {process.returncode}: {process.communicate()[0]}")
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)


def events(run: Path, process: str) -> list[dict[str, Any]]:
    """The whole lines of a journal of the run: `run` or `train-STAGE`."""
    path = run / "events" / f"{process}.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def weights(run: Path) -> dict[str, str]:
    """SHA-256 of the weights of every checkpoint, as its manifest says and as the file is, by label."""
    found = {}
    for stage in ("base", "qa", "prefer"):
        for step, folder in checkpoints.published(run / stage):
            manifest = checkpoints.read_manifest(folder)
            assert manifest.weights_sha256 == checkpoints.weights_sha256(folder)
            found[f"{stage}@{step}"] = manifest.weights_sha256
    return found


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, from /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        parents[int(stat.parent.name)] = int(text.rpartition(")")[2].split()[1])
    below = [pid]
    for parent in below:
        below += [child for child, above in parents.items() if above == parent]
    return below[1:]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
