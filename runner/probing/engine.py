"""The local engine: greedy replies of one checkpoint, many prompts at a time, equal to asking each alone.

One call of `Engine.generate`:
  1. prompts become token ids (through the chat template, where the tokenizer has one);
  2. rows are sorted so that neighbours share their beginning and their length, and cut into batches by a token budget;
  3. per batch the longest common token prefix is prefilled once, the rest padded on the left;
  4. tokens are taken greedily; rows that are finished leave the batch.
"""

from __future__ import annotations

import gc
import inspect
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.cache_utils import DynamicLayer

from runner.asking import StopReason
from runner.errors import BadCheckpoint, Where, first_line

NAME = "local"
DEFAULT_BATCH_TOKENS = 16_384
_SMALL, _LARGE = 4_000_000, 50_000_000
"""Parameters. A small model gains nothing from a second thread, and where another process has the other core, threads
that wait for each other made it 10 to 25 times slower."""
_LOGGING: Any = transformers.utils.logging
_SHARED_TOKENS = 16
"""Rows are sorted by their first so many tokens; a shorter common prefix is not worth a pass of its own."""


@dataclass(frozen=True)
class Question:
    """One prompt and how far to answer it."""

    prompt: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What came of one question. Where `error` is set there is no reply."""

    prompt: str = ""
    """The exact text the model was given."""
    text: str = ""
    tokens: tuple[int, ...] = ()
    stop_reason: StopReason = "eos"
    margin: float | None = None
    seconds: float = 0.0
    """This question's share of the time its batch took."""
    error: str = ""


@dataclass
class _Row:
    """A question while it is answered."""

    place: int
    question: Question
    prompt: str
    ids: list[int]
    limit: int
    """Tokens that may be generated."""
    new: list[int] = field(default_factory=list)
    margin: float | None = None
    text: str = ""
    stop_reason: StopReason | None = None


class Engine:
    """A checkpoint in memory, ready to answer.

    Raises:
        BadCheckpoint: tokenizer or weights are missing, damaged, or do not belong to the configuration.
    """

    def __init__(
        self,
        path: Path,
        dtype: str = "auto",
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        device: str | None = None,
        *,
        chat: bool = True,
    ) -> None:
        """Load it.

        Args:
            chat: ask through the tokenizer's chat template, where it has one.
        """
        self.path, self._chat = path, chat
        self.batch_tokens = batch_tokens
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # bf16 greedy output changes with the composition of a batch; on a CPU nothing is gained by it either
        wanted = dtype if dtype != "auto" else "float32" if self.device.type == "cpu" else "auto"
        with _Quiet():
            self.tokenizer: Any = _load_tokenizer(path)
            self.model: Any = _load_model(path, wanted).to(self.device).eval()
        self._threads = torch.get_num_threads()
        if self.device.type == "cpu" and self.model.num_parameters() < _SMALL:
            torch.set_num_threads(1)
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        self._eos = _stop_ids(self.model, self.tokenizer)
        self._limit: int | None = getattr(self.model.config, "max_position_embeddings", None)
        accepted = inspect.signature(self.model.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._positions = "position_ids" in accepted

    def close(self) -> None:
        """Free the model before the next one is loaded."""
        torch.set_num_threads(self._threads)
        large = self.model.num_parameters() > _LARGE
        del self.model
        if large:
            gc.collect()  # cycles hold it otherwise; for a small model the search costs more than it frees
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def generate(self, questions: Sequence[Question]) -> list[Answer]:
        """Greedy answers, in the order of the questions."""
        started = time.perf_counter()
        rows, answers = self._tokenize(questions)
        tokenizing_s = (time.perf_counter() - started) / max(len(questions), 1)
        for batch in self._batches(rows):
            started = time.perf_counter()
            self._halving(batch)
            share_s = (time.perf_counter() - started) / len(batch) + tokenizing_s
            for row in batch:
                assert row.stop_reason is not None
                answers[row.place] = Answer(
                    row.prompt, row.text, tuple(row.new), row.stop_reason, row.margin, seconds=share_s
                )
        return answers

    def _tokenize(self, questions: Sequence[Question]) -> tuple[list[_Row], list[Answer]]:
        prompts = [question.prompt for question in questions]
        chat = self._chat and bool(getattr(self.tokenizer, "chat_template", None))
        if chat:
            turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
            prompts = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        # a chat template writes its own special tokens; otherwise the tokenizer adds what it adds to any text
        encoded = self.tokenizer(prompts, add_special_tokens=not chat)["input_ids"] if prompts else []
        rows: list[_Row] = []
        answers = [Answer(prompt) for prompt in prompts]
        starts = [id for id in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id) if id is not None]
        for place, (question, prompt, ids) in enumerate(zip(questions, prompts, encoded, strict=True)):
            ids = ids or starts[:1]
            room = question.max_new_tokens if self._limit is None else self._limit - len(ids)
            if not ids or room < 1:
                why = "is empty" if not ids else f"has {len(ids)} tokens and the model takes {self._limit}"
                answers[place] = Answer(prompt, error=f"the prompt {why}")
                continue
            rows.append(_Row(place, question, prompt, ids, min(question.max_new_tokens, room)))
        return rows, answers

    def _batches(self, rows: list[_Row]) -> Iterator[list[_Row]]:
        """Rows in batches whose padded size, prompt and reply, stays within the token budget."""
        rows = sorted(rows, key=lambda row: (row.limit, row.ids[:_SHARED_TOKENS], len(row.ids)))
        batch: list[_Row] = []
        longest = 0
        for row in rows:
            longest = max(longest, len(row.ids) + row.limit)
            if batch and longest * (len(batch) + 1) > self.batch_tokens:
                yield batch
                batch, longest = [], len(row.ids) + row.limit
            batch.append(row)
        if batch:
            yield batch

    def _halving(self, batch: list[_Row]) -> None:
        """Answer a batch; where memory does not suffice, answer its halves."""
        try:
            self._answer(batch)
            return
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        torch.cuda.empty_cache()
        for row in batch:
            row.new, row.margin, row.text, row.stop_reason = [], None, "", None
        middle = len(batch) // 2
        self._halving(batch[:middle])
        self._halving(batch[middle:])

    def _answer(self, batch: list[_Row]) -> None:
        cache, mask, logits = self._prefill(batch)  # mask (B, T), logits (B, V)
        alive = list(batch)
        while True:
            best = logits.float().topk(2)
            tokens = best.indices[:, 0]  # (B,)
            margins = (best.values[:, 0] - best.values[:, 1]).tolist()
            for row, token, margin in zip(alive, tokens.tolist(), margins, strict=True):
                if row.stop_reason is None:
                    self._take(row, token, margin)
            keep = [place for place, row in enumerate(alive) if row.stop_reason is None]
            if not keep:
                return
            # dropping rows copies the cache: wait until an eighth of them is finished
            if (len(alive) - len(keep)) * 8 >= len(alive):
                chosen = torch.tensor(keep, device=self.device)
                cache.batch_select_indices(chosen)
                mask, tokens = mask[chosen], tokens[chosen]
                alive = [alive[place] for place in keep]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)  # (B, T + 1)
            logits = self._forward(tokens[:, None], mask, cache)

    def _prefill(self, batch: list[_Row]) -> tuple[DynamicCache, torch.Tensor, torch.Tensor]:
        """The cache, mask (B, T) and last logits (B, V) of the prompts."""
        cache = DynamicCache(config=self.model.config)
        shared = _common_prefix([row.ids for row in batch]) if len(batch) > 1 else 0
        if shared < _SHARED_TOKENS or any(type(layer) is not DynamicLayer for layer in cache.layers):
            shared = 0
        if shared:
            prefix = torch.tensor([batch[0].ids[:shared]], device=self.device)  # (1, P)
            self._forward(prefix, torch.ones_like(prefix), cache)
            cache.batch_repeat_interleave(len(batch))
        width = max(len(row.ids) for row in batch) - shared
        padding = [width - len(row.ids) + shared for row in batch]
        # what stands in the padding does not matter: the mask hides it, and positions do not count it
        padded = [[0] * pad + row.ids[shared:] for row, pad in zip(batch, padding, strict=True)]
        ids = torch.tensor(padded)  # (B, T - P)
        mask = torch.tensor([[1] * shared + [0] * pad + [1] * (width - pad) for pad in padding])  # (B, T)
        mask = mask.to(self.device)
        return cache, mask, self._forward(ids.to(self.device), mask, cache)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """Logits (B, V) after the last of `ids` (B, S), which continue what is in the cache; mask is (B, T)."""
        options: dict[str, Any] = dict(self._options)
        if self._positions:
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]  # (B, S)
            options["position_ids"] = positions
        output = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options)
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _take(self, row: _Row, token: int, margin: float) -> None:
        """Append a token to a row and see whether that ends it."""
        row.new.append(token)
        row.margin = margin if row.margin is None else min(row.margin, margin)
        if token in self._eos:
            row.stop_reason = "eos"
        elif row.question.stop and self._stopped(row):
            row.stop_reason = "stop"
            text = self._decode(row.new)
            row.text = text[: min(at for stop in row.question.stop if (at := text.find(stop)) >= 0)]
            return
        elif len(row.new) >= row.limit:
            row.stop_reason = "length"
        if row.stop_reason is not None:
            row.text = self._decode(row.new)

    def _stopped(self, row: _Row) -> bool:
        # a character takes up to four byte-level tokens: only so much of the end can hold a stop string that is new;
        # the whole text decides, because the end alone may begin in the middle of a character
        longest = max(len(stop) for stop in row.question.stop)
        tail = self._decode(row.new[-(4 * longest + 4) :])
        if not any(stop in tail for stop in row.question.stop):
            return False
        text = self._decode(row.new)
        return any(stop in text for stop in row.question.stop)

    def _decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _common_prefix(rows: Sequence[list[int]]) -> int:
    """Tokens that all rows begin with, leaving every row at least one of its own."""
    low, high = min(rows), max(rows)
    most = min(len(row) for row in rows) - 1
    return next((place for place in range(most) if low[place] != high[place]), most)


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a reply. Nothing else is taken from the checkpoint's generation settings: no penalties."""
    found: set[int] = set()
    for source in (model.config, getattr(model, "generation_config", None), tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found.update([ids] if isinstance(ids, int) else ids or [])
    return frozenset(found)


def _load_tokenizer(path: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise BadCheckpoint(
            f"no tokenizer could be loaded: {first_line(error)}",
            where=Where(str(path)),
            expected="tokenizer.json and tokenizer_config.json beside the weights",
        ) from error


def _load_model(path: Path, dtype: str) -> Any:
    adapter = (path / "adapter_config.json").is_file()
    try:
        return _load_adapter(path, dtype) if adapter else _load_weights(path, dtype)
    except BadCheckpoint:
        raise
    except Exception as error:  # damaged weights raise SafetensorError, RuntimeError, OSError, KeyError, ValueError, …
        raise BadCheckpoint(
            f"the model could not be loaded: {first_line(error)}",
            where=Where(str(path)),
            expected="config.json with its *.safetensors" if not adapter else "an adapter whose base model is there",
        ) from error


def _load_weights(path: Path | str, dtype: str) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True)
    model, about = loaded
    if missing := sorted(about["missing_keys"]):
        # transformers would draw these at random and only warn
        raise BadCheckpoint(
            f"the weights lack {missing[0]!r} and {len(missing) - 1} others that config.json calls for",
            where=Where(str(path)),
        )
    return model


def _load_adapter(path: Path, dtype: str) -> Any:
    from peft import PeftConfig, PeftModel

    base = str(PeftConfig.from_pretrained(str(path)).base_model_name_or_path)
    # a base named relative to the adapter, else to the working folder, else on the hub
    beside = (path / base).resolve()
    model = _load_weights(beside if beside.is_dir() else base, dtype)
    return PeftModel.from_pretrained(model, str(path)).merge_and_unload()


class _Quiet:
    """Loading without transformers' progress bars and hints; its settings are put back afterwards."""

    def __enter__(self) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        self._verbosity = _LOGGING.get_verbosity()
        self._bars = _LOGGING.is_progress_bar_enabled()
        _LOGGING.set_verbosity_error()
        _LOGGING.disable_progress_bar()

    def __exit__(self, *exception: object) -> None:
        _LOGGING.set_verbosity(self._verbosity)
        if self._bars:
            _LOGGING.enable_progress_bar()
