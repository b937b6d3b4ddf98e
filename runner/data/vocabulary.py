"""A vocabulary extended with given terms: each becomes one token of a checkpoint's tokenizer, and remembers the pieces
that it was written with before, of whose embeddings its own is made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from runner import spec
from runner.data import tokenizer_files
from runner.data.tokenizer import Fast
from runner.errors import BadRecipe

FORMAT_VERSION = 1
FILE = "vocabulary.json"
"""In a run's `data/`: what was added."""
COUNTED_CHARACTERS = 200_000
"""Tokens per character are counted on so many characters of the texts, from their beginning."""


@dataclass(frozen=True)
class Term:
    """A token that was added."""

    text: str
    id: int
    pieces: tuple[int, ...]
    """The tokens that the text was written with before."""


@dataclass(frozen=True)
class Extended:
    """A tokenizer with terms in it."""

    fast: Fast
    before: Fast
    added: tuple[Term, ...]
    already: tuple[str, ...]
    """Terms that were one token before; nothing was to be done."""
    repeated: tuple[str, ...]
    """Terms that were given more than once, and count once."""


def terms_of(block: spec.ExtendVocabulary, root: Path) -> tuple[str, ...]:
    """The terms as they are given, those of the file last; lines without text are left out.

    Raises:
        BadRecipe: the file is not there, or is not text; or there is not one term.
    """
    given = list(block.terms)
    if block.file is not None:
        try:
            given += (root / block.file).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadRecipe(
                f"model.extend_vocabulary.file: {block.file} cannot be read: {error}",
                expected="a UTF-8 text file with a term per line, from the project root",
            ) from error
    found = tuple(term.strip() for term in given if term.strip())
    if not found:
        raise BadRecipe("model.extend_vocabulary: there is no term", expected="terms, or a file with a term per line")
    return found


def extend(fast: Fast, terms: Sequence[str]) -> Extended:
    """Add terms to a tokenizer; they get the next free ids, in their order.

    A term is found wherever it stands in a text, inside words too, as scripts without spaces need it; of two that
    overlap, the one that begins earlier, and then the longer one.

    Raises:
        BadRecipe: a term would not be written back as it is, which byte-level tokenizers do to some letters.
    """
    import tokenizers

    once = tuple(dict.fromkeys(terms))
    pieces = dict(zip(once, fast.ids(once), strict=True))
    new = [term for term in once if len(pieces[term]) > 1 or pieces[term] == [fast.unknown_id]]
    made = tokenizers.Tokenizer.from_str(fast.tokenizer.to_str())
    made.add_tokens([tokenizers.AddedToken(term, normalized=False) for term in new])
    ids = made.get_vocab(with_added_tokens=True)
    for term in new:
        said = made.decode([ids[term]])
        if said != term:
            raise BadRecipe(
                f"model.extend_vocabulary: the tokenizer would write {term!r} back as {said!r}",
                expected="terms that its decoder leaves as they are",
                hint="its letters stand for bytes; leave this term out",
            )
    added = tuple(Term(term, ids[term], tuple(pieces[term])) for term in new)
    return Extended(
        fast=replace(fast, tokenizer=made),
        before=fast,
        added=added,
        already=tuple(term for term in once if term not in new),
        repeated=tuple(term for term in once if list(terms).count(term) > 1),
    )


def save(extended: Extended, place: str | Path, data: Path) -> None:
    """Write the tokenizer to `data/tokenizer`, with the other files of the one at `place`, and the terms beside it.

    Args:
        place: folder or hub id of the tokenizer that was extended.
        data: a run's `data/`.
    """
    folder, source = data / "tokenizer", tokenizer_files.folder_of(place)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and any(file.match(pattern) for pattern in tokenizer_files.PATTERNS):
            shutil.copyfile(file, folder / file.name)
    text = extended.fast.tokenizer.to_str(pretty=True)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    _list_added(folder / "tokenizer_config.json", json.loads(text)["added_tokens"])
    row = {"format_version": FORMAT_VERSION, "terms": [asdict(term) for term in extended.added]}
    (data / FILE).write_text(json.dumps(row, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _list_added(file: Path, added: Sequence[dict[str, Any]]) -> None:
    """Tell a configuration that lists added tokens of the new ones: transformers then takes them from there, and from
    nowhere else."""
    config = dict(tokenizer_files.config(file.parent))
    if "added_tokens_decoder" in config:
        listed = {str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added}
        config["added_tokens_decoder"] = listed
        file.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read(data: Path) -> tuple[Term, ...]:
    """The terms that `save` wrote."""
    row = json.loads((data / FILE).read_text(encoding="utf-8"))
    return tuple(Term(term["text"], term["id"], tuple(term["pieces"])) for term in row["terms"])


def tokens_per_character(fast: Fast, texts: Sequence[str]) -> float:
    """Tokens that texts are written with, for each of their characters."""
    return sum(map(len, fast.ids(texts))) / max(sum(map(len, texts)), 1)


def beginning(texts: Iterable[str], characters: int = COUNTED_CHARACTERS) -> list[str]:
    """The first texts, until they have so many characters together."""
    found, left = [], characters
    for text in texts:
        if left <= 0:
            break
        found.append(text)
        left -= len(text)
    return found


def in_words(extended: Extended, texts: Sequence[str]) -> str:
    """What was done, for the plan: `12 terms added; 3 were one token before: 水, 火, 木; 0.71 → 0.64 tokens per
    character`."""
    count = len(extended.added)
    words = [f"{count:,} term{'' if count == 1 else 's'} added"]
    for terms, said in ((extended.already, "one token before"), (extended.repeated, "given more than once")):
        if terms:
            words.append(f"{len(terms):,} {'was' if len(terms) == 1 else 'were'} {said}: {_first(terms)}")
    if texts:
        before, after = (tokens_per_character(fast, texts) for fast in (extended.before, extended.fast))
        words.append(f"{before:.3f} → {after:.3f} tokens per character of {sum(map(len, texts)):,}")
    return "; ".join(words)


def _first(terms: Sequence[str], most: int = 5) -> str:
    return ", ".join(terms[:most]) + (", …" if len(terms) > most else "")
