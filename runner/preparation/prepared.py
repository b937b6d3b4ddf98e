"""What the stages of a recipe need, each part made when it is first asked for: data, tokenizer, counts, leaks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from runner import deepspeed_config, dividing, folder, jobs, launch, leaks, plan, spec, underway
from runner.checkpoints import sha256_file, weights_sha256
from runner.data import chat, datasets, declared, preferred, samples, tokenizer_files, vocabulary
from runner.data.accounts import Account
from runner.data.counts import Counts
from runner.data.epochs import Epochs, stage_epochs
from runner.data.pairs import Preferences
from runner.data.token_store import TOKENS, Kept
from runner.data.tokenizer import Fast, load_tokenizer, train_tokenizer
from runner.errors import BadCheckpoint, BadRecipe, Problem
from runner.folder import folder_or_hub_id, given_tokenizer, tokenizer_place
from runner.gpus import visible_gpus
from runner.leaks import Leak
from runner.memory import Devices
from runner.plan import Arithmetic
from runner.preparation.devices import check_devices
from runner.recipe import Loaded
from runner.spec import parse_ref

PREFERENCE = (spec.Dpo, spec.Contrast)
"""Kinds of stages that are trained on pairs."""


class Prepared:
    """What the stages of a recipe need; each part is made when it is first asked for, and nothing is written."""

    def __init__(self, loaded: Loaded, run: Path, devices: Devices | None = None) -> None:
        self.loaded, self.run = loaded, run
        self.recipe = loaded.spec
        self.data = datasets.build(loaded.spec, loaded.root)
        self.devices = devices
        """What is planned for; None where it is this machine."""
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
        found = {ref: self._digest(ref) for ref in sorted(named)}
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

    def _digest(self, ref: str) -> str:
        """Of a data set; where its files are not here, of what the recipe says of it, which no run ever sees."""
        if self.data.missing(ref) is None:
            return self.data.get(ref).digest()
        blocks = {name: block.model_dump(mode="json") for name, block in self.recipe.data.items()}
        return hashlib.sha256(json.dumps([blocks, ref], sort_keys=True).encode()).hexdigest()

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
        """See `chat.of`; None too where it is of a tokenizer that is not here."""
        try:
            return chat.of(self.recipe.model, self.loaded.root)
        except BadCheckpoint:
            if self.has_tokenizer:
                raise
            return None

    @cached_property
    def accounts(self) -> tuple[Account, ...]:
        """What became of the rows of every data set that a stage reads.

        Raises:
            BadData: a row of one cannot be read or written.
        """
        refs = dict.fromkeys(ref for stage in self.recipe.stages for ref in self.recipe.reads(stage))
        return tuple(self.data.account(ref) for ref in refs if self.data.missing(ref) is None)

    @cached_property
    def weights(self) -> str:
        """Digest of the weights at `model.path`; empty for a new model, the name for one on a hub."""
        if self.recipe.model.path is None:
            return ""
        place = folder_or_hub_id(self.recipe.model.path, self.loaded.root)
        with underway.work(f"digesting the weights of {self.recipe.model.path}"):
            return weights_sha256(Path(place)) if Path(place).is_dir() else place

    @property
    def data_is_current(self) -> bool:
        """Whether the data and the tokenizer in the run folder are those of this recipe and these files."""
        whole = (self.run / "run.json").exists() and self._data_is_whole()
        return whole and dict(folder.read_run(self.run).data) == dict(self.digests)

    def _data_is_whole(self) -> bool:
        """Whether all that was written under `data/` is there: who makes room may have removed some of it."""
        data = self.run / "data"
        try:
            names = list(json.loads((data / "manifest.json").read_text(encoding="utf-8"))["files"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False
        return all((data / name).is_file() for name in names)

    @cached_property
    def tokenizer(self) -> Fast:
        """The first stage's tokenizer: trained now where the run has not made it yet."""
        wanted = self.recipe.model.tokenizer
        if isinstance(wanted, spec.Tokenizer) and not self.data_is_current:
            texts = (text for ref in wanted.from_data for text in self.data.get(ref).texts())
            with underway.work("training the tokenizer"):
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
        self._check_shares()
        return {
            # on devices that are only planned for, a stage takes as many as can share its batch, and the plan says so
            name: plan.arithmetic(
                stage, self._rows(name), dividing.most_sharing(stage.global_batch_size, self.processes)
            )
            for name, stage in self.recipe.stages.items()
        }

    @property
    def processes(self) -> int:
        """That train, on all machines together: on the devices that are planned for, else on those of this machine."""
        if self.devices is not None:
            return self.devices.count
        how = self.recipe.launch
        return how.nodes * launch.processes(how, visible_gpus())

    def _check_shares(self) -> None:
        """Whether the processes of this machine can share the global batch of every stage.

        Raises:
            BadRecipe: they cannot, and which values can.
        """
        if self.devices is not None:
            return
        check_devices(self.loaded, visible_gpus())
        count = self.processes
        problems = []
        for name, stage in self.recipe.stages.items():
            if not dividing.divides(stage.global_batch_size, count):
                written = "global_batch_size" in stage.model_fields_set
                mark = self.loaded.mark("stages", name, *(["global_batch_size"] if written else []))
                message = f"stage {name}: {count} processes cannot share a global batch of {stage.global_batch_size}"
                expected = dividing.which_can(stage.global_batch_size, count)
                problems.append(Problem(message, mark.at_value() if written else mark.at_key(), expected))
        if problems:
            raise BadRecipe(problems)

    def is_seen(self, name: str) -> bool:
        """Whether all that a stage reads is here, and the tokenizer that reads it."""
        first = self.recipe.stages[self.recipe.lineage(name)[-1]].from_ is None
        here = all(self.data.missing(ref) is None for ref in self.recipe.reads(name))
        return here and (self.has_tokenizer or not first)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the first stage's tokenizer is here, or can be trained here."""
        return not self.tokenizer_fault

    @cached_property
    def tokenizer_fault(self) -> str:
        """Why the first stage's tokenizer is not here, nor can be fetched or trained; empty where it is or can."""
        wanted = self.recipe.model.tokenizer
        if isinstance(wanted, spec.Tokenizer):
            here = all(self.data.missing(ref) is None for ref in wanted.from_data)
            return "" if here else "it cannot be trained before its data is here"
        try:
            tokenizer_files.folder_of(given_tokenizer(self.recipe.model, self.loaded.root))
        except BadCheckpoint as error:
            return error.problems[0].message
        return ""

    def rows(self, name: str) -> declared.Rows:
        """How many rows, for dpo pairs, an epoch of a stage has, as far as it can be said.

        Raises:
            BadData: a stage has nothing to train on, or a row of it is wrong.
        """
        if self.is_seen(name):
            return declared.Rows(self._seen_rows(name))
        return declared.of_stage(self.recipe, self.data, name)

    def _rows(self, name: str) -> int | None:
        """The same as a number; None where it is not known, and the recipe says how many steps there are.

        Raises:
            BadRecipe: it does not.
        """
        found, stage = self.rows(name), self.recipe.stages[name]
        if found.bound != "?":
            return found.count
        if stage.max_steps is not None:
            return None
        raise BadRecipe(
            f"stage {name}: how many rows it has is known only from its files, which are not here",
            where=self.loaded.mark("stages", name, "data").at_value(),
            expected="max_steps in this stage, or the files",
        )

    def _seen_rows(self, name: str) -> int:
        stage = self.recipe.stages[name]
        if isinstance(stage, PREFERENCE):
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
            kept = self._kept if self.keeps_tokens else None
            fast = self.tokenizer_of(name)
            self._epochs[name] = stage_epochs(self.recipe, name, self.data, fast, self.chat, kept)
        return self._epochs[name]

    def keep_tokens(self) -> None:
        """From now on write token ids into the run folder; those encoded before went to a file without a name."""
        self.keeps_tokens = True
        self._epochs = {}

    @property
    def _kept(self) -> Kept:
        """Where token ids are written: in the folder of a variant, those of its siblings are linked."""
        own = self.run / "data" / TOKENS
        others = sorted(self.run.parent.glob(f"*/data/{TOKENS}")) if self.loaded.variant else []
        return Kept(own, self.digests, writes=True, beside=tuple(other for other in others if other != own))

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

    def check_deepspeed(self) -> None:
        """Whether a DeepSpeed configuration of the user's divides batches as this plan does.

        Raises:
            BadRecipe: it does not.
        """
        how = self.recipe.launch.deepspeed
        if how is not None and (
            problems := deepspeed_config.problems(
                self.recipe, self.loaded.root, lambda path: self.loaded.mark(*path), self.arithmetic
            )
        ):
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
        return frozenset(probe_files_with(self, b"significant"))

    def counts(self, name: str) -> Counts | None:
        """What the tokenizer makes of all rows that a stage will see; None where one of the two is not here."""
        if not self.is_seen(name):
            return None
        stage, seed = self.recipe.stages[name], self.recipe.seed
        amount = stage.global_batch_size, self.arithmetic[name].total_steps
        if isinstance(stage, PREFERENCE):
            fast = self.tokenizer_of(name)
            return preferred.counts(stage, self.preferences(name), fast, self.chat, seed, amount[1])
        return self.epochs(name).counts(*amount)


def probe_files_with(prepared: Prepared, word: bytes) -> set[str]:
    """Suites whose probe file, or the conftest.py beside it, holds a word; the plan imports none of them."""
    found = set()
    for name, suite in prepared.recipe.probes.items():
        file = prepared.loaded.root / suite.file.partition("::")[0]
        beside = file.with_name("conftest.py")
        if word in file.read_bytes() or (beside.is_file() and word in beside.read_bytes()):
            found.add(name)
    return found
