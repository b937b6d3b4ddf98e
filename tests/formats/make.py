"""Write the files of a run in this version's formats into tests/formats/vN, for the versions to come to read.

    python tests/formats/make.py tests/formats/v1

A small matrix is run in earnest; weights, their settings, tokenizers and token ids are then left out, and what names
this machine is replaced. Files that only stand there while a stage trains are written by their own modules. A folder of
an older version is never made again: that it can be read is what it is for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from runner import diverging, jobs
from runner.diverging import Fault

NAME = "formats"
RECIPE = """\
recipe: formats
seed: 7
model:
  config: {model_type: qwen3, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 1, num_key_value_heads: 1,
           head_dim: 16, intermediate_size: 16, max_position_embeddings: 64}
  tokenizer: {train: char, from_data: [facts, questions]}
data:
  words: {path: words.tsv, split: {by: word, train: 0.5, held_out: 0.5}}
  facts: {rows: words, text: "{{ word }} is {{ colour }}"}
  questions: {rows: words, prompt: "what is {{ word }}?", completion: " {{ colour }}"}
stages:
  base: {kind: pretrain, data: facts, max_steps: 4, learning_rate: 1.0e-2, global_batch_size: 4, logging_steps: 2}
  qa: {kind: sft, from: base@last, data: questions.train, max_steps: 4, global_batch_size: 4, save_steps: [2],
       logging_steps: 2}
probes:
  known: {file: "probes/test_words.py::test_word", cases: questions.train, stages: qa}
  held_out: {file: "probes/test_words.py::test_word", cases: questions.held_out, stages: qa,
             gate: {min_pass_rate: 0.5, max_regression: 1}}
best: known
matrix:
  slow: {}
  fast: {stages: {qa: {learning_rate: 1.0e-2}}}
"""
PROBES = """\
from runner import probe


@probe(prompt="{{ prompt }}", max_new_tokens=4)
def test_word(case, reply, record):
    record(length=len(reply))
    assert reply == case.completion
"""
_KEPT = (".json", ".jsonl", ".yaml", ".tsv", ".py", ".toml")
_LEFT_OUT = re.compile(r"tokenizer|config\.json$|^report\.|\.log$")
_OF_THIS_MACHINE = {"host": "a-machine", "git_commit": None, "machine": "x86_64", "cpus": 2, "pid": 1}


def make(target: Path) -> None:
    """Run, and copy what is kept."""
    with tempfile.TemporaryDirectory(prefix="formats-") as folder:
        root = Path(folder)
        _write_project(root)
        environment = {**os.environ, "RECIPE_STORE": "off"}
        command = [str(Path(sys.executable).with_name("recipe"))]
        subprocess.run([*command, "run", f"{NAME}.yaml"], cwd=root, env=environment, check=False)
        run = root / "results" / NAME / "fast"
        jobs.write_decision(run / "qa", 2, go_on=True)
        diverging.write(run / "qa", (Fault(3, "the loss is nan", 2, 3),))
        shutil.rmtree(target, ignore_errors=True)
        for file in sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            _copy(file, root, target)


def _write_project(root: Path) -> None:
    (root / "probes").mkdir()
    (root / "pyproject.toml").touch()
    rows = [f"{letter}a{letter}o\t{colour}" for letter, colour in zip("bdfgklmn", ["red", "blue"] * 4, strict=True)]
    (root / "words.tsv").write_text("\n".join(["word\tcolour", *rows]) + "\n", encoding="utf-8")
    (root / "probes" / "test_words.py").write_text(PROBES, encoding="utf-8")
    (root / f"{NAME}.yaml").write_text(RECIPE, encoding="utf-8")


def _copy(file: Path, root: Path, target: Path) -> None:
    """Copy a file that is kept, without what names this machine."""
    kept = file.suffix in _KEPT or file.name == "lock"
    within = file.relative_to(root)
    if not kept or _LEFT_OUT.search(file.name) or {"tokens", "seen", "nodes"} & set(within.parts):
        return
    text = file.read_text(encoding="utf-8")
    if file.name in ("run.json", "lock"):
        row = json.loads(text)
        row |= {name: value for name, value in _OF_THIS_MACHINE.items() if name in row}
        if "hardware" in row:
            row["hardware"] |= {name: value for name, value in _OF_THIS_MACHINE.items() if name in row["hardware"]}
        text = json.dumps(row, ensure_ascii=False, indent=1) + "\n"
    place = target / stored_as(within)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text.replace(str(root), "PROJECT"), encoding="utf-8")


def stored_as(within: Path) -> Path:
    """Where a file of the project is kept: what is here must be neither ignored by git nor collected by pytest."""
    named = within.with_name(f"{within.name}.txt") if within.suffix == ".py" else within
    return Path("runs", *named.parts[1:]) if named.parts[0] == "results" else named


def restore(source: Path, root: Path) -> Path:
    """The project again, at `root`; gives the folder of its runs."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        within = file.relative_to(source)
        place = root / ("results" if within.parts[0] == "runs" else within.parts[0]) / Path(*within.parts[1:])
        place = place.with_suffix("") if within.name.endswith(".py.txt") else place
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(file.read_text(encoding="utf-8").replace("PROJECT", str(root)), encoding="utf-8")
    return root / "results" / NAME


if __name__ == "__main__":
    make(Path(sys.argv[1]))
