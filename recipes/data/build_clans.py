"""Builds clans.tsv: `python build_clans.py > clans.tsv`. A made-up clan for each of the first characters of zhdict.tsv.

The clans are drawn with a fixed seed, so that nothing about a character tells its clan: who knows it has learned it.
"""

from __future__ import annotations

import random
from pathlib import Path

CHARACTERS = 200
FIRST = "青白赤玄金银铜铁云雨雪霜山川江海春夏秋冬日月星辰"
SECOND = "龙虎狼鹿鹰雁鹤鸦熊豹狐兔蛇龟鱼蝉松柏竹梅桃李枫荷"


def main() -> None:
    """Print the table."""
    lines = (Path(__file__).parent / "zhdict.tsv").read_text("utf-8").splitlines()[1 : CHARACTERS + 1]
    drawn = random.Random(6)
    print("char\tclan")
    for line in lines:
        print(f"{line.partition(chr(9))[0]}\t{drawn.choice(FIRST)}{drawn.choice(SECOND)}")


if __name__ == "__main__":
    main()
