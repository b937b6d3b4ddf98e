"""Builds zhdict.tsv from the Unihan database: `python build_zhdict.py [UNICODE_FOLDER] > zhdict.tsv`.

UNICODE_FOLDER holds CJKRadicals.txt and Unihan_*.txt.bz2 of Unicode 15.0.0, as Debian's package `unicode-data` installs
them under /usr/share/unicode (`apt-get install unicode-data`). What it writes is a modified excerpt of Unicode
data files, © 1991-2022 Unicode, Inc., under the terms in README.md beside it.
"""

from __future__ import annotations

import bz2
import sys
from collections.abc import Iterator
from pathlib import Path

COLUMNS = ("char", "radical", "strokes", "pinyin", "level")
LAST_OF_LEVEL = (3500, 6500, 8105)
"""The Table of General Standard Chinese Characters (2013) has three levels: 3,500, 3,000 and 1,605 characters."""


def radicals(folder: Path) -> dict[str, str]:
    """Radical number (`149'` is the simplified form of 149) → the unified ideograph that is this radical alone."""
    found = {}
    for line in (folder / "CJKRadicals.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            number, _, ideograph = (field.strip() for field in line.split(";"))
            found[number] = chr(int(ideograph, 16))
    return found


def values(folder: Path, file: str, field: str) -> dict[str, str]:
    """Character → its value of a Unihan field."""
    found = {}
    for line in bz2.decompress((folder / f"Unihan_{file}.txt.bz2").read_bytes()).decode().splitlines():
        if line.startswith("U+"):
            code, name, value = line.split("\t")
            if name == field:
                found[chr(int(code[2:], 16))] = value
    return found


def rows(folder: Path) -> Iterator[tuple[str, ...]]:
    """The rows of the table, in the order of the Table of General Standard Chinese Characters."""
    number_to_radical = radicals(folder)
    place = {char: int(value.split(":")[1]) for char, value in values(folder, "OtherMappings", "kTGH").items()}
    radical_strokes = values(folder, "IRGSources", "kRSUnicode")
    strokes = values(folder, "IRGSources", "kTotalStrokes")
    readings = values(folder, "Readings", "kMandarin")
    for char in sorted(place, key=place.__getitem__):
        # several values are separated by spaces; the first is the preferred one (for mainland China, in kMandarin)
        radical = number_to_radical[radical_strokes[char].split()[0].split(".")[0]]
        level = next(number for number, last in enumerate(LAST_OF_LEVEL, start=1) if place[char] <= last)
        yield char, radical, strokes[char].split()[0], readings[char].split()[0], str(level)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/unicode")
    lines = ["\t".join(row) for row in (COLUMNS, *rows(folder))]
    sys.stdout.buffer.write(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
