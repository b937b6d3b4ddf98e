"""A look at the models of recipes, in a process of its own: it imports torch while this one counts rows."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from runner import launch, underway
from runner.children import Host
from runner.errors import BadRecipe, Problem, first_line
from runner.memory import Network
from runner.recipe import Loaded, dump

LOOKING = "runner.train.looking"
"""The module that looks."""
_WAIT_S = 120.0
"""Until a look that does not end is given up."""
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class StageSeen:
    """What a stage trains."""

    network: Network
    """With the vocabulary that the model's configuration names."""
    base: int
    """Parameters without adapters."""
    each: int
    """Of them, those that there are for each token of the vocabulary."""
    learned_each: int
    """Of those that are trained."""

    def with_vocabulary(self, tokens: int | None) -> StageSeen:
        """The same with another number of tokens; None leaves it."""
        if tokens is None:
            return self
        more = tokens - self.network.vocabulary
        network = replace(
            self.network,
            total=self.network.total + more * self.each,
            trained=self.network.trained + more * self.learned_each,
            vocabulary=tokens,
        )
        return replace(self, network=network, base=self.base + more * self.each)


@dataclass(frozen=True)
class Seen:
    """What a look at a recipe's model has found."""

    stages: Mapping[str, StageSeen]
    """Those that come from the recipe's own model, if that could be looked at."""
    attention: str
    """The implementation, and why."""
    half: bool
    """Whether it computes in half precision."""
    eager: bool
    why: str
    """Why the model could not be looked at; empty where it was."""
    problems: tuple[Problem, ...] = ()
    """What cannot be, each with its place in the recipe."""

    def check(self) -> None:
        """Whether the model can be trained as the recipe says.

        Raises:
            BadRecipe: it cannot.
        """
        if self.problems:
            raise BadRecipe(self.problems)


NOT_LOOKED = Seen({}, "", half=False, eager=False, why="")
"""Where nobody looked."""


class _Asked:
    """The files of a question about recipes and its answer, in a folder that goes when it is closed."""

    def __init__(self, recipes: Sequence[Loaded], *, elsewhere: bool) -> None:
        self._recipes = recipes
        self._folder = tempfile.TemporaryDirectory(prefix="recipe-look-")
        place = Path(self._folder.name)
        paths = []
        for number, loaded in enumerate(recipes):
            paths.append(place / f"{number}.yaml")
            paths[-1].write_text(dump(loaded), encoding="utf-8")
        asked = {"root": str(recipes[0].root), "recipes": [str(path) for path in paths], "elsewhere": elsewhere}
        self._question, self._answer = place / "question.json", place / "answer.json"
        self._question.write_text(json.dumps(asked), encoding="utf-8")

    @property
    def argv(self) -> list[str]:
        return [str(self._question), str(self._answer)]

    def close(self) -> None:
        self._folder.cleanup()

    def read(self, failed: str) -> list[Seen]:
        """The answers; where the process failed, that nothing was seen, and why."""
        if failed:
            return [Seen({}, "", half=False, eager=False, why=failed)] * len(self._recipes)
        rows = json.loads(self._answer.read_text(encoding="utf-8"))
        return [_seen(row, loaded) for row, loaded in zip(rows, self._recipes, strict=True)]


class Look:
    """A look by a process of its own. A context manager; leaving it ends the process.

    Args:
        recipes: what is looked at.
        elsewhere: they are planned for devices that are not here.
    """

    def __init__(self, recipes: Sequence[Loaded], *, elsewhere: bool = False) -> None:
        self._asked, self._root = _Asked(recipes, elsewhere=elsewhere), recipes[0].root
        self._process: subprocess.Popen[str] | None = None
        self._found: list[Seen] | None = None

    def __enter__(self) -> Look:
        self._process = subprocess.Popen(
            [sys.executable, "-m", LOOKING, *self._asked.argv],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=dict(launch.environment()), cwd=self._root, text=True, start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._asked.close()

    def seen(self, number: int = 0) -> Seen:
        """What was found of one of the recipes; the first call waits for it."""
        if self._found is None:
            self._found = self._asked.read(self._wait())
        return self._found[number]

    def _wait(self) -> str:
        """Why there is no answer; empty where there is one."""
        assert self._process is not None, "a look begins when its context is entered"
        try:
            with underway.work("looking at the model"):
                _, noise = self._process.communicate(timeout=_WAIT_S)
        except subprocess.TimeoutExpired:
            return f"looking at the model took more than {_WAIT_S:g} s"
        return first_line((noise.strip().splitlines() or ["it died"])[-1]) if self._process.returncode else ""


class HostedLook:
    """The same by a child of the host of a run, which imports torch anyway. A context manager.

    Args:
        host: forks the child.
        recipes: what is looked at.
        log: what the child prints.
    """

    def __init__(self, host: Host, recipes: Sequence[Loaded], log: Path) -> None:
        self._host, self._asked = host, _Asked(recipes, elsewhere=False)
        self._child = host.start("look", self._asked.argv, log)
        self._found: list[Seen] | None = None

    def __enter__(self) -> HostedLook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._host.signal(self._child, signal.SIGKILL)
        self._asked.close()

    def seen(self, number: int = 0) -> Seen:
        """What was found of one of the recipes; the first call waits for it.

        Raises:
            TrainingFailed: the host died.
        """
        with underway.work("looking at the model"):
            while self._child.exit_code is None:
                self._host.poll(_LOOK_EVERY_S)
        if self._found is None:
            self._found = self._asked.read(first_line(self._child.log_tail(1)) if self._child.exit_code else "")
        return self._found[number]


def _seen(row: Mapping[str, Any], loaded: Loaded) -> Seen:
    stages = {
        name: StageSeen(Network(**found["network"]), found["base"], found["each"], found["learned_each"])
        for name, found in row["stages"].items()
    }
    problems = tuple(placed(loaded, Problem(**one)) for one in row["problems"])
    return Seen(stages, row["attention"], row["half"], row["eager"], row["why"], problems)


def placed(loaded: Loaded, problem: Problem) -> Problem:
    """A problem whose words begin with a place in the recipe, `stages.qa.lora.targets: …`, with that place."""
    path = tuple(problem.message.partition(":")[0].partition(" ")[0].split("."))
    if path[0] not in loaded.values:
        return problem
    mark = loaded.mark(*path)
    return replace(problem, where=mark.at_value() if path in loaded.marks else mark.at_key())
