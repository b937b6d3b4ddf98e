"""A real screen with recorded events, for a real terminal: `python tests/recorded_screen.py FOLDER`.

It shows one state after the other. FOLDER gets an empty file with the name of each state once that is shown; the next
one comes when that file is removed.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from runner import underway
from runner.cli.root import console
from runner.events import Logged, Published, Started
from runner.progress import Screen
from runner.tables import CheckpointRow
from tests.screens import BASE, PLAN, QA, decision, flip

TITLE = "汉字配方"
STAGES = tuple(replace(QA, name=f"第{number}阶段_instruct") for number in range(12))
SUITES = tuple(f"套件{number}_held_out_facts" for number in range(9))
RECORDED = replace(PLAN, recipe=TITLE, stages=(BASE, *(replace(stage, suites=SUITES) for stage in STAGES)))
LONG = "汉字`心`的部首是`心部`，" * 12 + "\x1b[31m\x07"


def main(folder: Path) -> None:
    """Show one state after the other."""

    def next_state(name: str) -> None:
        (folder / name).touch()
        while (folder / name).exists():
            time.sleep(0.02)

    with Screen(console()) as screen:
        with underway.work("reading data/汉字字典_with_a_long_name.jsonl", 5e9, "bytes") as reading:
            reading.advance(1.2e9)
            next_state("reading")
        screen.planned(RECORDED)
        next_state("planned")
        screen.stage("base", "skipped", "nothing changed")
        for stage in STAGES[:3]:
            screen.stage(stage.name, "running")
            screen.started(Started(stage.name, 0, 96, "cpu", "float32", "sdpa", 569_728))
            for step in range(1, 97):
                loss = 4 / step
                screen.logged(
                    Logged(stage.name, step, step / 32, loss, 3e-4, 1.0, step * 99, 23_456.0, {}, 1_234_567_890)
                )
                if step % 8 == 0:
                    screen.published(Published(stage.name, step, step / 32, 1.5, True))
                    screen.judged(_row(f"{stage.name}@{step}", step), again=False)
            screen.stage(stage.name, "done")
        name = STAGES[3].name
        screen.stage(name, "running")
        screen.logged(Logged(name, 40, 1.2, 0.5, 3e-4, 1.0, 9900, 23_456.0, {}, 1_234_567_890))
        next_state("training")
        screen.published(Published(name, 40, 1.2, 1.5, True))
        with underway.work(f"{name}@40 answering", 10_000, "questions") as answering:
            answering.advance(1234)
            next_state("probing")
        screen.leaving()
        next_state("leaving")


def _row(label: str, step: int) -> CheckpointRow:
    lost = (flip(f"字 {LONG}", f"{LONG} 水部"), flip("short", "短"))
    decisions = {
        suite: decision(number != 4, 290, 10 + step, suite=suite, lost=lost if number == 4 else ())
        for number, suite in enumerate(SUITES)
    }
    return CheckpointRow(label, 4 / step, decisions)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
