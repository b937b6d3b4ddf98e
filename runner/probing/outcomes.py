"""What the cases of this session came to: verdicts as they are reached, and the verdict files they become."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner import checkpoints, verdicts
from runner.asking import Reply
from runner.errors import BadCheckpoint
from runner.probing.planning import Ask, Planned, Sitting, Suite, as_json
from runner.probing.replies import Generated
from runner.probing.targets import Target
from runner.verdicts import Outcome, SuiteAsked, Verdict, VerdictFile


@dataclass
class Asked:
    """A case while its test runs."""

    ask: Ask
    case_id: str
    """The case's id, and behind it what parametrize added."""
    generated: Generated = field(default_factory=lambda: Generated(""))
    values: dict[str, float] = field(default_factory=dict)
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def reply(self) -> Reply:
        """What the model said."""
        made = self.generated
        return Reply(made.text, made.tokens, made.stop_reason, made.margin)  # type: ignore[arg-type]

    def record(self, **numbers: float) -> None:
        """Put numbers into the verdict; gates and plots use them.

        Raises:
            TypeError: one of them is not a number.
        """
        for name, number in numbers.items():
            try:
                self.values[name] = float(number)
            except (TypeError, ValueError):
                raise TypeError(f"record({name}=…) takes a number, found {number!r}") from None

    def verdict(self) -> Verdict:
        """Its verdict; `weights_sha256` is filled in where it is written."""
        ask, made = self.ask, self.generated
        assert self.outcome is not None
        generation = {
            "max_new_tokens": ask.probe.max_new_tokens,
            "stop": list(ask.probe.stop),
            "stop_reason": made.stop_reason,
            "dtype": made.dtype,
            "engine": made.engine,
        }
        return Verdict(
            suite=ask.sitting.suite,
            probe=ask.probe_id,
            case_id=self.case_id,
            outcome=self.outcome,
            reply=made.text,
            reason=self.reason,
            values=dict(self.values),
            ckpt=ask.sitting.target.name,
            prompt=made.prompt,
            generation=generation,
            tokens=len(made.tokens),
            margin=made.margin,
        )


class Outcomes:
    """The verdicts of the session so far."""

    def __init__(self) -> None:
        self._verdicts: dict[Sitting, dict[tuple[str, str], Verdict]] = {}
        self._seconds: dict[Sitting, float] = {}
        self._controls: dict[tuple[Target, str, str], dict[str, bool]] = {}

    def put(self, asked: Asked) -> None:
        """Note the verdict of a case; a later one about the same case (its teardown failed) replaces it."""
        verdict, sitting = asked.verdict(), asked.ask.sitting
        rows = self._verdicts.setdefault(sitting, {})
        if verdict.identity not in rows:
            self._seconds[sitting] = self._seconds.get(sitting, 0.0) + asked.generated.seconds
        rows[verdict.identity] = verdict
        passed = self._controls.setdefault((sitting.target, verdict.probe, asked.ask.case.id), {})
        passed[f"{verdict.suite} {verdict.case_id}"] = verdict.outcome == "pass"

    def of(self, sitting: Sitting) -> tuple[Verdict, ...]:
        """The verdicts of a suite at a checkpoint, in the order they were reached."""
        return tuple(self._verdicts.get(sitting, {}).values())

    def control_missed(self, asked: Asked, control: str) -> bool:
        """Whether the probe `control` was asked about this case and did not pass. That of the same suite and
        parametrization counts where there is one, otherwise every one must have passed."""
        found = self._controls.get((asked.ask.sitting.target, control, asked.ask.case.id), {})
        same = found.get(f"{asked.ask.sitting.suite} {asked.case_id}")
        return not (same if same is not None else all(found.values()))

    def file(
        self, target: Target, planned: Iterable[tuple[Sitting, Planned, int]], missing: dict[Suite, str]
    ) -> VerdictFile:
        """All verdicts about one checkpoint.

        Args:
            planned: the suites that were asked of it; with each, how many tests that is when nothing is deselected.
            missing: suites that should have been asked and could not be collected, with the reason.
        """
        digest = _weights_sha256(target)
        suites, rows = [], []
        for sitting, plan, tests in planned:
            found = self.of(sitting)
            # only a whole suite may be taken for one that need not be asked again
            key = plan.suite.key() if len(found) == tests else ""
            gate = as_json(plan.own_gate) if plan.own_gate is not None else None
            seconds = round(self._seconds.get(sitting, 0.0), 4)
            suites.append(SuiteAsked(sitting.suite, key, tuple(plan.probe_ids), gate, len(found), seconds))
            rows += [replace(verdict, weights_sha256=digest) for verdict in found]
        for suite, reason in missing.items():
            suites.append(SuiteAsked(suite.name, "", (), None, 1))
            failed = Verdict(suite.name, suite.file.name, "collection", "error", reason=reason, ckpt=target.name)
            rows.append(replace(failed, weights_sha256=digest))
        return VerdictFile(target.name, digest, tuple(suites), tuple(rows))


def write(files: Sequence[tuple[Target, VerdictFile]], path: Path) -> None:
    """Write one verdict file to `path`; several into the folder `path`, each named after its checkpoint."""
    for target, file in files:
        verdicts.write(path if len(files) == 1 else path / f"{target.label.replace('/', '_')}.jsonl", file)


def _weights_sha256(target: Target) -> str:
    if target.at is not None and (target.path / checkpoints.MANIFEST).is_file():
        return checkpoints.read_manifest(target.path).weights_sha256
    try:
        return checkpoints.weights_sha256(target.path)
    except (BadCheckpoint, OSError):
        return ""  # it could not be loaded either: every verdict says why
