"""The suites that ship, and copying them into a project: `recipe new --suites radicals,repetition`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import runner
from runner.errors import UserError, nearest


@dataclass(frozen=True)
class Suite:
    """One suite that ships: its files, relative to the folder of the probes."""

    entries: tuple[tuple[str, str], ...]
    """What a recipe asks: names under its `probes:`, each with a file, or one probe of it where a file has several."""
    others: tuple[str, ...]
    """Data, generators and notices that belong to them."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that pytest is called with."""
        return tuple(dict.fromkeys(probe.partition("::")[0] for _, probe in self.entries))


SUITES = {
    "radicals": Suite(
        (
            ("radicals", "test_radicals.py::test_radical"),
            ("strokes", "test_radicals.py::test_strokes"),
            ("pinyin", "test_radicals.py::test_pinyin"),
        ),
        ("data/radicals.tsv", "data/radicals_licence.md"),
    ),
    "novel_rules": Suite(
        (
            ("rules_control", "test_novel_rules.py::test_control"),
            ("rules", "test_novel_rules.py::test_follows_rule"),
        ),
        (
            "locked_novel_rules.py",
            "data/novel_rules.jsonl",
            "data/novel_rules_locked.jsonl",
            "data/novel_rules_locked.lock",
            "data/make_novel_rules.py",
            "data/novel_rules_families.py",
        ),
    ),
    "repetition": Suite(
        (("repetition", "test_repetition.py"), ("repetition_penalised", "test_repetition_penalised.py")),
        ("data/repetition.jsonl",),
    ),
    "forgetting": Suite(
        (("forgetting", "test_forgetting.py"), ("forgetting_texts", "test_forgetting_texts.py")),
        ("data/forgetting.jsonl", "data/forgetting_texts.jsonl"),
    ),
    "watched": Suite((("watched", "test_watched.py"),), ("data/watched.jsonl",)),
}
"""By the name that `--suites` takes."""


def chosen(text: str) -> tuple[str, ...]:
    """The suites that `--suites` names: `all`, or names with commas between them.

    Raises:
        UserError: a suite of that name does not ship.
    """
    names = tuple(dict.fromkeys(name for name in (part.strip() for part in text.split(",")) if name))
    if names == ("all",):
        return tuple(SUITES)
    for name in names or ("",):
        if name not in SUITES:
            close = nearest(name, SUITES)
            raise UserError(
                f"there is no suite {name!r}" if name else "--suites names no suite",
                expected=f"all, or some of {', '.join(SUITES)}, with commas between them",
                hint=f"did you mean {close}?" if close else None,
            )
    return names


def suite_texts(names: tuple[str, ...], folder: Path) -> dict[Path, str]:
    """The files of these suites as they are to be written below `folder`, the probes first."""
    source = _shipped()
    suites = [SUITES[name] for name in names]
    parts = [part for suite in suites for part in suite.files] + [part for suite in suites for part in suite.others]
    return {folder / "probes" / part: source.joinpath(part).read_text(encoding="utf-8") for part in parts}


def _shipped() -> Traversable:
    """An installed package holds the suites within itself; in a checkout they lie beside it."""
    installed = files("runner.starter").joinpath("probes")
    return installed if installed.is_dir() else Path(runner.__file__).parents[1] / "probes"
