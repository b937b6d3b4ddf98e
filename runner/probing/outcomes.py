"""What the cases of this session came to: verdicts as they are reached, and the verdict files they become."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runner import checkpoints, verdicts
from runner.asking import Case, Reply, row_of
from runner.classification import scores
from runner.errors import BadCheckpoint, first_line
from runner.probing.own_gate import as_json
from runner.probing.planning import Ask, Planned, Sitting, Suite
from runner.probing.replies import NOTHING, Generated
from runner.probing.targets import Target
from runner.verdicts import Outcome, SuiteAsked, Verdict, VerdictFile


@dataclass
class Asked:
    """A case while its test runs."""

    ask: Ask
    case_id: str
    """The case's id, and behind it what parametrize added."""
    generated: Generated = NOTHING
    values: dict[str, float] = field(default_factory=dict)
    outcome: Outcome | None = None
    reason: str = ""
    case: Case = field(init=False)
    """What the test is handed: its own, so that a test that changes a list in it changes no other's prompt."""
    leak: str = ""
    """Whether its question, or other words about the same, stand in the rows of training; see `Verdict.leak`."""

    def __post_init__(self) -> None:
        row = row_of(self.ask.case)
        own = {name: deepcopy(value) for name, value in row.items() if isinstance(value, (list, dict, set, tuple))}
        self.case = Case(self.ask.case.id, {**row, **own}) if own else self.ask.case

    def record(self, **numbers: float) -> None:
        """Put numbers into the verdict; gates and plots use them.

        Raises:
            TypeError: one of them is not a number.
        """
        __tracebackhide__ = True
        for name, number in numbers.items():
            try:
                self.values[name] = float(number)
            except (TypeError, ValueError):
                raise TypeError(f"record({name}=…) takes a number, found {number!r}") from None

    def verdict(self, outcome: Outcome | None = None) -> Verdict:
        """Its verdict, or what it would be with another `outcome`; `weights_sha256` comes in where it is written."""
        ask, made = self.ask, self.generated
        outcome = outcome or self.outcome
        assert outcome is not None
        reply = made.replies[0] if made.replies else Reply("", stop_reason="")  # type: ignore[arg-type]
        return Verdict(
            suite=ask.sitting.suite,
            probe=ask.probe_id,
            case_id=self.case_id,
            outcome=outcome,
            reply=str(reply),
            reason=self.reason,
            values=dict(self.values),
            ckpt=ask.sitting.target.name,
            prompt=made.prompt,
            generation=self._generation(reply),
            tokens=len(reply.tokens),
            margin=reply.margin,
            logprob=reply.logprob,
            question=made.rendered.digest,
            # what parametrize adds makes another case about the same fact
            cluster=made.rendered.cluster or (ask.case.id if ask.case.id != self.case_id else ""),
            expected=made.rendered.expected,
            answered=str(reply) if reply.stop_reason == "choice" else "",
            leak=self.leak,
            row=_row_digest(ask.case),
        )

    def _generation(self, reply: Reply) -> dict[str, Any]:
        """How the reply came about; a closed question generates nothing, and has its choices instead of a decoding."""
        made = self.generated
        decoding: dict[str, Any] = {**vars(self.ask.decoding), "stop": list(self.ask.decoding.stop)}
        if self.ask.probe.choices is not None:
            decoding = {"choices": dict(made.choices)}
        decoding |= {"stop_reason": reply.stop_reason, "dtype": made.dtype, "engine": made.engine}
        if len(made.replies) > 1:
            decoding["others"] = [str(other) for other in made.replies[1:]]
        if reply.thinking:
            decoding["thinking"] = reply.thinking
        if made.again:
            decoding["again"] = True
        return decoding


def _row_digest(case: Case) -> str:
    """Of all columns, in whatever order; empty where a value is none of JSON: its repr may differ by process."""
    try:
        row = json.dumps({name: case[name] for name in case}, sort_keys=True)
    except (TypeError, ValueError):
        return ""
    return hashlib.sha256(row.encode("ascii")).hexdigest()[:12]


class Outcomes:
    """The verdicts of the session so far."""

    def __init__(self) -> None:
        self.tests: dict[Sitting, int] = {}
        """How many tests each suite has at each checkpoint when nothing is deselected."""
        self.partial: set[Sitting] = set()
        """Suites of which pytest did not even see every test: it was given a narrower id."""
        self.notes: dict[str, None] = {}
        """What the author should know, each sentence once."""
        self._verdicts: dict[Sitting, dict[tuple[str, str], Verdict]] = {}
        self._replies: dict[Sitting, dict[tuple[str, str], Asked]] = {}
        """What numbers about the suite as a whole are computed from."""
        self._pooled: dict[Sitting, Mapping[str, float]] = {}
        self._seconds: dict[Sitting, float] = {}
        self._controls: dict[tuple[Target, str, str], dict[str, bool]] = {}

    def put(self, asked: Asked) -> None:
        """Note the verdict of a case; a later one about the same case (its teardown failed) replaces it."""
        verdict, sitting = asked.verdict(), asked.ask.sitting
        rows = self._verdicts.setdefault(sitting, {})
        if verdict.identity not in rows:
            self._seconds[sitting] = self._seconds.get(sitting, 0.0) + asked.generated.seconds
        rows[verdict.identity] = verdict
        if asked.ask.probe.pooled:
            self._replies.setdefault(sitting, {})[verdict.identity] = asked
        self._pooled.pop(sitting, None)
        passed = self._controls.setdefault((sitting.target, verdict.probe, asked.ask.case.id), {})
        passed[f"{verdict.suite} {verdict.case_id}"] = verdict.outcome == "pass"

    def of(self, sitting: Sitting) -> tuple[Verdict, ...]:
        """The verdicts of a suite at a checkpoint, in the order they were reached."""
        return tuple(self._verdicts.get(sitting, {}).values())

    def is_whole(self, sitting: Sitting) -> bool:
        """Whether every case of the suite has its verdict."""
        seen_all = sitting not in self.partial
        return seen_all and len(self._verdicts.get(sitting, ())) == self.tests.get(sitting, 0) > 0

    def pooled(self, sitting: Sitting) -> Mapping[str, float]:
        """Numbers about a suite as a whole: what its probes' `pooled` compute from all replies, and of closed questions
        with a key accuracy, precision, recall and F1. Empty unless the suite was asked whole. A function that fails
        gives NaN and a note."""
        if not self.is_whole(sitting):
            return {}
        if sitting not in self._pooled:
            self._pooled[sitting] = {**_scores(self.of(sitting)), **self._own(sitting)}
        return self._pooled[sitting]

    def _own(self, sitting: Sitting) -> dict[str, float]:
        found = [asked for asked in self._replies.get(sitting, {}).values() if asked.outcome != "not_asked"]
        functions = {name: function for asked in found for name, function in asked.ask.probe.pooled.items()}
        values = {}
        for name, function in functions.items():
            replies = [
                reply for asked in found if name in asked.ask.probe.pooled for reply in asked.generated.replies
            ]  # fmt: skip
            try:
                values[name] = float(function(replies))
            except Exception as error:  # noqa: BLE001 - the author's own code; every other suite goes on
                values[name] = math.nan
                self.notes[f"pooled {name} of {sitting.suite}: {type(error).__name__}: {first_line(error)}"] = None
        return values

    def control_missed(self, asked: Asked, control: str) -> bool:
        """Whether the probe `control` was asked about this case and did not pass. That of the same suite and
        parametrization counts where there is one, otherwise every one must have passed."""
        found = self._controls.get((asked.ask.sitting.target, control, asked.ask.case.id), {})
        same = found.get(f"{asked.ask.sitting.suite} {asked.case_id}")
        return not (same if same is not None else all(found.values()))

    def file(
        self, target: Target, planned: Iterable[tuple[Sitting, Planned]], missing: Mapping[Suite, str]
    ) -> VerdictFile:
        """All verdicts about one checkpoint.

        Args:
            planned: the suites that were asked of it.
            missing: suites that should have been asked and could not be collected, with the reason.
        """
        digest = _weights_sha256(target)
        suites, rows = [], []
        for sitting, plan in planned:
            found = self.of(sitting)
            # only a whole suite may be taken for one that need not be asked again
            key = plan.suite.key() if self.is_whole(sitting) else ""
            gate = as_json(plan.own_gate) if plan.own_gate is not None else None
            seconds = round(self._seconds.get(sitting, 0.0), 4)
            values = self.pooled(sitting)
            suites.append(SuiteAsked(sitting.suite, key, tuple(plan.probe_ids), gate, len(found), seconds, values))
            rows += [replace(verdict, weights_sha256=digest) for verdict in found]
        for suite, reason in missing.items():
            suites.append(SuiteAsked(suite.name, "", (), None, 1))
            failed = Verdict(suite.name, suite.file.name, "collection", "error", reason=reason, ckpt=target.name)
            rows.append(replace(failed, weights_sha256=digest))
        return VerdictFile(target.name, digest, tuple(suites), tuple(rows))


def _scores(found: Sequence[Verdict]) -> dict[str, float]:
    """Of closed questions with a key; an error is no answer."""
    pairs = [
        (verdict.expected, verdict.answered)
        for verdict in found
        if verdict.expected and verdict.outcome in ("pass", "miss")
    ]
    return vars(scores(pairs)) if pairs else {}


def write(files: Sequence[tuple[Target, VerdictFile]], path: Path) -> None:
    """Write one verdict file to `path`; several, or where `path` is a folder, into it, each named after its
    checkpoint."""
    to_file = len(files) == 1 and not path.is_dir()
    for target, file in files:
        verdicts.write(path if to_file else path / f"{target.label.replace('/', '_')}.jsonl", file)


def _weights_sha256(target: Target) -> str:
    if target.endpoint is not None:
        return ""  # nobody can say which weights a server holds
    if target.at is not None and (target.path / checkpoints.MANIFEST).is_file():
        return checkpoints.read_manifest(target.path).weights_sha256
    try:
        return checkpoints.weights_sha256(target.path)
    except (BadCheckpoint, OSError):
        return ""  # it could not be loaded either: every verdict says why
