"""What trackers are told besides losses: the pass rates of a checkpoint's suites, at its step.

Trackers are transformers' own callbacks (`report_to`). The rates are read from the verdicts that the parent has put
into the run by the time a trainer goes on, so this works with every tracker and in the one session it has open.
"""

from __future__ import annotations

import os
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

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """After a resume: what was asked of the checkpoint it resumes from, which nobody may have told."""
        self._tell(state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """After a checkpoint was published and probed."""
        self._tell(state, control)

    def _tell(self, state: TrainerState, control: TrainerControl) -> None:
        path = checkpoints.verdict_path(self._folder / f"ckpt-{state.global_step}")
        if not path.is_file():
            return
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
