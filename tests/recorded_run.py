"""The folder of a run as `recipe run` leaves it, written without training: for what only reads runs."""

import random
import shutil
from pathlib import Path

from runner import jobs, recipe, verdicts
from runner.checkpoints import verdict_path
from runner.events import Journal, Logged, Started
from runner.folder import RunRecord, write_run
from runner.jobs import Job
from runner.verdicts import SuiteAsked, Verdict, VerdictFile
from tests.recorded import RECIPE, project, publish

SUITES = ("held_out", "loops", "watched")
CHURN = 0.04
"""Share of the cases that answer otherwise at the next checkpoint."""
_TEXT = RECIPE.replace(
    "gate: {min_pass_rate: 0.5}}",
    "gate: {min_pass_rate: 0.9, max_regression: significant}}\n  loops: {file: probes/test_chars.py, stages: qa}\n"
    "  watched: {file: probes/test_chars.py, stages: qa}",
).replace("{checkpoint: qa@best}", "{checkpoint: qa@last, baseline: qa@2}")


def write_run_folder(
    root: Path, checkpoints: int, cases: int, *, said: tuple[str, ...] = (), lost_at_end: int = 0
) -> Path:
    """A project at `root`, and in it a run of two stages with so many checkpoints in the second.

    Args:
        root: of the project.
        checkpoints: of `qa`, at steps 2, 4, 6, …
        cases: of held_out; loops has 20, watched three.
        said: replies of the first cases of held_out, at every checkpoint.
        lost_at_end: cases of held_out that the last checkpoint misses besides.
    """
    loaded = project(root, _TEXT)
    run = root / "results" / "recorded"
    publish(run, "base", 8)
    draw = random.Random(5)
    right = [draw.random() < 0.95 for _ in range(cases)]
    for number in range(1, checkpoints + 1):
        right = [not good if draw.random() < CHURN / 2 else good for good in right]
        outcomes = [good and (number < checkpoints or case >= lost_at_end) for case, good in enumerate(right)]
        label = f"qa@{2 * number}"
        rows = [_verdict("held_out", label, case, good, said) for case, good in enumerate(outcomes)]
        rows += [_loop(label, case, number / checkpoints) for case in range(20)]
        rows += [_watched(label, case, number) for case in range(3)]
        asked = tuple(SuiteAsked(name, "k", ("probes/test_chars.py::test_radical",), None, 1) for name in SUITES)
        verdicts.write(verdict_path(publish(run, "qa", 2 * number)), VerdictFile(label, "w", asked, tuple(rows)))
    _events(run, checkpoints)
    for stage, steps in (("base", 8), ("qa", 2 * checkpoints)):
        jobs.write(run / stage, Job(stage, "k", {}, None, 2, steps, (steps,), 4, 1, "done", steps))
    (run / "recipe.yaml").write_text(recipe.dump(loaded), encoding="utf-8")
    record = RunRecord("recorded", "recorded.yaml", str(root), 3, {"torch": "2.13.0"}, {"cpus": 2}, None, {}, 1)
    write_run(run, record)
    for left in run.parent.glob("state of *"):
        shutil.rmtree(left)
    return run


def _verdict(suite: str, label: str, case: int, good: bool, said: tuple[str, ...]) -> Verdict:
    char = chr(0x4E00 + case)
    reply = said[case] if case < len(said) else f"汉字`{char}`的部首是`{'心' if good else '水'}部`"
    return Verdict(
        suite, "probes/test_chars.py::test_radical", f"U+{0x4E00 + case:X}", "pass" if good else "miss", reply,
        "" if good else f"assert '{reply}' == '汉字`{char}`的部首是`心部`'", ckpt=label,
        prompt=f"汉字`{char}`的部首是什么？", question="q", row="r",
    )  # fmt: skip


def _loop(label: str, case: int, far: float) -> Verdict:
    values = {"seq_rep_4": round(0.4 * (1 - far) + case / 1000, 4)}
    return Verdict("loops", "probes/test_chars.py::test_loops", f"c{case}", "pass", "好" * 9, values=values, ckpt=label)


def _watched(label: str, case: int, number: int) -> Verdict:
    reply = "李白是唐代诗人，生于701年。" * (3 if number < 2 else 1)
    prompt = ("李白是谁？", "绿豆糕", "who are you?")[case]
    return Verdict(
        "watched", "probes/test_chars.py::test_watched", f"w{case}", "pass", reply, ckpt=label, prompt=prompt
    )


def _events(run: Path, checkpoints: int) -> None:
    for stage, steps in (("base", 8), ("qa", 2 * checkpoints)):
        journal = Journal(run / "events" / f"train-{stage}.jsonl")
        journal.write(Started(stage, 0, steps, "cpu", "float32", "sdpa (no CUDA device)", 1000))
        for step in range(1, steps + 1):
            loss = 3 / (1 + step / 4)
            journal.write(Logged(stage, step, step / 8, loss, 1e-3, 0.5, step * 100, 1000.0, {}))
        journal.close()
