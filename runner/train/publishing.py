"""What a trainer does between steps: record losses, publish checkpoints, keep what resuming needs, obey the parent."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from runner import checkpoints, jobs, saving
from runner.atomic import publish_text, settle
from runner.events import Event, Finished, Journal, Logged, Published, Started
from runner.jobs import Job
from runner.train import processes, stopping, zero
from runner.train.background import Background

_LOGGED = {"loss", "learning_rate", "grad_norm", "epoch"}
"""What has a field of its own in `Logged`."""
_LOOK_EVERY_S = 0.01
_UNDECIDED, _GO_ON, _END, _SIGNALLED = range(4)
"""What a process knows of what is to become of the stage after a checkpoint."""


class Publishing(TrainerCallback):
    """Publishes at the job's steps, saves state when interrupted, and waits for the parent's decision.

    Where several processes train, each has one of these: a signal to one of them ends them all at the same step, the
    first one alone writes, and all of them wait.

    Args:
        run: the run folder.
        recipe: the recipe's name, for manifests.
        kind: the stage's kind, for manifests.
        job: what to do.
        tokens_in_step: for a step counted from 0, its real tokens and how many of them are supervised.
        journal: where events go; only the first process has one.
        attention: what was chosen, for the `started` event.
        notes: what is worth a word about the parameters, for the same.
        settings: of the model's configuration, as they are to be published: training may have others.
        waits: for the parent's decision, at every checkpoint but the last.
        waits_at_the_end: also at the last checkpoint, because trackers are told what its probes say.
    """

    def __init__(
        self,
        *,
        run: Path,
        recipe: str,
        kind: str,
        job: Job,
        tokens_in_step: Callable[[int], tuple[int, int]],
        journal: Journal | None,
        attention: str,
        notes: tuple[str, ...] = (),
        settings: Mapping[str, float] = MappingProxyType({}),
        waits: bool = True,
        waits_at_the_end: bool = False,
    ) -> None:
        self._folder = run / job.stage
        self._recipe, self._kind, self._job = recipe, kind, job
        self._tokens_in_step, self._journal, self._attention = tokens_in_step, journal, attention
        self._notes, self._settings = notes, settings
        self._waits, self._waits_at_the_end = waits, waits_at_the_end
        self._tokens = self._supervised = 0
        self._training_s = 0.0
        self._step_began = self._last_logged = time.perf_counter()
        self._tokens_logged = 0
        self._background = Background()
        self._signalled = self._ends = False  # what this process knows, what all have agreed on
        self._steps_taken = 0
        signal.signal(signal.SIGTERM, self._note_signal)
        signal.signal(signal.SIGINT, self._note_signal)

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended training before its last step."""
        return self._ends and self._steps_taken < self._job.total_steps

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    # --- transformers' hooks, in the order they are called ---

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        model: PreTrainedModel = kw["model"]
        for step in range(state.global_step):
            self._count(step)
        self._tokens_logged = self._tokens
        dtype = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
        # an adapter's copy, which dpo compares with, is no part of the model
        own = [parameter for name, parameter in model.named_parameters() if ".ref." not in name]
        parameters = sum(zero.whole(parameter) for parameter in own)
        trained = sum(zero.whole(parameter) for parameter in own if parameter.requires_grad)
        device = "cpu" if args.device.type == "cpu" else torch.cuda.get_device_name(args.device)
        device = f"{processes.count()} x {device}" if processes.count() > 1 else device
        job, only = self._job, trained if trained < parameters else None
        self._tell(
            Started(
                job.stage,
                state.global_step,
                job.total_steps,
                device,
                dtype,
                self._attention,
                parameters,
                only,
                self._notes,
            )
        )
        self._last_logged = time.perf_counter()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        self._step_began = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        self._training_s += time.perf_counter() - self._step_began
        self._count(state.global_step - 1)
        self._ends = processes.any_of(self._signalled)
        if state.global_step in self._job.publish_steps or self._ends:
            self._background.wait()  # it drops every state but its own
            control.should_save = True
            control.should_log = True
        if self._ends:
            control.should_training_stop = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        logs: dict[str, float] = kw["logs"]
        if "loss" not in logs:
            return  # the summary at the end of training
        now = time.perf_counter()
        pace = (self._tokens - self._tokens_logged) / max(now - self._last_logged, 1e-9)
        self._last_logged, self._tokens_logged = now, self._tokens
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, (int, float))}
        self._tell(
            Logged(
                self._job.stage,
                state.global_step,
                round(state.epoch or 0.0, 4),
                float(logs["loss"]),
                float(logs["learning_rate"]),
                float(logs.get("grad_norm", 0.0)),
                self._tokens,
                round(pace, 1),
                {name: value for name, value in numbers.items() if name not in _LOGGED},
                _most_memory(args.device),
            )
        )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        step = state.global_step
        saved = self._folder / "state" / f"checkpoint-{step}"
        processes.wait_for_all()  # each writes a part of the state
        if processes.is_first():
            if step in self._job.publish_steps:
                stopping.write(kw["model"], saved)
            self._background.do(self._keeping(saved, state))
            if step in self._job.publish_steps and self._waits_at(step):
                self._background.wait()
        processes.wait_for_all()
        if step in self._job.publish_steps and not self._decided_to_go_on(step):
            control.should_training_stop = True
        # the decision may have taken long; it belongs to no step and to no pace
        self._last_logged = time.perf_counter()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        self._background.wait()
        self._steps_taken = state.global_step
        self._tell(
            Finished(
                self._job.stage,
                state.global_step,
                round(self._training_s, 3),
                self._tokens,
                self._supervised,
                self.interrupted,
            )
        )

    # --- steps of the above ---

    def _tell(self, event: Event) -> None:
        if self._journal is not None:
            self._journal.write(event)

    def _count(self, step: int) -> None:
        tokens, supervised = self._tokens_in_step(step)
        self._tokens += tokens
        self._supervised += supervised

    def _keeping(self, saved: Path, state: TrainerState) -> Callable[[], None]:
        """What is to be done with a state that was written: publish the checkpoint in it, then say that it is whole."""
        step, epoch = state.global_step, round(state.epoch or 0.0, 6)
        tokens, training_s = self._tokens, round(self._training_s, 3)

        def keep() -> None:
            if step in self._job.publish_steps:
                self._publish(saved, step, epoch, tokens)
                self._tell(Published(self._job.stage, step, epoch, training_s, self._waits_at(step)))
            # only now: a trainer that is killed in between takes these steps again, and so publishes what it had not
            _mark_complete(saved, self._folder / f"ckpt-{step}")

        return keep

    def _publish(self, saved: Path, step: int, epoch: float, tokens: int) -> None:
        _write_settings(saved / "config.json", self._settings)
        checkpoints.publish(
            saved,
            self._folder / f"ckpt-{step}",
            recipe=self._recipe,
            stage=self._job.stage,
            kind=self._kind,
            step=step,
            epoch=epoch,
            stage_key=self._job.key,
            parent=self._job.start,
            tokens=tokens,
            versions={name: version(name) for name in ("torch", "transformers")},
        )

    def _waits_at(self, step: int) -> bool:
        return self._waits if step < self._job.total_steps else self._waits_at_the_end

    def _decided_to_go_on(self, step: int) -> bool:
        """Wait for the parent, which probes the checkpoint meanwhile; a signal ends the wait.

        Every process looks for itself, and tells the others each time what it has seen: so nobody waits long for one of
        them, however long the probes take, and all do the same.
        """
        if not self._waits_at(step):
            return True
        while True:
            decision = jobs.read_decision(self._folder, step)
            seen = _UNDECIDED if decision is None else _GO_ON if decision else _END
            known = processes.told(_SIGNALLED if self._signalled else seen)
            if _SIGNALLED in known:
                self._ends = True
                return False
            if _UNDECIDED not in known:
                return _END not in known
            time.sleep(_LOOK_EVERY_S)


def _most_memory(device: torch.device) -> int:
    """Bytes that this process had at most: of the device it trains on; where that is a CPU, of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _write_settings(config: Path, settings: Mapping[str, float]) -> None:
    """Put settings back that only training had; an adapter has no configuration of its own."""
    if not settings or not config.is_file():
        return
    row = json.loads(config.read_text(encoding="utf-8"))
    # of a model for several kinds of input, the language model's own part
    row.get("text_config", row).update(settings)
    publish_text(config, json.dumps(row, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _mark_complete(saved: Path, published: Path) -> None:
    """Say that a state folder is whole, then drop the older ones: in this order, so that one always exists."""
    settle(path for path in saved.rglob("*") if path.is_file())
    saving.mark(saved, published)
    for other in saved.parent.glob("checkpoint-*"):
        if other != saved:
            shutil.rmtree(other)


def newest_state(stage_folder: Path) -> Path | None:
    """The whole state folder to resume from, or None. Half-written ones are deleted."""
    whole: list[tuple[int, Path]] = []
    for saved in (stage_folder / "state").glob("checkpoint-*"):
        if saving.is_whole(saved):
            whole.append((int(saved.name.split("-")[1]), saved))
        else:
            shutil.rmtree(saved)
    return max(whole)[1] if whole else None
