"""Before a stage trains: data sets, tokenizer and splits, the plan with its numbers, and the job of each stage."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from runner import folder, handover, jobs, leaks, plan, pulls, sharing, spec
from runner.atomic import publish_text
from runner.checkpoints import Parent, read_manifest, sha256_file, weights_sha256
from runner.data import chat, datasets, preferred, samples, seen, vocabulary
from runner.data.accounts import Account
from runner.data.epochs import Counts, Epochs, stage_epochs
from runner.data.pairs import Preferences
from runner.data.penalty_rows import penalty_epochs
from runner.data.samples import Request
from runner.data.token_store import TOKENS, Kept
from runner.data.tokens import Fast, load_tokenizer, save_tokenizer, train_tokenizer
from runner.errors import BadCheckpoint, BadRecipe, Problem, UserError
from runner.folder import RunRecord, Superseded, folder_or_hub_id, given_tokenizer, tokenizer_place
from runner.jobs import Job
from runner.leaks import Leak
from runner.plan import Arithmetic, Plan, StagePlan
from runner.recipe import Loaded, dump
from runner.spec import parse_ref
from runner.standings import Standings

_PREFERENCE = (spec.Dpo, spec.Contrast)
_DONE_IN = "done in "
_LIBRARIES = ("recipe-runner", "torch", "transformers", "trl", "tokenizers", "safetensors", "pytest")


class Prepared:
    """What the stages of a recipe need; each part is made when it is first asked for, and nothing is written."""

    def __init__(self, loaded: Loaded, run: Path) -> None:
        self.loaded, self.run = loaded, run
        self.recipe = loaded.spec
        self.data = datasets.build(loaded.spec, loaded.root)
        self.keeps_tokens = False
        """Whether token ids are written into the run folder, for its trainers; a plan writes nothing."""
        self._epochs: dict[str, Epochs] = {}

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """Of every data set that a stage, a suite or the tokenizer names, and of `tokenizer`."""
        wanted = self.recipe.model.tokenizer
        named = {ref for stage in self.recipe.stages for ref in self.recipe.reads(stage)}
        named |= {suite.cases for suite in self.recipe.probes.values() if suite.cases}
        named |= set(wanted.from_data) if isinstance(wanted, spec.Tokenizer) else set()
        found = {ref: self.data.get(ref).digest() for ref in sorted(named)}
        if self.chat is not None:
            found["chat template"] = hashlib.sha256(self.chat.source.encode()).hexdigest()
        if isinstance(wanted, spec.Tokenizer):
            texts = " ".join([*(found[ref] for ref in wanted.from_data), found.get("chat template", "")])
            return {**found, "tokenizer": hashlib.sha256(f"{wanted.model_dump_json()} {texts}".encode()).hexdigest()}
        files = sorted(Path(given_tokenizer(self.recipe.model, self.loaded.root)).glob("tokenizer*.json"))
        digest = hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()
        digest = digest if files else str(wanted or self.recipe.model.path)
        if self.terms:
            digest = hashlib.sha256("\n".join([digest, *self.terms]).encode()).hexdigest()
        return {**found, "tokenizer": digest}

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """What `extend_vocabulary` adds to the tokenizer, as it is given."""
        block = self.recipe.model.extend_vocabulary
        return vocabulary.terms_of(block, self.loaded.root) if block is not None else ()

    @cached_property
    def extended(self) -> vocabulary.Extended | None:
        """The tokenizer with those terms in it, made anew whenever it is asked for."""
        if not self.terms:
            return None
        given = load_tokenizer(given_tokenizer(self.recipe.model, self.loaded.root))
        return vocabulary.extend(given, self.terms)

    @cached_property
    def chat(self) -> chat.ChatTemplate | None:
        """See `chat.of`."""
        return chat.of(self.recipe.model, self.loaded.root)

    @cached_property
    def accounts(self) -> tuple[Account, ...]:
        """What became of the rows of every data set that a stage reads.

        Raises:
            BadData: a row of one cannot be read or written.
        """
        refs = dict.fromkeys(ref for stage in self.recipe.stages for ref in self.recipe.reads(stage))
        return tuple(self.data.account(ref) for ref in refs)

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
            return train_tokenizer(wanted, texts, self.chat)
        if self.extended is not None:
            return self.extended.fast
        return load_tokenizer(tokenizer_place(self.recipe.model, self.loaded.root, self.run))

    @cached_property
    def arithmetic(self) -> Mapping[str, Arithmetic]:
        """Steps and batches of every stage.

        Raises:
            BadData: a stage has nothing to train on, or a row of it is wrong.
        """
        return {name: plan.arithmetic(stage, self._rows(name)) for name, stage in self.recipe.stages.items()}

    def _rows(self, name: str) -> int:
        stage = self.recipe.stages[name]
        if isinstance(stage, _PREFERENCE):
            return preferred.rows(stage, self.preferences(name))
        return len(self.epochs(name))

    def preferences(self, name: str, inputs: Mapping[str, str] | None = None) -> list[Preferences]:
        """The pairs of a preference stage, with what checkpoints said as far as they have been asked.

        Args:
            name: of the stage.
            inputs: what it depends on, where that is known; else what its job file says.
        """
        if inputs is None:
            job = jobs.read(self.run / name)
            inputs = job.inputs if job is not None else {}
        refs = self.recipe.stages[name].data
        return preferred.of([self.data.get(ref) for ref in refs], samples.read(self.run, self.data, refs, inputs))

    def epochs(self, name: str) -> Epochs:
        """The rows of a stage, its token ids kept in the run folder where that is written."""
        if name not in self._epochs:
            kept = Kept(self.run / "data" / TOKENS, self.digests, writes=True) if self.keeps_tokens else None
            fast = self.tokenizer_of(name)
            self._epochs[name] = stage_epochs(self.recipe, name, self.data, fast, self.chat, kept)
        return self._epochs[name]

    def clean_tokens(self) -> None:
        """Remove token ids from the run folder that no stage of it trains on any more; none where nothing was planned,
        as then they may be needed."""
        if self.keeps_tokens and self._epochs:
            used = {key for epochs in self._epochs.values() for key in epochs.keys}
            Kept(self.run / "data" / TOKENS, self.digests).clean(used)

    def tokenizer_of(self, name: str) -> Fast:
        """A stage that comes from a folder with weights has the tokenizer there; any other has the first stage's."""
        start = self.recipe.stages[self.recipe.lineage(name)[-1]].from_
        return load_tokenizer(self.loaded.root / start) if start is not None else self.tokenizer

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
        if isinstance(stage, _PREFERENCE):
            fast = self.tokenizer_of(name)
            return preferred.counts(stage, self.preferences(name), fast, self.chat, seed, amount[1])
        return self.epochs(name).counts(*amount)


def write_data(prepared: Prepared, superseded: Superseded) -> None:
    """Write the splits and the tokenizer into the run; what changed is moved aside, what is current is left."""
    prepared.clean_tokens()
    if prepared.data_is_current:
        return
    tokenizer, run = prepared.tokenizer, prepared.run
    # the manifest first: without it the data is not current, should this process end in between
    for path in sorted((run / "data").glob("*"), key=lambda path: path.name != "manifest.json"):
        if path.name != TOKENS:
            superseded.take(path)
    datasets.write_splits(prepared.data, run / "data")
    for ref in sorted({ref for stage in prepared.recipe.stages for ref in prepared.recipe.reads(stage)}):
        seen.write(seen.gather(prepared.data.get(ref)), run / "data" / "seen")
    if isinstance(prepared.recipe.model.tokenizer, spec.Tokenizer):
        save_tokenizer(tokenizer, run / "data" / "tokenizer", prepared.chat)
    if prepared.extended is not None:
        vocabulary.save(prepared.extended, given_tokenizer(prepared.recipe.model, prepared.loaded.root), run / "data")
    everything = sorted(path for path in (run / "data").rglob("*") if path.is_file())
    files = [path for path in everything if path.relative_to(run / "data").parts[0] != TOKENS]
    digests = {str(path.relative_to(run / "data")): sha256_file(path) for path in files}
    manifest = {"format_version": spec.FORMAT_VERSION, "files": digests, "negatives": _negative_counts(prepared)}
    manifest["rows"] = {account.ref: account.record() for account in prepared.accounts}
    publish_text(run / "data" / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")


def _negative_counts(prepared: Prepared) -> dict[str, Any]:
    """What became of the negatives of every data set with pairs that a stage takes."""
    stages = [stage for stage in prepared.recipe.stages.values() if isinstance(stage, _PREFERENCE)]
    refs = sorted({ref for stage in stages for ref in stage.data})
    return {ref: prepared.data.get(ref).preferences().record() for ref in refs}


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
        variant=loaded.variant,
        recipe_sha256=hashlib.sha256(dump(loaded).encode()).hexdigest(),
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


def requests_of(prepared: Prepared, name: str) -> tuple[Request, ...]:
    """What checkpoints are to be asked before a stage begins.

    Raises:
        UserError: there is no such checkpoint (yet).
    """
    stage, standings = prepared.recipe.stages[name], Standings(prepared.recipe, prepared.run)
    found = []
    for ref, number, how in samples.entries(prepared.data, stage.data if isinstance(stage, _PREFERENCE) else ()):
        if parse_ref(how.sample) is None:
            path = prepared.loaded.root / how.sample
            if not path.is_dir():
                raise BadCheckpoint(f"data.{ref}.rejected[{number}].sample: there is no folder {path}")
            found.append(Request(ref, number, how, how.sample, str(path), weights_sha256(path)))
        else:
            at = standings.resolve(how.sample)
            digest = read_manifest(at.path).weights_sha256
            found.append(Request(ref, number, how, at.label, str(at.path), digest))
    return tuple(found)


def inputs_of(prepared: Prepared, name: str, start: Parent | None, start_key: str) -> dict[str, str]:
    """Everything that the weights of a stage will depend on."""
    asked = dict(request.input for request in requests_of(prepared, name))
    return asked | plan.stage_inputs(
        prepared.recipe,
        name,
        data=prepared.digests,
        start=start,
        start_key=start_key,
        tokenizer=prepared.digests["tokenizer"],
        weights=prepared.weights if start is None else "",
    )


def new_job(prepared: Prepared, name: str, start: Parent | None, inputs: Mapping[str, str]) -> Job:
    """The job of a stage that has not begun; what it is to learn from has been asked of the checkpoints."""
    numbers, stage = prepared.arithmetic[name], prepared.recipe.stages[name]
    if requests_of(prepared, name):
        numbers = plan.arithmetic(stage, preferred.rows(stage, prepared.preferences(name, inputs)))
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
        else:
            found[name] = _state(prepared, name, job, standings)
    return found


def _state(prepared: Prepared, name: str, job: Job | None, standings: Standings) -> str:
    if job is None and not prepared.loaded.variant:
        return "to do"
    try:
        inputs = inputs_of(prepared, name, *start_of(prepared, standings, name))
    except UserError:
        return "to do"  # why it cannot start is said when its turn comes: probing again may change that
    key = plan.key(inputs)
    if job is None or job.key != key:
        twin = sharing.find(prepared.run, name, key) if prepared.loaded.variant else None
        if twin is not None and (other := jobs.read(twin)) is not None:
            whole = other.steps_done >= other.total_steps
            return f"{_DONE_IN}{twin.parent.name}" if whole else f"goes on from {twin.parent.name}"
        return "to do" if job is None else f"changed: {plan.changed(job.inputs, inputs)}"
    if job.state == "done" and (job.steps_done >= job.total_steps or standings.end(name) is not None):
        return "done"
    if job.state == "stopped":
        return f"stopped by a gate at step {job.steps_done}"
    saved = [path.parent.name for path in (prepared.run / job.stage / "state").glob("checkpoint-*/complete.json")]
    steps = [int(name.removeprefix("checkpoint-")) for name in saved]
    return f"resumes at step {max(steps)}" if steps else "to do"


# --- the plan ---


def elsewhere(state: Mapping[str, str]) -> dict[str, str]:
    """Of the states of a variant's stages: those that another variant has trained, and which."""
    return {name: words.removeprefix(_DONE_IN) for name, words in state.items() if words.startswith(_DONE_IN)}


def make_plan(prepared: Prepared, trained_in: Mapping[str, str] | None = None) -> Plan:
    """The whole plan; this tokenises every row of every epoch, as training will see them.

    Args:
        trained_in: stages that another variant of the recipe trains, with its name: they are not counted again.
    """
    recipe, trained_in = prepared.recipe, trained_in or {}
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
            ends=plan.ends(recipe, name),
            notes=(
                *handover.words(recipe, name, prepared.loaded.root),
                *_negative_words(prepared, name),
                *_pull_words(prepared, name),
            ),
            at_most=isinstance(stage, _PREFERENCE) and any(one.pending_pairs for one in prepared.preferences(name)),
        )
        for name, stage in recipe.stages.items()
        if name not in trained_in
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
        model=_model_words(recipe.model, prepared.chat),
        device=_device_words(gpus, recipe.model.dtype),
        stages=stages,
        trained_in=trained_in,
        data=prepared.accounts,
        result=f"the gates of {result}" + (f" against {against}" if against else "") + " set the exit code",
        warnings=(
            *plan.warnings(
                recipe, prepared.looks, cases, _probe_files_with(prepared, b"gate"), prepared.own_significant
            ),
            *plan.idle_ends(recipe, {name: numbers.publish_steps for name, numbers in prepared.arithmetic.items()}),
            *_repeated_cases(prepared),
            *(f"probes.{leak.suite}: {leak.words}" for leak in prepared.leaks if _unexpected(recipe, leak)),
        ),
        vocabulary=_vocabulary_words(prepared),
    )


def _negative_words(prepared: Prepared, name: str) -> tuple[str, ...]:
    """What was left out of the pairs of a stage, and what is yet to come."""
    stage = prepared.recipe.stages[name]
    if not isinstance(stage, _PREFERENCE):
        return ()
    found = zip(stage.data, prepared.preferences(name), strict=True)
    return tuple(f"{ref}: {line}" for ref, one in found for line in one.lines())


def _vocabulary_words(prepared: Prepared) -> str:
    """What is added, and what it saves on the texts that the recipe names, else on those of the first stage."""
    block, extended = prepared.recipe.model.extend_vocabulary, prepared.extended
    if block is None or extended is None:
        return ""
    refs = block.text or next(iter(prepared.recipe.stages.values())).data
    texts = (text for ref in refs for text in prepared.data.get(ref).texts())
    return vocabulary.in_words(extended, vocabulary.beginning(texts))


def _repeated_cases(prepared: Prepared) -> Iterator[str]:
    """Suites that ask the same more than once: their rates and gates count it as if it were several questions."""
    for name, suite in prepared.recipe.probes.items():
        if suite.cases and (repeats := prepared.data.get(suite.cases).repeats):
            cases = len(prepared.data.get(suite.cases))
            same = f"{repeats:,} of its {cases:,} cases are the same as an earlier one"
            yield f"probes.{name}: {same}, and count all the same"


def _pull_words(prepared: Prepared, name: str) -> tuple[str, ...]:
    data, fast = prepared.data, prepared.tokenizer_of(name)
    rows = penalty_epochs(prepared.recipe, name, data, fast, prepared.chat)
    counted = {penalty: len(epochs) for penalty, epochs in rows.items()}
    return pulls.words(prepared.recipe.stages[name], prepared.arithmetic[name].total_steps, counted)


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


def _model_words(model: spec.Model, template: chat.ChatTemplate | None) -> str:
    written = ""
    if template is not None:
        written = f"; chat template {template.origin}" if template.chosen else "; its chat template"
    if model.path is not None:
        return model.path + written
    assert model.config is not None
    sizes = (f"{name} {model.config[name]}" for name in ("hidden_size", "num_hidden_layers") if name in model.config)
    return ", ".join([f"new {model.config['model_type']}", *sizes]) + written
