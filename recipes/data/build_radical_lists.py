"""Builds radical_lists.tsv: `python build_radical_lists.py > radical_lists.tsv`. For every radical that eight or more
characters of zhdict.tsv have, the first sixteen of them, in its order."""

from __future__ import annotations

from pathlib import Path

LEAST, MOST = 8, 16


def main() -> None:
    """Print the table."""
    members: dict[str, list[str]] = {}
    for line in (Path(__file__).parent / "zhdict.tsv").read_text("utf-8").splitlines()[1:]:
        char, radical = line.split("\t")[:2]
        members.setdefault(radical, []).append(char)
    print("radical\tcharacters")
    for radical, chars in members.items():
        if len(chars) >= LEAST:
            print(f"{radical}\t{'、'.join(chars[:MOST])}")


if __name__ == "__main__":
    main()
