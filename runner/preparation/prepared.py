"""What the stages of a recipe need, each part made when it is first asked for: data, tokenizer, counts, leaks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from runner import folder, jobs, leaks, plan, spec
from runner.checkpoints import sha256_file, weights_sha256
from runner.data import chat, datasets, preferred, samples, vocabulary
from runner.data.accounts import Account
from runner.data.epochs import Counts, Epochs, stage_epochs
from runner.data.pairs import Preferences
from runner.data.token_store import TOKENS, Kept
from runner.data.tokens import Fast, load_tokenizer, train_tokenizer
from runner.errors import BadRecipe, Problem
from runner.folder import folder_or_hub_id, given_tokenizer, tokenizer_place
from runner.leaks import Leak
from runner.plan import Arithmetic
from runner.recipe import Loaded
from runner.spec import parse_ref

PREFERENCE = (spec.Dpo, spec.Contrast)
"""Kinds of stages that are trained on pairs."""


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
        return frozenset(probe_files_with(self, b"significant"))

    def counts(self, name: str) -> Counts:
        """What the tokenizer makes of all rows that a stage will see."""
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
