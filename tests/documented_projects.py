"""The project of a page: the files it shows, what they and its commands need besides, and a place to run them.

`tests/documented/` is what every one begins with: data, and the recipe that parts of recipes are laid over.
Checkpoints, runs and verdict files are made where a block names them, under the names that it gives them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import yaml

from runner import checkpoints, verdicts
from runner.check import load_variants
from runner.recipe import Loaded
from tests.documented_blocks import ROOT, Block, blocks
from tests.recorded import verdict_file
from tests.recorded_run import write_run_folder
from tests.tiny import make_checkpoint, make_run

CASES = 20
"""Of a run that a page names."""
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if not enable_thinking %}a:{% endif %}"
_IN_RUN = re.compile(r"\b(results/[\w-]+)/([\w-]+)/(ckpt-\d+)")
_FOREIGN = re.compile(r"\b[a-z]\w*/checkpoint(?:-\d+)?\b|\bgiven/facts\b|\bbase-model\b")
_RUN = re.compile(r"\bresults/([\w-]+(?:/[\w-]+)?)(?![\w/.-])")
_VERDICTS = re.compile(r"(?:--probe-baseline|compare)[ =]([\w/-]+\.jsonl)")
_STUB = '''"""Asked where a page names a probe of yours: everything passes."""

from runner import probe

CASES = [{"id": "one", "prompt": "1 + 1 ="}, {"id": "two", "prompt": "1 + 2 ="}]


@probe(cases=CASES, prompt="{{ prompt }}", max_new_tokens=4)
def NAME(reply):
    assert reply.stop_reason
'''


class Projects:
    """The projects of all pages, below one folder; each is made when it is asked for.

    Args:
        weights: whether checkpoints can be loaded. Without, nothing imports torch, and they are only there.
    """

    def __init__(self, folder: Path, *, weights: bool = True) -> None:
        self._folder = folder
        self._weights = weights
        self._recorded: Path | None = None

    @cached_property
    def _checkpoint(self) -> Path:
        folder = self._folder / "weights"
        if self._weights:
            return make_checkpoint(folder, chat_template=TEMPLATE)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            _write(folder / name, "{}")
        return folder

    def of(self, page: str) -> Path:
        """The root of a page's project, with the files that the page shows in it."""
        root = self._folder / re.sub(r"\W", "_", page)
        if not root.exists():
            shutil.copytree(ROOT / "tests" / "documented", root)
            shutil.copy(ROOT / "runner" / "starter" / "elements.tsv", root / "data")  # as `recipe new elements` does
            stub(root, "probes/test_asked.py")
            for block in blocks():
                if block.page == page and block.file and block.mark != "shown" and not (root / block.file).exists():
                    _write(root / block.file, block.text)
        return root

    def load(self, block: Block) -> tuple[Loaded, ...]:
        """The recipe that a block is, or is part of: all of its variants.

        Raises:
            BadRecipe: it has faults.
        """
        root = self.of(block.page)
        self.make_what_it_names(root, block.text)
        if block.kind == "recipe":
            file = root / (block.file or f"{yaml.safe_load(block.text)['recipe']}.yaml")
            _write(file, block.text)
        else:
            file = root / f"line-{block.line}.yaml"
            below = "first.yaml" if _begins(placed(block)) else "recipe.yaml"
            _write(file, f"extends: {below}\nrecipe: line-{block.line}\n{placed(block)}")
        for probe_file in re.findall(r"probes/\w+\.py(?:::\w+)?", block.text):
            stub(root, probe_file)
        return load_variants(file)

    def recipe_of_command(self, page: str, file: str) -> Path:
        """The recipe that a command of the page names: one that ships, one that the page shows, or, where it shows
        only parts of one, the first of these."""
        root = self.of(page)
        if (ROOT / file).is_file():
            return ROOT / file
        if not (root / file).is_file():
            part = next((block for block in blocks() if block.page == page and block.kind == "part"), None)
            text = placed(part) if part is not None else ""
            if "/" in file:
                (root / "pyproject.toml").touch()  # else the recipe's folder were the project's root
            _write(root / file, f"extends: recipe.yaml\nrecipe: {Path(file).stem}\n{text}")
        return root / file

    def make_what_it_names(self, root: Path, text: str) -> None:
        """Checkpoints, runs and verdict files that a text names."""
        for run, stage, step in _IN_RUN.findall(text):
            self._copy_checkpoint(root / run / stage / step)
        for folder in _FOREIGN.findall(text):
            self._copy_checkpoint(root / folder)
        for name in _RUN.findall(text):
            self._copy_run(root, name)
        for name in _VERDICTS.findall(text):
            path = root / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                verdicts.write(path, verdict_file(path.stem, held_out="ppm"))
        for probe_file in re.findall(r"\bpytest (?:-\S+ )*(probes/\S*\.py)", text):
            if not (root / probe_file).exists():
                _write(root / probe_file, _STUB.replace("NAME", "test_asked"))

    def run_in(self, root: Path, suites: dict[str, str]) -> Path:
        """A run in a project, whose suites are these probes (test to file), asked cases with prompt and completion."""
        lines = [f'  {name}: {{file: "{file}::{name}", cases: questions.held_out}}' for name, file in suites.items()]
        cases: list[dict[str, object]] = [
            {"id": f"c{n}", "prompt": f"{n} + 1 =", "completion": f" {n + 1}", "answer": str(n + 1)} for n in range(3)
        ]
        return make_run(root, self._checkpoint, "\n".join(lines or ["  {}"]), cases)

    def rename_case(self, root: Path, run: str, case: str) -> None:
        """Call a case of a run otherwise: the one that a command of the page looks for."""
        for file in (root / "results" / run).glob("*/probes/*.jsonl"):
            text = file.read_text(encoding="utf-8")
            if f'"{case}"' not in text:
                file.write_text(text.replace('"U+4E00"', f'"{case}"'), encoding="utf-8")

    def _copy_checkpoint(self, target: Path) -> None:
        if not target.exists():
            shutil.copytree(self._checkpoint, target, copy_function=os.link)
            target_verdicts = checkpoints.verdict_path(target)
            target_verdicts.parent.mkdir(exist_ok=True)
            verdicts.write(target_verdicts, verdict_file(target.name, held_out="ppm"))

    def _copy_run(self, root: Path, name: str) -> None:
        if self._recorded is None:
            self._recorded = write_run_folder(self._folder / "recorded", checkpoints=4, cases=CASES)
        if not (root / "results" / name / "run.json").exists():
            shutil.copytree(self._recorded, root / "results" / name, dirs_exist_ok=True)


def stub(root: Path, named: str) -> None:
    """A probe file that a page names and does not show: the one that ships under this name, or one that passes."""
    file, _, function = named.partition("::")
    if (root / file).exists():
        return
    if (ROOT / file).is_file():
        (root / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, root / file)
    else:
        _write(root / file, _STUB.replace("NAME", function or "test_asked"))


def placed(block: Block) -> str:
    """The text of a part of a recipe where it stands in one, by `<!-- part of: stages.tune -->`; else as it is."""
    text, place = block.text, block.said.split(".") if block.mark == "part of" else []
    lines = [line for line in text.splitlines() if line.strip()]
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    return "\n".join([f"{'  ' * depth}{key}:" for depth, key in enumerate(place)]
                     + ["  " * len(place) + line[margin:] for line in lines]) + "\n"  # fmt: skip


def _begins(text: str) -> bool:
    """Whether a part shows the first stage of a recipe, which starts from `model:`."""
    stages = (yaml.safe_load(text) or {}).get("stages") or {}
    name, first = next(iter(stages.items()), ("", {}))
    return name != "base" and "kind" in (first or {}) and "from" not in first


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def rounds(page_blocks: list[Block]) -> Iterator[list[Block]]:
    """Blocks of probes in groups of which none shows a file or a test twice: a tutorial may change its probe."""
    left = page_blocks
    while left:
        taken: list[Block] = []
        seen: set[str] = set()
        for block in left:
            names = {block.file or block.name, *re.findall(r"^def (test_\w+)", block.text, re.MULTILINE)}
            if not names & seen:
                seen |= names
                taken.append(block)
        yield taken
        left = [block for block in left if block not in taken]


def read_json_lines(text: str) -> list[object]:
    """Every line of a text as JSON."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]
