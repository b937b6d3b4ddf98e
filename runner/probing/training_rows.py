"""What the rows of its training say about a suite's questions: whether they leaked, and whether they are asked as they
were trained. Known only for checkpoints of a run, which keeps digests of its rows (`runner.data.seen`)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runner.asking import Case
from runner.data import chat
from runner.data.seen import Seen, TrainedOn, differs, question_of, read
from runner.errors import printable
from runner.probing.planning import Ask
from runner.probing.questions import Question
from runner.probing.rendering import Rendered, form_of
from runner.probing.targets import Target


@dataclass(frozen=True)
class Trained:
    """The rows that a checkpoint was trained on, through all stages that its weights came through."""

    sets: tuple[TrainedOn, ...] = ()
    """The latest stage's first."""
    chat: bool = False
    """Whether prompts went through a chat template, as the checkpoint's tokenizer says."""

    def holds(self, question: str, key: str) -> tuple[Seen, str]:
        """Whether the question, or at least its key, stands in them; and in which data set."""
        facts = ""
        for rows in self.sets:
            found = rows.holds(question, key)
            if found == "question":
                return found, rows.ref
            facts = facts or (rows.ref if found else "")
        return ("facts" if facts else ""), facts

    def unlike(self, ask: Ask) -> str:
        """A note where a probe's prompt is not how training wrote its prompts; else empty.

        Rows are written with the probe's template, as far as they have the columns that it names. That no row's text
        begins with what comes of it may be meant (an unseen phrasing); often it is a space or a quotation mark. Through
        a chat template it has to be the whole of what a user said.
        """
        if self.chat and ask.probe.raw:
            return ""  # it is not meant to be what a user says
        form = form_of(ask.probe, ask.decoding)
        written = [(form.write(Case("row", row.columns)), row) for data in self.sets for row in data.rows]
        asked_of = _asked_text if self.chat else _prompt
        pairs = [(text, row) for one, row in written if not one.error and (text := asked_of(one.questions[0]))]
        found = differs(pairs, chat=self.chat)
        if found is None:
            return ""
        asked, trained = (printable(text) for text in found)
        return f"{ask.sitting.suite}: its prompt is not how training wrote it: asked {asked!r}, trained {trained!r}"


@dataclass(frozen=True)
class Looked:
    """What was found about the cases of a checkpoint, in their order."""

    leaks: tuple[tuple[Seen, str], ...]
    """Of each case, and the data set where it stands."""
    notes: tuple[str, ...] = ()


def look(target: Target, asks: Sequence[Ask], rendered: Sequence[Rendered], expected: Container[str]) -> Looked:
    """Look up every question in the rows that the checkpoint was trained on.

    Args:
        expected: suites whose questions are meant to stand there.

    Raises:
        BadData: what the run keeps of its rows is damaged.
    """
    trained = of(target)
    if not trained.sets:
        return Looked((("", ""),) * len(asks))
    leaks = tuple(
        trained.holds(_asked_text(one.questions[0]), ask.case.id) if one.questions else ("", "")
        for ask, one in zip(asks, rendered, strict=True)
    )
    notes = []
    for suite, places in _by_suite(asks).items():
        notes.append(trained.unlike(asks[places[0]]) if rendered[places[0]].questions else "")
        if suite in expected:
            continue
        for seen, words in _WORDS.items():
            found = [leaks[place][1] for place in places if leaks[place][0] == seen]
            if found:
                notes.append(f"{suite}: {len(found)} of {len(places)} {words} ({', '.join(dict.fromkeys(found))})")
    return Looked(leaks, tuple(note for note in notes if note))


_WORDS: Mapping[Seen, str] = {
    "question": "questions stand in the rows it was trained on: leaked",
    "facts": "cases are about what its training rows speak of in other words: seen as facts",
}


def of(target: Target) -> Trained:
    """What a checkpoint was trained on; nothing where no run says so, or the run is older than this.

    Raises:
        BadData: what the run keeps is damaged.
    """
    if target.run is None or target.at is None or target.at.stage not in target.run.recipe.stages:
        return Trained()
    refs, folder = target.run.recipe.trained_on(target.at.stage), target.run.folder / "data" / "seen"
    sets = tuple(rows for ref in refs if (rows := _read(ref, folder)) is not None)
    return Trained(sets, chat.own(target.path) is not None)


@cache
def _read(ref: str, folder: Path) -> TrainedOn | None:
    return read(ref, folder)


def _prompt(question: Question) -> str:
    return question.prompt


def _asked_text(question: Question) -> str:
    """What an author asks, without a system text: the prompt, or all that was said."""
    return question.prompt or question_of(question.messages)


def _by_suite(asks: Sequence[Ask]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, ask in enumerate(asks):
        found.setdefault(ask.sitting.suite, []).append(place)
    return found
