"""Data files that nobody would write, of every kind that is read: rows changed, bytes changed, packed or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from runner import verdicts
from runner.check import load_checked
from runner.data import datasets
from runner.verdicts import SuiteAsked, Verdict, VerdictFile
from tests.fuzz.mutating import ODD, mutated, other_value

Rows = list[dict[str, Any]]

ROWS: Mapping[str, Rows] = {
    "plain": [
        {"id": f"a{at}", "prompt": f"{at} + 1 = ?", "completion": str(at + 1), "text": f"{at}\n一"} for at in range(6)
    ],
    "alpaca": [
        {"instruction": "Say it.", "input": "心" * at, "output": "心", "history": [["a", "b"]]} for at in range(4)
    ],
    "sharegpt": [{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}] * 3,
    "messages": [
        {"messages": [{"role": "system", "content": "be"}, {"role": "user", "content": [{"type": "text", "text": "q"}]},
                      {"role": "assistant", "content": "a"}], "system": "s"}
    ] * 3,
    "preference": [
        {"prompt": "q", "chosen": "right", "rejected": "wrong"},
        {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "right"}],
         "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "wrong"}]},
    ],
    "text": [{"text": "第一\n"}, {"text": "second\u2028line"}, {"text": ""}],
}  # fmt: skip
"""By format, rows as they are meant."""
WORDS = (
    b'"', b"'", b"\\", b"\\u", b"\\ud800", b"\\u0000", b"\x00", b"\t", b",", b"\r", b"\r\n", b"\n",
    b"\xef\xbb\xbf", b"\xff\xfe", b"{", b"}", b"[",
    b"]", b"[" * 3000, b'{"a":' * 1500, b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"\xe2\x80\xa8",
    b"\xf0\x9f\x91\xa8", b"id", b"prompt",
    b"rejected", b"messages", b"\x1b[2J", b"\x85", b"\x0c", b"---", b"{{ x }}",
)  # fmt: skip
"""What the formats make something of."""
_CHAT = "\n  chat_template: chatml"
_RECIPE = """\
recipe: fuzzed
model:
  config: {{model_type: qwen3, hidden_size: 16, num_hidden_layers: 1}}
  tokenizer: {{train: char, from_data: rows}}{chat}
data:
  rows: {{path: {path}{more}}}
{below}stages:
  sft: {{kind: {kind}, data: {used}}}
"""


def written(draw: random.Random) -> Mapping[str, bytes]:
    """A project with one file of data, or a verdict file."""
    kind = draw.choice(tuple(_KINDS))
    return _KINDS[kind](draw)


def ask(folder: Path) -> None:
    """What a plan and a run read of it: columns, rows, every text, every pair, every case, and what was left out.

    Raises:
        UserError: it is refused.
    """
    for file in folder.glob("*.verdicts"):
        again = folder / "again"
        verdicts.write(again, verdicts.read(file))
        verdicts.read(again)
        return
    found = load_checked(folder / "recipe.yaml", (), folder)
    rows = datasets.build(found.spec, folder)
    for name in found.spec.data:
        data = rows.get(name)
        if data.shape == "pairs":
            data.preferences().lines()
        elif data.shape != "rows":
            list(data.texts())
            data.examples(0)
        list(data.each_case())
        rows.account(name).lines()
        data.digest()


# --- kinds of files ---


def _json(draw: random.Random, name: str, dump: Callable[[Rows], bytes]) -> Mapping[str, bytes]:
    how = draw.choice(tuple(ROWS))
    return _project(draw, name, dump(_rows(draw, how)), how)


def _jsonl(draw: random.Random) -> Mapping[str, bytes]:
    return _json(draw, "rows.jsonl", lambda rows: b"".join(json.dumps(row).encode() + b"\n" for row in rows))


def _json_list(draw: random.Random) -> Mapping[str, bytes]:
    return _json(draw, "rows.json", lambda rows: json.dumps(rows, indent=draw.choice((None, 1))).encode())


def _csv(draw: random.Random) -> Mapping[str, bytes]:
    return _columns(draw, "rows.csv", ",")


def _tsv(draw: random.Random) -> Mapping[str, bytes]:
    return _columns(draw, "rows.tsv", "\t")


def _columns(draw: random.Random, name: str, separator: str) -> Mapping[str, bytes]:
    how = draw.choice(("plain", "text", "alpaca"))
    rows = [{str(key): value for key, value in row.items()} for row in _rows(draw, how)]
    text = io.StringIO()
    table = csv.DictWriter(
        text, list(rows[0]) if rows else ["text"], delimiter=separator, extrasaction="ignore", escapechar="\\"
    )
    table.writeheader()
    table.writerows(rows)
    return _project(draw, name, text.getvalue().encode("utf-8", "surrogatepass"), how)


def _txt(draw: random.Random) -> Mapping[str, bytes]:
    text = "\n".join(str(row["text"]) for row in ROWS["text"] * draw.randint(1, 5)).encode()
    more = draw.choice(
        ("", ', separator: "\\n\\n"', ", separator: '---'", ", separator: '\u2028'", ", separator: 'ss'")
    )
    return _project(draw, "rows.txt", text, "text", more)


def _parquet(draw: random.Random) -> Mapping[str, bytes]:
    how = draw.choice(tuple(ROWS))
    return _project(draw, "rows.parquet", arrow_file(_rows(draw, how)), how)


def arrow_file(rows: Rows) -> bytes:
    """Rows as parquet; others where arrow cannot put them into columns."""
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    try:
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, stream)
    except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError, TypeError, ValueError):
        stream = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"text": ["x"], "prompt": ["p"], "completion": ["c"]}), stream)
    return stream.getvalue()


def _saved(draw: random.Random) -> Mapping[str, bytes]:
    """A folder that `datasets` saved."""
    files = dict(saved_files())
    for name in draw.sample(sorted(files), draw.choice((0, 1, 1, 3))):
        files[name] = mutated(draw, files[name], WORDS, list(files.values()))
    return {f"rows/{name}": content for name, content in files.items()} | _recipe(draw, "rows", "plain")


@cache
def saved_files() -> Mapping[str, bytes]:
    import datasets as hub_datasets

    hub_datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        hub_datasets.Dataset.from_list(ROWS["plain"]).save_to_disk(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _negatives(draw: random.Random) -> Mapping[str, bytes]:
    """A file of negatives beside rows that are as they are meant."""
    rows = [{"prompt": row["prompt"], "rejected": draw.choice((["x", "y"], "x"))} for row in ROWS["plain"]]
    rows = _changed(draw, rows)
    against = _maybe(draw, b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    good = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS["plain"])
    below = "  pairs: {rows: rows, rejected: [{file: wrong.jsonl}]}\n"
    recipe = _RECIPE.format(chat="", path="rows.jsonl", more="", below=below, kind="dpo", used="pairs")
    return {"rows.jsonl": good, "wrong.jsonl": against, "recipe.yaml": recipe.encode()}


def _verdicts(draw: random.Random) -> Mapping[str, bytes]:
    """A verdict file, with its rows changed."""
    one = Verdict("s", "p.py::t", "a", "pass", "said", values={"n": 1.0}, generation={"dtype": "float32"}, margin=0.5)
    file = VerdictFile("qa@1", "w", (SuiteAsked("s", "k", ("p.py::t",), None, 1),), (one,) * 3)
    with tempfile.TemporaryDirectory() as folder:
        verdicts.write(path := Path(folder) / "v", file)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    changed = _changed(draw, rows)
    return {"some.verdicts": _maybe(draw, b"".join(json.dumps(row).encode() + b"\n" for row in changed))}


_KINDS: Mapping[str, Callable[[random.Random], Mapping[str, bytes]]] = {
    "jsonl": _jsonl, "json": _json_list, "csv": _csv, "tsv": _tsv, "txt": _txt, "parquet": _parquet, "saved": _saved,
    "negatives": _negatives, "verdicts": _verdicts,
}  # fmt: skip


# --- what they have in common ---


def _rows(draw: random.Random, how: str) -> Rows:
    return _changed(draw, ROWS[how])


def _changed(draw: random.Random, rows: Sequence[Any]) -> Rows:
    """Rows of which a few values are odd."""
    found: Any = list(rows)
    for _ in range(draw.choice((0, 1, 1, 3))):
        found = other_value(draw, found, lambda: draw.choice(ODD))
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _maybe(draw: random.Random, content: bytes) -> bytes:
    return mutated(draw, content, WORDS, [content]) if draw.random() < 0.6 else content


def _project(draw: random.Random, name: str, content: bytes, how: str, more: str = "") -> Mapping[str, bytes]:
    """The file, perhaps packed, perhaps damaged before and after that, and a recipe that reads it."""
    content = _maybe(draw, content)
    packing = draw.choice(("", "", "", ".gz", ".xz"))
    if packing and not name.endswith(".parquet"):
        content = gzip.compress(content, 1, mtime=0) if packing == ".gz" else lzma.compress(content, preset=0)
        if draw.random() < 0.3:
            content = mutated(draw, content, WORDS, [content])
        name += packing
    return {name: content, **_recipe(draw, name, how, more)}


def _recipe(draw: random.Random, path: str, how: str, more: str = "") -> Mapping[str, bytes]:
    if how != "plain" and draw.random() < 0.5:
        more += f", format: {how}"
    if draw.random() < 0.5:
        more += ", on_bad_row: skip"
    if how == "plain":
        more += draw.choice(("", ", split: {by: id, train: 0.5, held_out: 0.5}", ', text: "{{ prompt }} {{ id }}"'))
    if draw.random() < 0.2:
        more += ", filter: {min_chars: 1, max_chars: 50, empty: true}"
    below = "  asked: {rows: rows, prompt: '{{ text }}', completion: '{{ text }}'}\n" if draw.random() < 0.2 else ""
    kind = {"preference": "dpo", "text": "pretrain"}.get(how, "sft")
    recipe = _RECIPE.format(chat=draw.choice(("", _CHAT)), path=path, more=more, below=below, kind=kind, used="rows")
    return {"recipe.yaml": recipe.encode()}
