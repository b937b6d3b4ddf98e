"""What trackers are told besides losses: the pass rates of a checkpoint's suites, at its step.

Trackers are transformers' own callbacks (`report_to`). The rates are read from the verdicts that the parent puts into
the run, by the time a trainer that waits for them goes on, else when they are there; so this works with every tracker
and in the one session it has open.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from runner import checkpoints, gate, verdicts


class PassRates(TrainerCallback):
    """Logs `eval_SUITE_pass_rate`, which trackers show as `eval/SUITE_pass_rate`. Added after `Publishing`, whose wait
    for the parent's decision is over when this is called.

    Args:
        trainer: whose callbacks are told.
        stage_folder: the stage's folder in the run.
    """

    def __init__(self, trainer: Trainer, stage_folder: Path) -> None:
        self._trainer, self._folder = trainer, stage_folder
        self._untold: list[int] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """After a resume: what was asked of the checkpoint it resumes from, which nobody may have told."""
        self._untold.append(state.global_step)
        self._tell(state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """After a checkpoint was published; it was probed too where training waits for that."""
        self._untold.append(state.global_step)
        self._tell(state, control)

    def _tell(self, state: TrainerState, control: TrainerControl) -> None:
        """Every checkpoint whose verdicts have come, at its own step."""
        for step in list(self._untold):
            path = checkpoints.verdict_path(self._folder / f"ckpt-{step}")
            if path.is_file():
                self._untold.remove(step)
                self._log(path, replace(state, global_step=step), control)

    def _log(self, path: Path, state: TrainerState, control: TrainerControl) -> None:
        file = verdicts.read(path)
        rates = {asked.suite: gate.count(file.of(asked.suite)).rate for asked in file.suites}
        logs = {f"eval_{suite}_pass_rate": rate for suite, rate in rates.items() if rate is not None}
        self._trainer.callback_handler.on_log(self._trainer.args, state, control, logs)


def attach(trainer: Trainer, run: Path, stage: str) -> None:
    """Add the pass rates to what the trackers of a stage are told, and give TensorBoard a folder that lasts: its own
    default lies in the state, which is deleted when the stage is done."""
    given = os.environ.get("TENSORBOARD_LOGGING_DIR")
    folder = Path(given) if given else run / "trackers" / "tensorboard"
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__name__ == "TensorBoardCallback":
            callback.logging_dir = str(folder / stage)
    trainer.add_callback(PassRates(trainer, run / stage))
