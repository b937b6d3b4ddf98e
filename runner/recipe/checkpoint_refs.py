"""References to checkpoints, `qa@best`: does the stage exist, does it come first, will it publish that checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner import spec
from runner.errors import Problem, nearest
from runner.recipe.layers import Layered, blocks_of, did_you_mean, near_file, strings_of
from runner.yaml_marks import Path as ValuePath


@dataclass
class CheckpointRefs:
    """Checks references to checkpoints; what is wrong is added to `problems`."""

    layered: Layered
    root: Path
    files: bool
    """Whether to look if a folder that is named exists."""
    problems: list[Problem]

    def __post_init__(self) -> None:
        self.steps, self.suites = (blocks_of(self.layered.values, key) for key in ("stages", "probes"))

    def _report(self, message: str, path: ValuePath, expected: str | None = None, hint: str | None = None) -> None:
        self.problems.append(Problem(message, self.layered.mark(path).at_value(), expected, hint))

    def check(self, text: str, path: ValuePath, above: list[str] | None = None) -> None:
        """Checks a reference to a checkpoint; `above` are the stages it may name: None is all, and no path."""
        ref = spec.parse_ref(text)
        named = self.layered.values.get("stages")
        stages = list(named) if isinstance(named, dict) else []
        if ref is None and above is None and (self.root / text).exists():
            expected = "a stage of this recipe with @best, @last, @epoch=N or @STEP"
            hint = "a folder from elsewhere can be compared by hand: pytest probes --ckpt … --probe-baseline FOLDER"
            self._report(f"{text!r} is not a checkpoint of this recipe", path, expected, hint)
        elif ref is None:
            self._ref_path(text, path, above or stages)
        elif ref.stage not in stages:
            hint = did_you_mean(ref.stage, above or stages) or f"there are: {', '.join(above or stages)}"
            self._report(f"no stage `{ref.stage}`", path, None, hint)
        elif above is not None and ref.stage not in above:
            what = "itself" if ref.stage == path[1] else f"`{ref.stage}`, which comes later"
            hint = f"stages above: {', '.join(above)}"
            self._report(f"`{path[1]}` cannot start from {what}", path, "a stage above", hint)
        elif ref.which == "best":
            self._best(ref.stage, path)
        elif ref.which == "epoch":
            self._epoch(ref, path)
        elif ref.which == "step":
            self._step(ref, path)

    def _ref_path(self, text: str, path: ValuePath, stages: list[str]) -> None:
        name, at, which = text.partition("@")
        expected = "a stage with @best, @last, @epoch=N or @STEP, or a path"
        if at and "/" not in name:
            near = (
                did_you_mean(which.partition("=")[0], ("best", "last", "epoch"))
                or "after @ comes best, last, epoch=N or a step"
            )
            self._report(f"{text!r} is not a checkpoint", path, expected, near)
        elif text in stages:
            self._report(
                f"{text!r} does not say which checkpoint",
                path,
                None,
                f"for example {text}@last or {text}@best",
            )
        elif self.files and not (self.root / text).exists():
            close = nearest(text, stages)
            hint = f"did you mean {close}@last?" if close else near_file(self.root / text, text)
            self._report(f"{text!r} is neither a stage's checkpoint nor a path that exists", path, expected, hint)

    def _best(self, stage: str, path: ValuePath) -> None:
        best = self.layered.values.get("best")
        if best is None:
            hint = f"name a suite, for example best: {next(iter(self.suites), 'SUITE')}"
            self._report("`@best` needs `best:`, which the recipe does not have", path, None, hint)
        elif isinstance(best, str) and best in self.suites:
            asked = self.suites[best].get("stages")
            if asked is not None and stage not in [item for item, _ in strings_of(asked, ())]:
                hint = f"add {stage} to `probes.{best}.stages`, or take @last"
                self._report(f"the `best:` suite `{best}` is not asked at `{stage}`", path, None, hint)

    def _epoch(self, ref: spec.Ref, path: ValuePath) -> None:
        """Reports an epoch at whose end the stage cannot publish a checkpoint."""
        stage = self.steps.get(ref.stage, {})
        epochs = stage.get("num_train_epochs", 3.0)
        if stage.get("max_steps") is not None or isinstance(epochs, bool) or not isinstance(epochs, (int, float)):
            epochs = None  # how many there will be depends on the rows, or the models report it
        number, hint = f"{ref.number:g}", None if epochs is None else f"it trains for {epochs:g} epochs"
        if ref.number <= 0 or (epochs is not None and ref.number > epochs):
            self._report(f"`{ref.stage}` has no epoch {number}", path, None, hint)
        elif ref.number == epochs:
            return
        elif stage.get("save_strategy", "steps") != "epoch":
            hint = f"give `{ref.stage}` save_strategy: epoch, or name a step"
            self._report(f"`{ref.stage}` publishes no checkpoint at the end of an epoch", path, None, hint)
        elif not ref.number.is_integer():
            self._report(f"`{ref.stage}` publishes no checkpoint at epoch {number}", path, "a whole epoch", hint)

    def _step(self, ref: spec.Ref, path: ValuePath) -> None:
        """Reports a step at which the stage cannot publish a checkpoint."""
        stage = self.steps.get(ref.stage, {})
        steps, saves = stage.get("max_steps"), stage.get("save_steps", 500)
        number, known = f"{ref.number:g}", isinstance(steps, int)
        if ref.number < 1 or (isinstance(steps, int) and ref.number > steps):
            hint = f"it trains for {steps} steps" if known else None
            self._report(f"`{ref.stage}` has no step {number}", path, None, hint)
            return
        if not known or ref.number == steps or stage.get("save_strategy", "steps") != "steps":
            return  # where it ends is not known before the rows are counted, and its last step is always published
        if isinstance(saves, int) and saves > 0 and ref.number % saves:
            said = f"it publishes every {saves} steps"
        elif isinstance(saves, list) and ref.number not in saves:
            said = f"it publishes at {', '.join(map(str, saves))}"
        else:
            return
        self._report(f"`{ref.stage}` publishes no checkpoint at step {number}", path, None, f"{said}, and at {steps}")
