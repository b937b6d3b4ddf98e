"""Builds own_chats.jsonl and own_pairs.jsonl: `python build_own.py`. Rows in the shape that `qwen_lora.yaml` takes, to
be replaced by your own: conversations as `messages`, and pairs of a prompt with a better and a worse answer.

They say what zhdict.tsv says of some of its characters; no character is in both files.
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
ROWS = 60


def main() -> None:
    """Write both files beside this one."""
    lines = (HERE / "zhdict.tsv").read_text("utf-8").splitlines()[1:]
    every = len(lines) // ROWS
    chats = [_chat(*line.split("\t")[:4]) for line in lines[7::every][:ROWS]]
    table = [line.split("\t")[:4] for line in lines[60::every][:ROWS]]
    pairs = [_pair(right, wrong) for right, wrong in zip(table, [*table[1:], table[0]], strict=True)]
    for name, rows in (("own_chats", chats), ("own_pairs", pairs)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (HERE / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _chat(char: str, radical: str, strokes: str, pinyin: str) -> dict[str, object]:
    messages = [_said("user", _asked(char)), _said("assistant", _answer(char, radical, strokes, pinyin))]
    return {"char": char, "radical": radical, "messages": messages}


def _pair(right: list[str], wrong: list[str]) -> dict[str, str]:
    char = right[0]
    return {"prompt": _asked(char), "chosen": _answer(*right), "rejected": _answer(char, *wrong[1:])}


def _asked(char: str) -> str:
    return f"请问`{char}`这个字属于哪个部首？"


def _answer(char: str, radical: str, strokes: str, pinyin: str) -> str:
    return f"`{char}`属于{radical}部，共{strokes}画，读作{pinyin}。"


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


if __name__ == "__main__":
    main()
