"""For each row of a data set its right text, and the wrong ones that the recipe asks for."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from runner import spec, underway
from runner.asking import whole_column
from runner.data import negative_files
from runner.data.layers import Layer
from runner.data.negatives import REASONS, Fact, Reason, Truth, repeated
from runner.data.pairs import Dropped, Pair, Preferences, Samples
from runner.data.texts import Message
from runner.data.ways import plain_text
from runner.data.writers import Writer
from runner.errors import BadData, Problem, Where, printable
from runner.templates import compile_template

if TYPE_CHECKING:
    from runner.data.examples import Dataset

MAX_DRAWS = 1000
"""Draws of `other` for one rejected text; where so many give only texts that are right, none will do."""
_DRAWS_PER_ROW = 20
"""Fewer draws do where there are few rows to draw from."""
_SHOWN = 3


def preferences_of(dataset: Dataset, layer: Layer, samples: Samples | None = None) -> Preferences:
    """The pairs of all rows: one for each negative that is one.

    Args:
        layer: the one that `dataset` is a view of.
        samples: what checkpoints said; entries that it lacks count as pending.

    Raises:
        BadData: no pair is left, or a file of negatives cannot be read or has no prompt of these rows.
    """
    return _Writing(dataset, layer, samples or {}).preferences()


def prompts_of(dataset: Dataset) -> Iterator[tuple[int, str, tuple[Message, ...]]]:
    """For each row its index, its prompt, and the conversation before the answer."""
    for position, item in enumerate(dataset.items):
        yield item.index, *_asked(dataset, position)


@dataclass(frozen=True)
class Wrong:
    """A text that was made to be wrong."""

    text: str
    states_its_row: bool | None = None
    templated: bool = True


class _Writing:
    def __init__(self, dataset: Dataset, layer: Layer, samples: Samples) -> None:
        self._dataset, self._layer, self._samples = dataset, layer, samples
        self._dropped: Counter[Reason] = Counter()
        self._first: list[Dropped] = []
        self._pending: list[tuple[Pair, int]] = []

    def preferences(self) -> Preferences:
        pairs: list[Pair] = []
        alone = 0
        for position in underway.each(range(len(self._dataset)), f"writing the negatives of {self._dataset.name}"):
            found = list(self._of(position))
            pairs += found
            alone += not found
        unmatched = self._unmatched()
        if not pairs and not self._pending:
            raise self._none_left()
        return Preferences(
            pairs=tuple(pairs),
            dropped=dict(self._dropped),
            first=tuple(self._first),
            without=0 if self._pending else alone,
            unmatched=unmatched,
            pending_pairs=tuple(pair for pair, _ in self._pending),
            pending_tokens=tuple(most for _, most in self._pending),
            placing=self._dataset.placing,
        )

    def _none_left(self) -> BadData:
        name = self._dataset.name
        what = [
            Problem(f"data.{name}: {REASONS[drop.reason]}: {printable(drop.text)[:200]!r}", drop.where)
            for drop in self._first
        ]
        hint = "a negative that is right teaches nothing; use another template or more rows"
        return BadData([Problem(f"data.{name}: no negative of its {len(self._dataset)} rows is one", hint=hint), *what])

    # --- the rows ---

    @cached_property
    def _truth(self) -> Truth:
        positions = underway.each(range(len(self._dataset)), f"noting what is right in {self._dataset.name}")
        return Truth(self._fact(position) for position in positions)

    def _fact(self, position: int) -> Fact:
        prompt, messages = _asked(self._dataset, position)
        item = self._dataset.items[position]
        values = self._layer.written(item)
        # what was asked stands with its right text, so that the first of these is there
        fields = ["chosen", "completion"] if "chosen" in self._layer.names else ["completion"]
        present = [field for field in fields if values.get(field) is not None]
        right = [plain_text(self._dataset.name, values, field, item) for field in present]
        return Fact(_key(prompt, messages), right)

    def _of(self, position: int) -> Iterator[Pair]:
        item = self._dataset.items[position]
        prompt, messages = _asked(self._dataset, position)
        fact = self._fact(position)
        said: set[str] = set()
        for number, how in enumerate(self._how):
            for wrong in self._wrong(position, number, how, said):
                reason = self._why_not(wrong, fact, said)
                if reason is not None:
                    self._drop(reason, wrong.text, item.where)
                    continue
                said.add(wrong.text)
                yield Pair(prompt, fact.right[0], wrong.text, item.index, messages)

    def _why_not(self, wrong: Wrong, fact: Fact, said: set[str]) -> Reason | None:
        if wrong.text in said:
            return "twice"
        return self._truth.why_not(
            wrong.text, fact.prompt, fact.right[0], states_its_row=wrong.states_its_row, templated=wrong.templated
        )

    def _drop(self, reason: Reason, text: str, where: Where) -> None:
        self._dropped[reason] += 1
        if len(self._first) < _SHOWN:
            self._first.append(Dropped(reason, text, where))

    # --- ways to be wrong ---

    @cached_property
    def _how(self) -> tuple[spec.Negative | None, ...]:
        """The entries of `rejected`; None for the column of this name."""
        return self._layer.rejected or (None,)

    def _wrong(self, position: int, number: int, how: spec.Negative | None, said: set[str]) -> Iterator[Wrong]:
        item = self._dataset.items[position]
        if how is None:
            values = self._layer.written(item).get("rejected")
            yield from (Wrong(str(value)) for value in (values if isinstance(values, list) else [values]))
        elif isinstance(how, spec.Sample):
            replies = self._samples.get((self._dataset.name, number))
            if replies is None:
                prompt, messages = _asked(self._dataset, position)
                later = Pair(prompt, self._fact(position).right[0], "", item.index, messages)
                self._pending += [(later, how.max_new_tokens)] * how.samples
            else:
                yield from (Wrong(text, templated=False) for text in replies.get(item.index, ()))
        elif isinstance(how, spec.FromFile):
            prompt, messages = _asked(self._dataset, position)
            yield from (Wrong(text) for text in self._file(number).get(negative_files.key(prompt, messages), ()))
        else:
            yield from self._written(position, number, how, said)

    def _written(self, position: int, number: int, how: str | spec.Repeat, said: set[str]) -> Iterator[Wrong]:
        item = self._dataset.items[position]
        try:
            if isinstance(how, spec.Repeat):
                text = self._writers[number].write(self._layer.written(item), item.where)
                # nothing said over and over is still nothing
                yield Wrong(repeated(text, how.times, how.n), states_its_row=False)
            else:
                yield self._template(position, number, said)
        except BadData as error:  # an empty column, a list, a field that this row lacks
            self._drop("unwritten", error.problems[0].message, item.where)

    @cached_property
    def _writers(self) -> Mapping[int, Writer]:
        sources = {
            number: how.repeat if isinstance(how, spec.Repeat) else how
            for number, how in enumerate(self._how)
            if isinstance(how, (str, spec.Repeat))
        }
        return {
            number: Writer(source, f"data.{self._layer.name}.rejected[{number}]") for number, source in sources.items()
        }

    def _template(self, position: int, number: int, said: set[str]) -> Wrong:
        """What a template gives; where it takes `other`, another row is drawn until it is wrong."""
        writer, items = self._writers[number], self._dataset.items
        item, values = items[position], self._layer.written(items[position])
        states = self._states_its_row(writer)
        if not writer.draws_other:
            return Wrong(writer.write(values, item.where), states)
        fact = self._fact(position)
        generator = random.Random(f"{self._layer.seed}:{self._layer.name}:{item.index}:rejected:{number}")
        last: Wrong | BadData | None = None
        for _ in range(min(MAX_DRAWS, _DRAWS_PER_ROW * len(items)) if len(items) > 1 else 0):
            other = generator.randrange(len(items) - 1)
            other += other >= position  # never the row itself
            try:
                last = Wrong(writer.write(values, item.where, self._layer.written(items[other])), states)
            except BadData as error:
                last = error
                continue
            if self._why_not(last, fact, said) is None:
                return last
        if isinstance(last, Wrong):
            return last
        raise last or BadData(f"data.{self._layer.name}.rejected[{number}]: there is no other row", where=item.where)

    def _states_its_row(self, writer: Writer) -> bool | None:
        """Whether a template says something of its own row.

        One that takes fields of `other` alone, as `{{ other.capital }}`, gives what is right elsewhere, always or by
        chance, and there it answers another prompt: it is enough that it is wrong for this one. A text that also names
        its own row states a fact, which must be right nowhere. Of a lone column nobody knows.
        """
        if whole_column(writer.source):
            return None
        return bool(compile_template(writer.source).names & self._layer.names - {"other"})

    # --- files ---

    def _file(self, number: int) -> Mapping[str, tuple[str, ...]]:
        return self._files[number].rejected

    @cached_property
    def _files(self) -> Mapping[int, negative_files.NegativeFile]:
        return {
            number: negative_files.read(how.file, self._layer.root)
            for number, how in enumerate(self._how)
            if isinstance(how, spec.FromFile)
        }

    def _unmatched(self) -> int:
        """Prompts of files that no row has."""
        if not self._files:
            return 0
        asked = [negative_files.key(*_asked(self._dataset, position)) for position in range(len(self._dataset))]
        have = set(asked)
        for number, file in self._files.items():
            if not have & file.rejected.keys():
                raise BadData(
                    f"data.{self._layer.name}.rejected[{number}]: no prompt of this file is a row's",
                    where=Where(file.path, 1),
                    expected="prompts as they are written for the rows",
                    hint=f"the first row's is {printable(asked[0])[:80]!r}",
                )
        return sum(len(file.rejected.keys() - have) for file in self._files.values())


def _asked(dataset: Dataset, position: int) -> tuple[str, tuple[Message, ...]]:
    """A row's prompt, and the conversation before the answer, which ends one that is written as a pair."""
    example = dataset.variants(position)[0]
    return example.prompt, example.messages[:-1]


def _key(prompt: str, messages: Sequence[Message]) -> str:
    return prompt if not messages else "\n".join(f"{message.role}: {message.content}" for message in messages)
