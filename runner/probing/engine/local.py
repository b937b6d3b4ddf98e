"""The local engine: a checkpoint in memory, its questions answered in few large batches as if each were asked alone."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from runner import checkpoints, underway
from runner.probing.engine import agreement, closed
from runner.probing.engine.adapters import base_of, why_apart
from runner.probing.engine.answering import Answering, Batch
from runner.probing.engine.endings import Endings
from runner.probing.engine.loading import Quiet, load_adapters, load_model, load_tokenizer, stop_ids
from runner.probing.engine.network import Network
from runner.probing.engine.padded import Padded
from runner.probing.engine.places import Places
from runner.probing.engine.prompts import Prompts
from runner.probing.engine.rows import Group, Row, batches, groups
from runner.probing.questions import Answer, Question

NAME = "local"
VERSION = 2
"""Raised when the same checkpoint and question may give another answer than before; part of a stored answer's key."""
DEFAULT_BATCH_TOKENS: int | None = None
"""As many as `_KEPT_BYTES` hold."""
_KEPT_BYTES = 2**30
_MOST_TOKENS = 65_536
_SMALL, _LARGE = 4_000_000, 50_000_000
"""Parameters. A small model gains nothing from a second thread, and where another process has the other core, threads
that wait for each other made it 10 to 25 times slower."""
_CLOSE_CALL = 3
"""A margin below so many times the largest rounding that was measured could have gone the other way: the row is asked
again alone. Two logits move against each other by at most twice the rounding; the rest is for rows that were not
measured."""
_LEAST_TOLERANCE = 1e-5
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "out of memory")


class Engine:
    """A checkpoint in memory, ready to answer.

    Raises:
        BadCheckpoint: tokenizer or weights are missing, damaged, or do not belong to the configuration.
    """

    def __init__(
        self,
        path: Path,
        dtype: str = "auto",
        batch_tokens: int | None = DEFAULT_BATCH_TOKENS,
        device: str | None = None,
        *,
        chat: bool = True,
        adapters: Sequence[Path] = (),
    ) -> None:
        """Load it.

        Args:
            path: a checkpoint's folder; with `adapters`, their base.
            dtype: `auto` is fp32 on a CPU, else the checkpoint's own.
            batch_tokens: padded tokens, prompt and reply, that a batch may hold; None: as many as a GiB holds.
            chat: ask through the tokenizer's chat template, where it has one.
            adapters: LoRA adapters of this base that are asked in one batch; `generate` is told which is asked what.
        """
        self.path = path
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # bf16 greedy output changes with the composition of a batch; on a CPU nothing is gained by it either
        wanted = dtype if dtype != "auto" else "float32" if self.device.type == "cpu" else "auto"
        self._adapters = {f"adapter{number}": folder for number, folder in enumerate(adapters)}
        with Quiet(), ExitStack() as checked:
            for folder in adapters or [path]:
                checked.enter_context(checkpoints.checking(folder))
            self.tokenizer: Any = load_tokenizer(adapters[0] if adapters else path)
            loaded = load_adapters(path, self._adapters, wanted) if adapters else load_model(path, wanted)
            self.model: Any = loaded.to(self.device).eval()
        self._network = Network(self.model, self.device, mixes_adapters=bool(adapters))
        self._threads = torch.get_num_threads()
        if self.device.type == "cpu" and self.model.num_parameters() < _SMALL:
            torch.set_num_threads(1)
        self.dtype = str(self._network.compute).removeprefix("torch.")
        longest = getattr(self._network.config, "max_position_embeddings", None)
        self._prompts = Prompts(self.tokenizer, longest, chat)
        self._endings = Endings(self.tokenizer, stop_ids(self.model, self.tokenizer))
        self.batch_tokens = batch_tokens or min(_KEPT_BYTES // max(self._network.kept_bytes, 1), _MOST_TOKENS)
        self._agreement: agreement.Agreement | None = None
        self._has_places = self._network.may_have_places
        self._attempt: tuple[list[Row], int, int] = [], 1, 1
        """The rows under way, how many at a time, and their tokens."""
        self._work = underway.Work("answering")

    @classmethod
    def with_adapters(
        cls,
        adapters: Sequence[Path],
        dtype: str = "auto",
        batch_tokens: int | None = DEFAULT_BATCH_TOKENS,
        device: str | None = None,
        *,
        chat: bool = True,
    ) -> Engine:
        """One engine for several adapters of one base.

        Raises:
            BadCheckpoint: the base or an adapter is missing or cannot be loaded.
            ValueError: they cannot share batches; ask `why_apart` first, and give each an engine of its own.
        """
        if why := why_apart(adapters):
            raise ValueError(f"these adapters cannot share batches: {why}")
        base = Path(base_of(adapters[0]))
        return cls(base, dtype, batch_tokens, device, chat=chat, adapters=adapters)

    def close(self) -> None:
        """Free the model before the next one is loaded."""
        torch.set_num_threads(self._threads)
        large = self.model.num_parameters() > _LARGE
        self._network.let_go()
        del self.model, self._network
        if large:
            gc.collect()  # cycles hold it otherwise; for a small model the search costs more than it frees
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def describe(self) -> str:
        """What answers, for the screen."""
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            return f"local engine, {self.dtype} on cpu, {threads} thread{'s' if threads > 1 else ''}"
        return f"local engine, {self.dtype} on {torch.cuda.get_device_name(self.device)}"

    def generate(self, questions: Sequence[Question], adapters: Sequence[int] | None = None) -> list[Answer]:
        """Answers, in the order of the questions: where decoding is greedy and in fp32, those of a batch of one.

        Args:
            adapters: where the engine has several, the index of the one each question is for.
        """
        return self._answers(questions, adapters, self._together)

    def alone(self, questions: Sequence[Question], adapters: Sequence[int] | None = None) -> list[Answer]:
        """Answers of a batch of one in fp32, computed as `model.generate` does; each says that it was asked again."""
        with self._network.in_fp32():
            answered = self._answers(questions, adapters, lambda rows: self._alone(rows, self._work))
            return [replace(answer, again=True) for answer in answered]

    @torch.inference_mode()
    def _answers(
        self, questions: Sequence[Question], adapters: Sequence[int] | None, answer: Callable[[list[Row]], None]
    ) -> list[Answer]:
        began = time.perf_counter()
        names = list(self._adapters) or [""]
        rows = self._prompts.rows(questions, [names[number] for number in adapters or [0] * len(questions)])
        tokenizing_s = (time.perf_counter() - began) / max(len(rows), 1)
        asked = [row for row in rows if row.open]
        try:
            with underway.work("answering", len(asked), "questions") as self._work:
                answer(asked)
        finally:
            self._network.restore()
        return [_answer_of(row, tokenizing_s) for row in rows]

    def _together(self, rows: list[Row]) -> None:
        """Answer rows in batches, and those that hang by less than rounding once more alone."""
        left = rows
        while left:
            if self._fits_memory(left):
                break
            # only here: the error that was caught held on to the batch
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            left = [row for row in left if row.open]
            for row in left:
                row.restart()
            self._work.done = len(rows) - len(left)
        if self._network.compute == torch.float32:
            for row in rows:
                if row.close and row.greedy:
                    self._settle(row)

    def _settle(self, row: Row) -> None:
        """Answer a row alone where it hung by less than rounding, and on from there if it then falls the other way."""
        if not row.choices:
            until = Row(row.number, row.question, row.prompt, row.ids, limit=row.close, adapter=row.adapter)
            self._alone([until])
            row.seconds += until.seconds
            if until.new == row.new[: row.close]:
                return
        self._alone([row])

    def _fits_memory(self, rows: list[Row]) -> bool:
        """Answer rows; where memory does not suffice, say so and halve what a batch may hold."""
        try:
            for group in groups([row for row in rows if not row.choices]):
                self._generate(group)
            for group in groups([row for row in rows if row.choices]):
                self._score(group)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            under_way, size, tokens = self._attempt
            if size == 1:
                next(row for row in under_way if row.open).lacks_memory()
            self.batch_tokens = max(tokens // 2, 1)
            return False
        return True

    def _generate(self, group: Group) -> None:
        if len(group.rows) == 1:
            self._alone(group.rows, self._work)
            return
        self._agree(group)
        shared = group.shared if self._has_places else 0
        for several, size, width in batches(group.rows, shared, self.batch_tokens):
            for start in range(0, len(several), len(several) if self._has_places else size):
                some = several if self._has_places else several[start : start + size]
                with self._attempting(some, size, size * width):
                    batch: Batch = (
                        self._places(some, shared, size, width) if self._has_places else Padded(self._network, size)
                    )
                    Answering(batch, self._endings, some, self._network, self._tolerance(), self._work.advance).run()

    def _score(self, group: Group) -> None:
        self._agree(group)
        if not self._has_places:
            self._alone(group.rows, self._work)
            return
        for adapter in {row.adapter: None for row in group.rows}:
            rows = [row for row in group.rows if row.adapter == adapter]
            for some, tokens in closed.batches(self._network, rows, self.batch_tokens):
                with self._attempting(some, len(some), tokens):
                    closed.score(self._network, some, group.shared)
                self._work.advance(len(some))
                for row in some:
                    tolerance = self._tolerance() * max(map(len, row.choices))
                    row.close = int(row.margin is not None and row.margin < tolerance)

    def _alone(self, rows: list[Row], counted: underway.Work | None = None) -> None:
        """Answer each row in a batch of one, computed as `model.generate` does; `counted` hears of each."""
        for row in rows:
            row.restart()
            try:
                with self._attempting([row], 1, 1):
                    if row.choices:
                        closed.score_alone(self._network, row)
                    else:
                        Answering(Padded(self._network, 1), self._endings, [row], self._network).run()
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                row.lacks_memory()
            if counted is not None:
                counted.advance()

    @contextmanager
    def _attempting(self, rows: list[Row], size: int, tokens: int) -> Iterator[None]:
        """Note what is tried, and give each row its share of the time it took."""
        self._attempt = rows, size, tokens
        began = time.perf_counter()
        yield
        share_s = (time.perf_counter() - began) / len(rows)
        for row in rows:
            row.seconds += share_s

    def _places(self, rows: Sequence[Row], shared: int, size: int, width: int) -> Places:
        adapters = {row.adapter: rows[0].ids[:shared] for row in rows}
        return Places(self._network, adapters, size, width)

    def _agree(self, group: Group) -> None:
        """At the first batch, see whether places compute what the model does, and how much rounding there is."""
        if self._agreement is not None:
            return
        longest = max(len(row.ids) for row in group.rows)
        self._attempt = group.rows, 2, 2 * longest
        if self._has_places:
            made = lambda rows: self._places(rows, group.shared, len(rows), longest - group.shared + 2)  # noqa: E731
            try:
                self._agreement = agreement.measure(self._network, made, group.rows)
            except Exception as error:  # whatever a model's own code makes of it: padded serves every model
                if _is_out_of_memory(error):
                    raise
            if self._agreement is not None and self._agreement.agrees:
                return
        self._has_places = False
        self._agreement = agreement.measure(self._network, lambda rows: Padded(self._network, len(rows)), group.rows)

    def _tolerance(self) -> float:
        """A margin below this is a close call."""
        rounding = self._agreement.difference if self._agreement else 0.0
        return max(_CLOSE_CALL * rounding, _LEAST_TOLERANCE)


def _answer_of(row: Row, tokenizing_s: float) -> Answer:
    if row.error:
        return Answer(row.prompt, error=row.error)
    assert row.stop_reason is not None
    if any(map(math.isnan, (row.logprob, *row.choice_logprobs))):
        return Answer(row.prompt, error="the model's logits are not numbers: its weights are damaged, or overflow")
    return Answer(
        row.prompt, row.text, tuple(row.new), row.stop_reason, row.margin, row.logprob, row.choice_logprobs,
        seconds=row.seconds + tokenizing_s,
    )  # fmt: skip


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, on a GPU or on a CPU, where torch raises a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
