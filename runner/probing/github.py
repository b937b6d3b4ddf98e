"""Inside GitHub Actions: annotations beside the probe files, and the table of suites in the job's step summary.

The runner reads every line that a step prints for commands. Whatever a model or a test prints is put between
`::stop-commands::` and its end, whose word no reply can know.

Formats: workflow commands and job summaries, docs.github.com/actions/reference/workflow-commands-for-github-actions.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.errors import first_line, printable
from runner.gate import Decision
from runner.markdown import code, words
from runner.probing.planning import Sitting
from runner.tables import interval, percent

ANNOTATIONS = 10
"""GitHub shows so many of a step; the rest is in the log all the same."""

Judged = Sequence[tuple[Sitting, Decision]]


def in_actions(environment: Mapping[str, str]) -> bool:
    """Whether this process runs in a job of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS") == "true"


@dataclass(frozen=True)
class Annotation:
    """One line that GitHub shows beside a file."""

    file: str
    line: int
    title: str
    message: str

    def __str__(self) -> str:
        place = f"file={_property(self.file)},line={self.line},title={_property(self.title)}"
        return f"::error {place}::{_data(self.message)}"


class GitHub:
    """The plugin of a session that runs in GitHub Actions."""

    def __init__(self, judged: Callable[[], Judged], workspace: Path, summary: Path | None) -> None:
        """Args: judged: what every suite came to, once all is asked; workspace: what GitHub's paths are relative to;
        summary: the file that GitHub shows as the step's summary."""
        self._judged, self._workspace, self._summary = judged, workspace, summary
        self._found: list[Annotation] = []
        self._word = secrets.token_hex(16)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """From here on nothing that is printed is a command."""
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write_line(f"::stop-commands::{self._word}")

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """What later steps of the same shell print is theirs."""
        terminal = config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write_line(f"::{self._word}::")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what failed: red gates, pinned cases, misses without a gate, errors."""
        if not report.failed:
            return
        crash = getattr(report.longrepr, "reprcrash", None)
        path, line, _ = report.location
        message = crash.message if crash is not None else first_line(report.longreprtext)
        at = crash.lineno if crash is not None else (line or 0) + 1
        name = report.nodeid.partition("::")[2]
        self._found.append(Annotation(self._shown(crash.path if crash else path), at, name, printable(message)))

    def _shown(self, path: str) -> str:
        absolute = Path(path).absolute()
        return str(absolute.relative_to(self._workspace)) if absolute.is_relative_to(self._workspace) else path

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the annotations, red gates first, and the summary."""
        gates_first = sorted(self._found, key=lambda found: not found.title.startswith("gate["))
        if gates_first:
            terminalreporter.ensure_newline()
            terminalreporter.write_line(f"::{self._word}::")
            for annotation in gates_first[:ANNOTATIONS]:
                terminalreporter.write_line(str(annotation))
            terminalreporter.write_line(f"::stop-commands::{self._word}")
        judged = self._judged()
        if self._summary is not None and judged:
            with self._summary.open("a", encoding="utf-8") as file:
                file.write(summary(judged))


def summary(judged: Judged) -> str:
    """Markdown: a row per checkpoint and suite, then why gates are red and what was lost."""
    rows = [
        "### Probes",
        "",
        "| checkpoint | suite | passed | 95 % Wilson | lost | gained | gate |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [_row(sitting, decision) for sitting, decision in judged]
    for sitting, decision in judged:
        if decision.green is False:
            rows += ["", f"**{words(f'{decision.suite} at {sitting.target.label}')}** is red:", ""]
            rows += [f"- {words(reason)}" for reason in decision.reasons]
            rows += [
                f"- lost {code(flip.case_id)}: {code(flip.before.reply)} → {code(flip.after.reply)}"
                for flip in decision.lost[:ANNOTATIONS]
            ]
    return "\n".join(rows) + "\n\n"


def _row(sitting: Sitting, decision: Decision) -> str:
    tally = decision.tally
    rate = "none asked" if tally.rate is None else f"{percent(tally.rate)} of {tally.asked}"
    compared = decision.comparison is not None
    lost, gained = (len(decision.lost), len(decision.gained)) if compared else ("", "")
    said = "broken off" if decision.broken_off else {True: "green", False: "**red**", None: ""}[decision.green]
    place = f"{words(sitting.target.label)} | {words(decision.suite)}"
    return f"| {place} | {rate} | {interval(tally)} | {lost} | {gained} | {said} |"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def plugin(judged: Callable[[], Judged], rootdir: Path, environment: Mapping[str, str] = os.environ) -> GitHub:
    """The plugin, as the variables that GitHub sets say."""
    summary_file = environment.get("GITHUB_STEP_SUMMARY")
    workspace = Path(environment.get("GITHUB_WORKSPACE") or rootdir)
    return GitHub(judged, workspace, Path(summary_file) if summary_file else None)
