"""Before a stage trains: data sets, tokenizer and splits, the plan with its numbers, and the job of each stage."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from runner import folder, jobs, leaks, plan, spec
from runner.atomic import publish_text
from runner.checkpoints import Parent, read_manifest, sha256_file, weights_sha256
from runner.data import datasets, seen
from runner.data.epochs import Counts, Epochs, count_pairs
from runner.data.tokens import Fast, load_tokenizer, save_tokenizer, train_tokenizer
from runner.errors import BadCheckpoint, BadRecipe, Problem, UserError
from runner.folder import RunRecord, Superseded, folder_or_hub_id, tokenizer_place
from runner.jobs import Job
from runner.leaks import Leak
from runner.plan import Arithmetic, Plan, StagePlan
from runner.recipe import Loaded
from runner.spec import parse_ref
from runner.standings import Standings

_LIBRARIES = ("recipe-runner", "torch", "transformers", "trl", "tokenizers", "safetensors", "pytest")


class Prepared:
    """What the stages of a recipe need; each part is made when it is first asked for, and nothing is written."""

    def __init__(self, loaded: Loaded, run: Path) -> None:
        self.loaded, self.run = loaded, run
        self.recipe = loaded.spec
        self.data = datasets.build(loaded.spec, loaded.root)

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """Of every data set that a stage, a suite or the tokenizer names, and of `tokenizer`."""
        wanted = self.recipe.model.tokenizer
        named = {ref for stage in self.recipe.stages.values() for ref in stage.data}
        named |= {suite.cases for suite in self.recipe.probes.values() if suite.cases}
        named |= set(wanted.from_data) if isinstance(wanted, spec.Tokenizer) else set()
        found = {ref: self.data.get(ref).digest() for ref in sorted(named)}
        if isinstance(wanted, spec.Tokenizer):
            texts = " ".join(found[ref] for ref in wanted.from_data)
            return {**found, "tokenizer": hashlib.sha256(f"{wanted.model_dump_json()} {texts}".encode()).hexdigest()}
        files = sorted(Path(tokenizer_place(self.recipe.model, self.loaded.root, self.run)).glob("tokenizer*.json"))
        digest = hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()
        return {**found, "tokenizer": digest if files else str(wanted or self.recipe.model.path)}

    @cached_property
    def weights(self) -> str:
        """Digest of the weights at `model.path`; empty for a new model, the name for one on a hub."""
        if self.recipe.model.path is None:
            return ""
        place = folder_or_hub_id(self.recipe.model.path, self.loaded.root)
        return weights_sha256(Path(place)) if Path(place).is_dir() else place

    @property
    def data_is_current(self) -> bool:
        """Whether the data and the tokenizer in the run folder are those of this recipe and these files."""
        whole = (self.run / "run.json").exists() and (self.run / "data" / "manifest.json").exists()
        return whole and dict(folder.read_run(self.run).data) == dict(self.digests)

    @cached_property
    def tokenizer(self) -> Fast:
        """The first stage's tokenizer: trained now where the run has not made it yet."""
        wanted = self.recipe.model.tokenizer
        if isinstance(wanted, spec.Tokenizer) and not self.data_is_current:
            texts = (text for ref in wanted.from_data for text in self.data.get(ref).texts())
            return train_tokenizer(wanted, texts)
        return load_tokenizer(tokenizer_place(self.recipe.model, self.loaded.root, self.run))

    @cached_property
    def arithmetic(self) -> Mapping[str, Arithmetic]:
        """Steps and batches of every stage.

        Raises:
            BadData: a stage has nothing to train on, or a row of it is wrong.
        """
        return {name: plan.arithmetic(stage, self._rows(stage)) for name, stage in self.recipe.stages.items()}

    def _rows(self, stage: spec.Stage) -> int:
        if isinstance(stage, spec.Dpo):
            return sum(len(self.data.get(ref).pairs()) for ref in stage.data)
        return sum(len(self.data.get(ref)) for ref in stage.data)

    def check_steps(self) -> None:
        """Whether every step that `from:` names will be published, known once the rows are counted.

        Raises:
            BadRecipe: one will not be.
        """
        problems = []
        for name, stage in self.recipe.stages.items():
            ref = parse_ref(stage.from_) if stage.from_ else None
            steps = self.arithmetic[ref.stage].publish_steps if ref else ()
            if ref is not None and ref.which == "step" and ref.number not in steps:
                where = self.loaded.marks["stages", name, "from"].at_value()
                expected = f"one of its steps {', '.join(map(str, steps))}"
                problems.append(
                    Problem(f"`{ref.stage}` publishes no checkpoint at step {ref.number:g}", where, expected)
                )
        if problems:
            raise BadRecipe(problems)

    @cached_property
    def leaks(self) -> tuple[Leak, ...]:
        """See `leaks.find`."""
        return leaks.find(self.recipe, self.data)

    def check_leaks(self) -> None:
        """Whether a suite with `leaks: fail` asks what is trained.

        Raises:
            BadRecipe: one does.
        """
        forbidden = [leak for leak in self.leaks if self.recipe.probes[leak.suite].leaks == "fail"]
        if forbidden:
            marks = self.loaded.marks
            raise BadRecipe(
                Problem(
                    leak.words,
                    marks["probes", leak.suite, "cases"].at_value(),
                    "cases that no stage trains on, as `leaks: fail` promises",
                    f"first {leak.first!r}; split the rows by what they are about: split: {{by: COLUMN, …}}",
                )
                for leak in forbidden
            )

    @cached_property
    def looks(self) -> int:
        """See `plan.looks`."""
        return self.looks_at({name: numbers.publish_steps for name, numbers in self.arithmetic.items()})

    def looks_at(self, publish_steps: Mapping[str, Sequence[int]]) -> int:
        """The same, where the steps of every stage are known without a look at the data."""
        return plan.looks(self.recipe, publish_steps, self.own_significant)

    @cached_property
    def own_significant(self) -> frozenset[str]:
        """See `plan.significant`."""
        return frozenset(_probe_files_with(self, b"significant"))

    def counts(self, name: str) -> Counts:
        """What the tokenizer makes of all rows that a stage will see."""
        stage, seed = self.recipe.stages[name], self.recipe.seed
        amount = stage.global_batch_size, self.arithmetic[name].total_steps
        sets = [self.data.get(ref) for ref in stage.data]
        if isinstance(stage, spec.Dpo):
            pairs = [pair for data in sets for pair in data.pairs()]
            return count_pairs(self.tokenizer, pairs, stage.max_length, seed, *amount)
        whole = isinstance(stage, spec.Pretrain)
        return Epochs(sets, self.tokenizer, seed, stage.max_length, whole=whole).counts(*amount)


def write_data(prepared: Prepared, superseded: Superseded) -> None:
    """Write the splits and the tokenizer into the run; what changed is moved aside, what is current is left."""
    if prepared.data_is_current:
        return
    tokenizer, run = prepared.tokenizer, prepared.run
    if (run / "data").exists():
        superseded.take(run / "data")
    datasets.write_splits(prepared.data, run / "data")
    for ref in sorted({ref for stage in prepared.recipe.stages.values() for ref in stage.data}):
        seen.write(seen.gather(prepared.data.get(ref)), run / "data" / "seen")
    if isinstance(prepared.recipe.model.tokenizer, spec.Tokenizer):
        save_tokenizer(tokenizer, run / "data" / "tokenizer")
    files = sorted(path for path in (run / "data").rglob("*") if path.is_file())
    digests = {str(path.relative_to(run / "data")): sha256_file(path) for path in files}
    manifest = {"format_version": spec.FORMAT_VERSION, "files": digests}
    publish_text(run / "data" / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")


def run_record(prepared: Prepared, looks: int) -> RunRecord:
    """What `run.json` will say."""
    loaded = prepared.loaded
    return RunRecord(
        recipe=loaded.spec.recipe,
        recipe_path=os.path.relpath(loaded.path, loaded.root),
        project_root=str(loaded.root),
        seed=loaded.spec.seed,
        versions={"python": platform.python_version()} | {name: plan.library_version(name) for name in _LIBRARIES},
        hardware={"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": len(visible_gpus())},
        git_commit=_git_commit(loaded.root),
        data=prepared.digests,
        looks=looks,
    )


def visible_gpus() -> list[str]:
    """NVIDIA devices of this machine that are not hidden, found without importing torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))
    return (
        devices
        if hidden is None
        else devices[: len([part for part in hidden.split(",") if part.strip() not in ("", "-1")])]
    )


def _git_commit(root: Path) -> str | None:
    try:
        asked = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return asked.stdout.strip() or None


# --- the job of a stage ---


def start_of(prepared: Prepared, standings: Standings, name: str) -> tuple[Parent | None, str]:
    """The checkpoint that a stage starts from, and the key of the stage it belongs to.

    Raises:
        UserError: there is no such checkpoint (yet).
    """
    reference = prepared.recipe.stages[name].from_
    if reference is None:
        return None, ""
    if parse_ref(reference) is None:
        path = prepared.loaded.root / reference
        if not path.is_dir():
            raise BadCheckpoint(f"stages.{name}.from: there is no folder {path}")
        return Parent(reference, str(path), weights_sha256(path)), ""
    found = standings.resolve(reference)
    job = standings.job(found.stage)
    digest = read_manifest(found.path).weights_sha256
    return Parent(found.label, os.path.relpath(found.path, prepared.run / name), digest), job.key if job else ""


def inputs_of(prepared: Prepared, name: str, start: Parent | None, start_key: str) -> dict[str, str]:
    """Everything that the weights of a stage will depend on."""
    return plan.stage_inputs(
        prepared.recipe,
        name,
        data=prepared.digests,
        start=start,
        start_key=start_key,
        tokenizer=prepared.digests["tokenizer"],
        weights=prepared.weights if start is None else "",
    )


def new_job(prepared: Prepared, name: str, start: Parent | None, inputs: Mapping[str, str]) -> Job:
    """The job of a stage that has not begun."""
    numbers = prepared.arithmetic[name]
    return Job(
        stage=name,
        key=plan.key(inputs),
        inputs=inputs,
        start=start,
        steps_per_epoch=numbers.steps_per_epoch,
        total_steps=numbers.total_steps,
        publish_steps=numbers.publish_steps,
        per_device_batch_size=numbers.per_device_batch_size,
        accumulation_steps=numbers.accumulation_steps,
    )


def states(prepared: Prepared) -> dict[str, str]:
    """For every stage: `done`, `resumes at step 96`, `changed: …`, `to do`. Below one that is not done, none is."""
    run = prepared.run
    standings = Standings(prepared.recipe, run)
    found: dict[str, str] = {}
    for name, stage in prepared.recipe.stages.items():
        ref = parse_ref(stage.from_) if stage.from_ else None
        job = jobs.read(run / name)
        if ref is not None and found.get(ref.stage) != "done":
            found[name] = "to do" if job is None else f"again, after {ref.stage}"
        elif job is None:
            found[name] = "to do"
        else:
            found[name] = _state(prepared, job, standings)
    return found


def _state(prepared: Prepared, job: Job, standings: Standings) -> str:
    try:
        inputs = inputs_of(prepared, job.stage, *start_of(prepared, standings, job.stage))
    except UserError:
        return "to do"  # why it cannot start is said when its turn comes: probing again may change that
    if job.key != plan.key(inputs):
        return f"changed: {plan.changed(job.inputs, inputs)}"
    if job.state == "done":
        return "done"
    if job.state == "stopped":
        return f"stopped by a gate at step {job.steps_done}"
    saved = [path.parent.name for path in (prepared.run / job.stage / "state").glob("checkpoint-*/complete.json")]
    steps = [int(name.removeprefix("checkpoint-")) for name in saved]
    return f"resumes at step {max(steps)}" if steps else "to do"


# --- the plan ---


def make_plan(prepared: Prepared) -> Plan:
    """The whole plan; this tokenises every row of every epoch, as training will see them."""
    recipe = prepared.recipe
    prepared.check_steps()
    prepared.check_leaks()
    state = states(prepared)
    stages = tuple(
        StagePlan(
            name=name,
            kind=stage.kind,
            start=stage.from_ or "model",
            arithmetic=prepared.arithmetic[name],
            counts=prepared.counts(name),
            global_batch_size=stage.global_batch_size,
            suites=recipe.asked_at(name),
            state=state[name],
        )
        for name, stage in recipe.stages.items()
    )
    cases = {name: len(prepared.data.get(suite.cases)) for name, suite in recipe.probes.items() if suite.cases}
    last = next(reversed(recipe.stages))
    result = recipe.result.checkpoint if recipe.result else f"{last}@last"
    against = recipe.result.baseline if recipe.result else None
    gpus = visible_gpus()
    return Plan(
        recipe=recipe.recipe,
        path=os.path.relpath(prepared.loaded.path, prepared.loaded.root),
        out=os.path.relpath(prepared.run),
        model=_model_words(recipe.model),
        device=_device_words(gpus, recipe.model.dtype),
        stages=stages,
        result=f"the gates of {result}" + (f" against {against}" if against else "") + " set the exit code",
        warnings=(
            *plan.warnings(
                recipe, prepared.looks, cases, _probe_files_with(prepared, b"gate"), prepared.own_significant
            ),
            *(f"probes.{leak.suite}: {leak.words}" for leak in prepared.leaks if _unexpected(recipe, leak)),
        ),
    )


def _unexpected(recipe: spec.Recipe, leak: Leak) -> bool:
    return recipe.probes[leak.suite].leaks != "expected"


def _probe_files_with(prepared: Prepared, word: bytes) -> set[str]:
    """Suites whose probe file, or the conftest.py beside it, holds a word; the plan imports none of them."""
    found = set()
    for name, suite in prepared.recipe.probes.items():
        file = prepared.loaded.root / suite.file.partition("::")[0]
        beside = file.with_name("conftest.py")
        if word in file.read_bytes() or (beside.is_file() and word in beside.read_bytes()):
            found.add(name)
    return found


def _device_words(gpus: Sequence[str], dtype: str) -> str:
    if not gpus:
        return f"the CPU, {os.cpu_count()} cores, {'float32' if dtype == 'auto' else dtype}"
    return "one GPU" + (f" of {len(gpus)}" if len(gpus) > 1 else "")


def _model_words(model: spec.Model) -> str:
    if model.path is not None:
        return model.path
    assert model.config is not None
    sizes = (f"{name} {model.config[name]}" for name in ("hidden_size", "num_hidden_layers") if name in model.config)
    return ", ".join([f"new {model.config['model_type']}", *sizes])
