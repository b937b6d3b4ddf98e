"""What a console shows, as plain lines: rendered by rich at a fixed width."""

import io

from rich.console import Console, RenderableType

from runner.data.counts import Counts
from runner.gate import Comparison, Decision, Flip, Tally
from runner.plan import Arithmetic, Plan, StagePlan
from runner.verdicts import Verdict


def console(width: int = 80, *, terminal: bool = False, height: int = 40) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=terminal,
        highlight=False,
        emoji=False,
        markup=False,
        color_system="standard" if terminal else None,
    )


def text_of(made: Console) -> str:
    assert isinstance(made.file, io.StringIO)
    return made.file.getvalue()


def lines(shown: RenderableType, width: int = 80) -> list[str]:
    made = console(width)
    made.print(shown)
    return [line.rstrip() for line in text_of(made).split("\n")[:-1]]


def counts(rows: int, tokens: int, supervised: int, **other: int) -> Counts:
    none = {"truncated": 0, "dropped": 0, "unknown": 0}
    return Counts(rows=rows, tokens=tokens, supervised=supervised, **{**none, **other})


BASE = StagePlan(
    name="base",
    kind="pretrain",
    start="model",
    arithmetic=Arithmetic(2000, 63, 1890, (500, 1000, 1890), 32, 1),
    counts=counts(60000, 2_150_000, 2_090_000),
    global_batch_size=32,
    suites=(),
    state="done",
)
QA = StagePlan(
    name="qa",
    kind="sft",
    start="base@last",
    arithmetic=Arithmetic(500, 32, 96, tuple(range(10, 100, 10)), 8, 2),
    counts=counts(1500, 39_000, 21_000, truncated=3, unknown=1200),
    global_batch_size=16,
    suites=("select", "held_out"),
    state="changed: learning_rate 0.0003 -> 0.001",
)
PLAN = Plan(
    recipe="zhdict",
    path="配方/字典.yaml",
    out="results/zhdict",
    model="new qwen3, hidden_size 128",
    device="the CPU, 2 cores, float32",
    stages=(BASE, QA),
    result="the gates of qa@best set the exit code",
    warnings=("probes.select both chooses @best and gates: choosing by it flatters its own result",),
)


def verdict(outcome: str, reply: str, case_id: str = "U+5FC3", ckpt: str = "qa@96") -> Verdict:
    return Verdict("held_out", "t.py::test", case_id, outcome, reply, ckpt=ckpt)  # type: ignore[arg-type]


def flip(before: str, after: str, case_id: str = "U+5FC3") -> Flip:
    return Flip(case_id, verdict("pass", before, case_id, "qa@32"), verdict("miss", after, case_id))


def decision(
    green: bool | None,
    passed: int,
    missed: int = 0,
    *,
    suite: str = "held_out",
    reasons: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    errors: int = 0,
    lost: tuple[Flip, ...] = (),
) -> Decision:
    compared = Comparison("qa@32", passed + missed, lost) if lost else None
    return Decision(suite, green, reasons, notes, Tally(passed, missed, errors, 0), compared)
