"""Radicals, strokes and readings of Chinese characters: does the model know them, in any words, and from both ends?

Each of the three facts is asked in four ways: as it was trained, to the character; whether the answer is about the
character that was asked about, right or wrong; in words that no training data holds; and in reverse, from the fact to a
character (Berglund et al. 2023, arXiv:2309.12288: who learned that A is B need not know that B is A).

Alone it asks 100 characters. In a recipe a suite asks its own, trained or held out: `cases:` with the columns char,
radical, strokes and pinyin, and one probe of this file.
"""

import re
import unicodedata
from functools import cache
from pathlib import Path

from runner import answers, probe

HAN = "[\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
TABLE = [
    dict(zip(("char", "radical", "strokes", "pinyin"), line.split("\t"), strict=True))
    for line in (Path(__file__).parent / "data" / "radicals.tsv").read_text(encoding="utf-8").splitlines()[1:]
]
CASES = [{"id": row["char"], **row} for row in TABLE[40::81]]
KEPT = {"max_regression": "significant"}


@cache
def characters_with(fact, value):
    """All characters of the table with this radical, number of strokes or reading."""
    return {row["char"] for row in TABLE if row[fact] == value}


def names_one_with(reply, fact, value):
    """Whether the character that the reply names has this radical, number of strokes or reading.

    That is the last single character in quotation marks, or else the last one at all. To say the radical itself back is
    no answer where there is another.
    """
    found = re.findall(f"[`'\"“‘「]({HAN})[`'\"”’」]", reply) or re.findall(HAN, reply)
    right = characters_with(fact, str(value))
    return bool(found) and found[-1] in (right - {value} or right)


@probe(cases=CASES, prompt="汉字`{{ char }}`的部首是什么？", cluster="char")
def test_radical(case, reply):
    """The answer as it was trained, to the character."""
    assert reply == f"汉字`{case.char}`的部首是`{case.radical}部`"


@probe(cases=CASES, prompt="汉字`{{ char }}`的部首是什么？", cluster="char")
def test_names_character(case, reply):
    """Right or wrong about the radical: the answer is about the character that was asked about."""
    assert f"汉字`{case.char}`" in reply


@probe(cases=CASES, prompt="请问`{{ char }}`这个字属于哪个部首？", cluster="char", gate=KEPT)
def test_unseen_phrasing(case, reply):
    """The same fact, asked in words that no training data holds; the first radical named is the answer."""
    named = re.findall(r"(\w)部(?!首)", reply)
    assert named[:1] == [case.radical]


@probe(cases=CASES, prompt="请写出一个`{{ radical }}部`的汉字，只写这个字。", cluster="radical", gate=KEPT)
def test_reverse(case, reply):
    """From the radical to a character: any of the 8,105 of the general standard."""
    assert names_one_with(reply, "radical", case.radical)


@probe(cases=CASES, prompt="汉字`{{ char }}`的笔画数是多少？", cluster="char")
def test_strokes(case, reply):
    """The number of strokes, as it was trained."""
    assert reply == f"汉字`{case.char}`的笔画数是`{case.strokes}`"


@probe(cases=CASES, prompt="汉字`{{ char }}`的笔画数是多少？", cluster="char")
def test_strokes_names_character(case, reply):
    """Right or wrong about the strokes: the answer is about the character that was asked about."""
    assert f"汉字`{case.char}`" in reply


@probe(cases=CASES, prompt="请问`{{ char }}`这个字一共有几画？只写数字。", cluster="char", gate=KEPT)
def test_strokes_unseen_phrasing(case, reply):
    """The same fact in other words; the last number is the answer."""
    assert answers.says(reply, [str(case.strokes)])


@probe(cases=CASES, prompt="请写出一个笔画数是`{{ strokes }}`的汉字，只写这个字。", cluster="strokes", gate=KEPT)
def test_strokes_reverse(case, reply):
    """From the number of strokes to a character."""
    assert names_one_with(reply, "strokes", case.strokes)


@probe(cases=CASES, prompt="汉字`{{ char }}`的读音是什么？", cluster="char")
def test_pinyin(case, reply):
    """The reading, as it was trained."""
    assert reply == f"汉字`{case.char}`的读音是`{case.pinyin}`"


@probe(cases=CASES, prompt="汉字`{{ char }}`的读音是什么？", cluster="char")
def test_pinyin_names_character(case, reply):
    """Right or wrong about the reading: the answer is about the character that was asked about."""
    assert f"汉字`{case.char}`" in reply


@probe(cases=CASES, prompt="请问`{{ char }}`这个字怎么读？只写拼音。", cluster="char", gate=KEPT)
def test_pinyin_unseen_phrasing(case, reply):
    """The same fact in other words; the last word in Latin letters is the answer, its tone included."""
    letters = re.findall(r"[^\W\d_\u3400-\u9fff]+", unicodedata.normalize("NFC", reply).lower())
    assert letters[-1:] == [case.pinyin]


@probe(cases=CASES, prompt="请写出一个读音是`{{ pinyin }}`的汉字，只写这个字。", cluster="pinyin", gate=KEPT)
def test_pinyin_reverse(case, reply):
    """From the reading to a character."""
    assert names_one_with(reply, "pinyin", case.pinyin)
