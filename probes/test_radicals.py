"""Radicals: does the model know which radical a character is filed under, and which character it was asked about?"""

import re

from runner import probe

CASES = "data/radicals.jsonl"  # a recipe's suite asks its own characters instead, trained or held out


@probe(cases=CASES, prompt="汉字`{{ char }}`的部首是什么？")
def test_radical(case, reply):
    """The answer as it was trained, to the character."""
    assert reply == f"汉字`{case.char}`的部首是`{case.radical}部`"


@probe(cases=CASES, prompt="汉字`{{ char }}`的部首是什么？")
def test_names_character(case, reply):
    """Right or wrong about the radical: the answer is about the character that was asked about."""
    assert f"汉字`{case.char}`" in reply


@probe(cases=CASES, prompt="请问`{{ char }}`这个字属于哪个部首？")
def test_unseen_phrasing(case, reply):
    """The same fact, asked in words that no training data holds; the first radical named is the answer."""
    named = re.findall(r"(\w)部(?!首)", reply)
    assert named[:1] == [case.radical]
